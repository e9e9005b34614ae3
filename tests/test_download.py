"""The verb: names, `model.json`, and the wheels of a runtime."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from edgeml.download import download, runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.store import Store
from edgeml.targets import own_name, profile
from edgeml.types import ModelRef
from edgeml.wheels import cached_wheels, requirements, wheel_folder
from tiny.weights import gguf_bytes
from tiny.wheels import write_wheel

AARCH64 = "cp311-cp311-manylinux_2_28_aarch64"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    return Store(tmp_path / "artifacts")


@pytest.fixture
def gguf(tmp_path: Path) -> Callable[[str], ModelRef]:
    def make(name: str) -> ModelRef:
        path = tmp_path / name / "Tiny.gguf"
        path.parent.mkdir()
        path.write_bytes(gguf_bytes())
        return ModelRef(source="local", id=str(path))

    return make


def test_a_download_is_known_to_the_store_by_its_short_name(store: Store, gguf: Callable[[str], ModelRef]) -> None:
    ref = gguf("a")
    model = download(ref, store=store)
    assert (model.name, model.ref, model.format) == ("tiny", ref.id, "gguf")
    assert store.model(None) == model
    assert download(ref, store=store).name == "tiny"


@pytest.mark.parametrize("folder", ["日本", "bundles", "Bundles", "_x"])
def test_a_model_of_whose_path_no_name_can_be_made_needs_one(store: Store, tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / "model.gguf").write_bytes(gguf_bytes())
    ref = ModelRef.parse(str(tmp_path / folder))
    with pytest.raises(EdgemlError, match="no short name can be made of") as caught:
        download(ref, store=store)
    assert caught.value.hint == "name it: --name NAME"
    assert store.models() == []
    assert download(ref, store=store, name="mine").name == "mine"


def test_a_name_may_be_chosen_but_not_taken_from_another_model(store: Store, gguf: Callable[[str], ModelRef]) -> None:
    first, second = gguf("a"), gguf("b")
    assert download(first, store=store, name="mine").name == "mine"
    assert download(first, store=store, name="mine").name == "mine"
    with pytest.raises(EdgemlError, match="mine is the name of") as caught:
        download(second, store=store, name="mine")
    assert "--name" in caught.value.hint
    for bad in ("../x", "Mine", "", "bundles"):
        with pytest.raises(EdgemlError, match="cannot be a model's name"):
            download(second, store=store, name=bad)
    assert [model.name for model in store.models()] == ["mine"]


def test_a_refused_download_leaves_no_model(store: Store, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"no")
    with pytest.raises(EdgemlError):
        download(ModelRef(source="local", id=str(tmp_path / "bad.gguf")), store=store)
    assert store.models() == []
    assert not store.root.exists()


def test_a_full_disk_is_said_in_one_sentence(store: Store, gguf: Callable[[str], ModelRef]) -> None:
    def full(step: str, done: int, total: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(EdgemlError, match="disk is full"):
        download(gguf("a"), store=store, progress=full)


def test_the_wheels_of_a_device_are_fetched_for_its_platform_once(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pi = profile("pi5")
    index = tmp_path / "index"
    for wanted in requirements("onnx"):
        name, _, version = wanted.partition("==")
        write_wheel(index, {}, name=name, version=version, tag=AARCH64)
        write_wheel(index, {}, name=name, version=version, tag="cp311-cp311-manylinux_2_28_x86_64")
    for key, value in {"PIP_FIND_LINKS": str(index), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(key, value)
    folder = runtime_wheels(pi, "onnx", python="3.11")
    assert folder == wheel_folder(pi, "3.11", "onnx")
    assert all(path.name.endswith(f"{AARCH64}.whl") for path in cached_wheels(pi, "3.11", "onnx"))
    for path in index.iterdir():
        path.unlink()
    assert runtime_wheels(pi, "onnx", python="3.11") == folder


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("pi5", "edgeml runtime build --target pi5"),
        ("apple-silicon", "edgeml runtime build --target apple-silicon --wheel"),
    ],
)
def test_llama_cpp_for_another_machine_is_refused_with_the_command_that_brings_it(
    store: Store, target: str, hint: str
) -> None:
    if own_name() == target:
        pytest.skip("here it would be compiled")
    with pytest.raises(EdgemlError, match="llama-cpp-python") as caught:
        runtime_wheels(profile(target), "gguf")
    assert hint in caught.value.hint


@pytest.mark.real
def test_the_real_wheels_for_a_pi_stay_within_60_megabytes(store: Store) -> None:
    pi = profile("pi5")
    runtime_wheels(pi, "onnx", python="3.11")
    sizes = {path.name: path.stat().st_size for path in cached_wheels(pi, "3.11", "onnx")}
    assert sum(sizes.values()) < 60e6, sizes
    assert all("aarch64" in name or name.endswith("-none-any.whl") for name in sizes)
