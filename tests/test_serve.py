"""The endpoint as a process: how it starts and ends, and what it says; on a bundle, a variant, by `edgeml serve`."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import closing, contextmanager, suppress

import pytest

from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.serve import serve
from edgeml.store import Store
from edgeml.targets import profile
from edgeml_runtime.server.settings import read_settings
from tiny.commands import inside
from tiny.variants import onnx_variant


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return Store(tmp_path_factory.mktemp("serve") / "artifacts")


@pytest.fixture(scope="module")
def variant(store):
    return onnx_variant(store.variant_folder("tiny", "onnx-fp32"))


@pytest.fixture(scope="module")
def bundle(store, variant):
    return bundle_path(store, package(variant, store=store, profile=profile("laptop"), kind="dir", wheels=False))


def endpoint(folder, *options):
    return [sys.executable, "-P", "-m", "edgeml_runtime", "serve", str(folder), "--port", "0", *options]


@contextmanager
def running(command):
    """The process, the port that it listens at, and the lines that it said before."""
    child = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        lines = []
        for line in child.stderr:
            lines.append(line)
            if "is served at" in line:
                break
        yield child, int(lines[-1].rpartition(":")[2]), "".join(lines)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        child.stderr.close()


def embedded(port):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/embeddings", b'{"input": "a pump"}', headers)
        return json.loads(connection.getresponse().read())["data"][0]["embedding"]


def test_a_bundle_proves_itself_serves_and_stops_as_asked_with_exit_0(bundle):
    with running(endpoint(bundle)) as (child, port, said):
        assert "self-test passed" in said
        assert len(embedded(port)) == 8
        child.terminate()
        assert child.wait(10) == 0
        assert child.stderr.read().strip().endswith("stopped")


def test_a_bundle_that_fails_its_self_test_never_listens(bundle, tmp_path):
    broken = shutil.copytree(bundle, tmp_path / "broken")
    weights = broken / "variant" / "model.onnx"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    done = subprocess.run(endpoint(broken), check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 3
    assert "is not the file that was recorded" in done.stderr
    assert "served at" not in done.stderr


def test_what_cannot_be_is_said_before_anything_listens(variant, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        refused = {
            "cannot listen at 127.0.0.1": ["--port", port],
            "no token protects it": ["--host", "0.0.0.0"],
            "'x' is no port": ["--port", "x"],
            "cannot read the token": ["--token-file", str(tmp_path / "none")],
        }
        for told, options in refused.items():
            command = endpoint(variant.path, *options)
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
            assert (done.returncode, told in done.stderr) == (3, True), done.stderr


def test_edgeml_serve_refuses_before_it_says_anything_else(store, variant, tmp_path):
    (tmp_path / "bad.toml").write_text("port = ")
    (tmp_path / "open").write_text("x" * 16)
    (tmp_path / "open").chmod(0o644)
    refused = {
        "cannot read": ["--config", str(tmp_path / "bad.toml")],
        "no token protects it": ["--host", "0.0.0.0"],
        "others may read the token": ["--token-file", str(tmp_path / "open")],
    }
    for told, options in refused.items():
        done = inside("serve", "tiny/onnx-fp32", "--artifacts", str(store.root), *options)
        assert (done.code, done.err.count("\n")) == (3, 2)
        assert told in done.refusal[0]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        command = endpoint(variant.path, "--port", str(taken.getsockname()[1]))
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=20)
        assert done.stderr.startswith("error: cannot listen at 127.0.0.1")


def test_edgeml_serve_runs_the_same_endpoint_and_ctrl_c_ends_it(store, variant):
    command = [sys.executable, "-m", "edgeml", "serve", "tiny/onnx-fp32", "--port", "0", "--artifacts", str(store.root)]
    with running(command) as (child, port, said):
        assert "no self-test" in said
        assert len(embedded(port)) == 8
        os.killpg(child.pid, signal.SIGINT)  # as a terminal does
        assert child.wait(10) == 0


def test_edgeml_serve_ended_by_another_process_leaves_no_endpoint(store, variant):
    command = [sys.executable, "-m", "edgeml", "serve", "tiny/onnx-fp32", "--port", "0", "--artifacts", str(store.root)]
    with running(command) as (child, port, _):
        child.terminate()
        assert child.wait(10) == 0
        with pytest.raises(ConnectionRefusedError):
            embedded(port)


def test_systemd_is_told_when_it_is_ready(variant, tmp_path, monkeypatch):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with running(endpoint(variant.path)) as (child, _, _):
            assert listener.recv(100) == b"READY=1"
            child.terminate()
            assert listener.recv(100) == b"STOPPING=1"


def test_what_the_endpoint_needs_and_is_missing_is_named_as_a_clone_installs_it(monkeypatch, tmp_path):
    monkeypatch.setattr("edgeml.serve.find_spec", lambda name: None)
    with pytest.raises(EdgemlError, match="packages are missing") as caught:
        serve(tmp_path)
    assert caught.value.hint == "in a clone of edgeml: pip install -e '.[serve]'"


def test_paths_of_the_settings_lead_home_as_in_a_shell(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    path = tmp_path / "serve.toml"
    path.write_text('token_file = "~/token"\n[feedback]\nfile = "~/.local/state/feedback.sqlite"\nkey_file = "~k"\n')
    settings = read_settings(path)

    assert settings.token_file == f"{tmp_path}/token"
    assert settings.feedback.file == f"{tmp_path}/.local/state/feedback.sqlite"
    assert settings.feedback.key_file == "~k"
    path.write_text("feedback = 1")
    with pytest.raises(EdgemlError, match="got `int`"):
        read_settings(path)
