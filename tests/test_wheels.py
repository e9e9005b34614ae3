"""Which wheels a bundle carries and where they are kept; filling the folder is in test_download."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.targets import own_name, profile
from edgeml.wheels import (
    PACKAGES,
    cached_wheels,
    default_python,
    own_python,
    put_wheel,
    requirements,
    shared_wheel,
    wheel_folder,
)
from tiny.wheels import write_wheel


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path))


def put(folder: Path, requirement: str) -> Path:
    name, _, version = requirement.partition("==")
    return write_wheel(folder, {}, name=name, version=version)


def test_another_machine_gets_its_profile_s_python_and_this_one_its_own() -> None:
    other = "pi5" if own_name() != "pi5" else "laptop"
    assert default_python(profile(other)) == profile(other).python[0]
    assert default_python(profile(None)) == own_python() == f"{sys.version_info.major}.{sys.version_info.minor}"


def test_wheels_are_kept_apart_by_platform_python_and_format() -> None:
    pi5, pi4, laptop = profile("pi5"), profile("pi4"), profile("laptop")
    asked = [(pi5, "3.11", "onnx"), (pi5, "3.13", "onnx"), (pi5, "3.11", "gguf"), (laptop, "3.11", "onnx")]
    assert len({wheel_folder(*one) for one in asked}) == len(asked)
    assert wheel_folder(pi5, "3.11", "onnx") == wheel_folder(pi4, "3.11", "onnx")
    assert wheel_folder(pi5, "3.11", "gguf") != wheel_folder(pi4, "3.11", "gguf")  # compiled for one's own instructions


def test_a_wheel_takes_the_place_of_others_of_its_version_alone(tmp_path: Path) -> None:
    folder = wheel_folder(profile("pi5"), "3.11", "gguf")
    old, other = put(folder, "a-model==1.0"), put(folder, "a-model==2.0")
    new = write_wheel(tmp_path, {}, name="a-model", version="1.0", tag="py3-none-linux_aarch64")
    assert put_wheel(new, folder) == put_wheel(folder / new.name, folder) == folder / new.name
    assert (old.exists(), other.exists(), new.exists()) == (False, True, True)
    assert shared_wheel(profile("pi5"), "gguf", "a-model==1.0") == folder / new.name
    assert shared_wheel(profile("pi4"), "gguf", "a-model==1.0") is None


def test_a_runtime_is_complete_only_when_every_requirement_has_its_wheel() -> None:
    pi5 = profile("pi5")
    folder = wheel_folder(pi5, "3.11", "onnx")
    first, *rest = requirements("onnx")
    paths = [put(folder, wanted) for wanted in rest]
    with pytest.raises(EdgemlError, match=first) as caught:
        cached_wheels(pi5, "3.11", "onnx")
    assert caught.value.hint == "edgeml download --runtime onnx --target pi5"
    put(folder, f"{first.partition('==')[0]}==0.0.1")  # another version does not do
    with pytest.raises(EdgemlError, match=first):
        cached_wheels(pi5, "3.11", "onnx")
    paths.insert(0, put(folder, first))
    assert list(cached_wheels(pi5, "3.11", "onnx")) == paths


def test_requirements_are_exact_and_an_unknown_format_is_refused() -> None:
    assert all("==" in wanted for format in PACKAGES for wanted in requirements(format))
    assert "tokenizers" not in PACKAGES["gguf"]
    with pytest.raises(EdgemlError, match="tflite"):
        requirements("tflite")
