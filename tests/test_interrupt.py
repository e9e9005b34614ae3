"""Ctrl-C and SIGTERM in the middle of each verb: exit code 130, two lines, no half file and no child left behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgeml.store import Store
from tiny.commands import Done, inside, tree
from tiny.gguf import llama_gguf
from tiny.hub_server import serving
from tiny.safetensors import llama_folder
from tiny.variants import onnx_variant
from tiny.weights import model_files

ENDLESS = ("--threads", "1", "--repeats", "100000000")
TIMEOUT_S = 60
SAID = ["error: interrupted", "hint: nothing half-written was left; run the same command again"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder to work in, and a cache whose path tells this test's processes from all others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    return Store(tmp_path / "artifacts")


def started(*arguments: object) -> subprocess.Popen[str]:
    """A command in a process group of its own, as a shell starts it."""
    command = [sys.executable, "-m", "edgeml", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def ended(process: subprocess.Popen[str], number: int, when: str, child: str = "") -> Done:
    """How a command ends that is told to when it has said `when` and its `child` runs: for Ctrl-C the whole group."""
    said = spoken(process, when)
    while child and process.poll() is None and not [line for line in running() if child in line]:
        time.sleep(0.005)  # a child that has said nothing yet shows itself only in /proc
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    out, err = process.communicate(timeout=TIMEOUT_S)
    return Done(process.returncode, out, said + err)


def spoken(process: subprocess.Popen[str], when: str) -> str:
    """What a command says on stderr up to the line with `when`."""
    assert process.stderr
    said = ""
    for line in process.stderr:
        said += line
        if when in line:
            return said
    raise AssertionError(said)


def running() -> list[str]:
    """Command lines of this test's processes: each child inherits the environment that names its cache."""
    mark = f"EDGEML_CACHE={os.environ['EDGEML_CACHE']}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes()  # empty where a process has ended
            if words and int(folder.name) != os.getpid() and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(words.replace(b"\0", b" ").decode())
    return found


def check_interrupted(done: Done, store: Store, before: dict[str, str]) -> None:
    """The code, the two lines, and nothing left: no file, no half of one, no process."""
    assert (done.code, done.out) == (130, "")
    assert done.err.strip("\n").splitlines()[-2:] == SAID
    assert "Traceback" not in done.err
    assert tree(store.root) == before
    assert not list(store.root.rglob("*.part"))
    assert running() == []


both = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc here")


@contextlib.contextmanager
def stuck_server() -> Iterator[str]:
    """The address of a server that takes a request, answers its beginning, and then says nothing more."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", "100000000")
            self.end_headers()
            self.wfile.write(b"<html>")
            self.wfile.flush()
            over.wait()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            over.set()
            server.shutdown()


@needs_proc
def test_download_from_an_index(store, monkeypatch):
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    with stuck_server() as address:
        monkeypatch.setenv("PIP_INDEX_URL", address)
        done = ended(started("download", "pypi:a-model"), signal.SIGINT, "download ...")

    check_interrupted(done, store, {})
    assert tree(store.root.parent / "cache") == {}


@needs_proc
def test_download_from_a_hub(store, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_HOME", str(store.root.parent / "hub"))
    with serving() as hub:
        hub.repo("org/name", model_files())
        hub.stuck.add("model.safetensors")
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        process = started("download", "org/name")
        assert hub.half_sent.wait(TIMEOUT_S)
        done = ended(process, signal.SIGINT, "download ...")
        hub.over.set()

    check_interrupted(done, store, {})
    assert inside("list").out == ""


@needs_proc
@both
def test_quantize(store, number):
    folder = llama_folder(store.root.parent / "tiny", width=64)
    assert inside("download", folder).code == 0
    before = tree(store.root)

    done = ended(started("quantize", "--to", "gguf:q8_0"), number, "convert to f16 ...", child="convert_hf_to_gguf")

    check_interrupted(done, store, before)
    assert [path.name for path in (store.root / "tiny").iterdir()] == ["model.json"]


@needs_proc
@both
def test_bench(store, number):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    before = tree(store.root)

    done = ended(started("bench", "tiny", *ENDLESS), number, "warm-up and steady runs, silent while the clock runs ...")

    check_interrupted(done, store, before)


@needs_proc
@both
def test_package(store, number):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    before = tree(store.root)

    done = ended(started("package", "tiny", "--no-wheels"), number, "goldens ...", child="edgeml_runtime goldens")

    check_interrupted(done, store, before)
    assert not list((store.root / "bundles").iterdir())


@needs_proc
def test_run(store):
    (store.root.parent / "lines.csv").write_text("text\nfuel\n")
    llama_gguf(store.root.parent / "tiny.gguf", width=64)
    recipe = (
        "schema: edgeml.recipe/1\nabout: x\ndownload: ./tiny.gguf\nquantize: {to: [gguf:q8_0]}\n"
        "bench: {task: text-generation, data: lines.csv, threads: 1, repeats: 100000000}\n"
    )
    (store.root.parent / "recipe.yaml").write_text(recipe)

    process = started("run", "recipe.yaml", "--json")
    assert process.stdout
    ready = [json.loads(process.stdout.readline()) for _ in range(2)]  # results come while later verbs still work
    done = ended(process, signal.SIGINT, "warm-up and steady runs, silent while the clock runs ...")

    assert [line["schema"] for line in ready] == ["edgeml.model/1", "edgeml.variant/1"]
    assert (done.code, done.out) == (130, "")
    assert done.err.strip("\n").splitlines()[-2:] == SAID
    assert "tiny/gguf-q8_0" in inside("list", "--json").out  # what was finished stays
    assert not (store.root / "tiny" / "measurements").exists()
    assert running() == []


@needs_proc
def test_a_second_ctrl_c_does_not_cut_the_cleaning_short(store):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    before = tree(store.root)
    process = started("package", "tiny", "--no-wheels")
    said = spoken(process, "goldens ...")
    while process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.001)  # signals that come together count as one
    out, err = process.communicate(timeout=TIMEOUT_S)

    check_interrupted(Done(process.returncode, out, said + err), store, before)


def test_a_signal_that_is_ignored_on_purpose_stays_ignored(store):
    code = (
        "import signal, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); sys.argv = ['edgeml', 'targets', '--json']\n"
        "import atexit; atexit.register(lambda: print(signal.getsignal(signal.SIGHUP), file=sys.stderr))\n"
        "from edgeml.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stderr.splitlines()[-1] == "1"  # SIG_IGN
