"""What this machine can and cannot do, and how it could."""

from __future__ import annotations

import importlib.util
import shutil

from edgeml import doctor as doctors
from edgeml.doctor import doctor
from edgeml.render import as_text
from edgeml.targets import own_name
from edgeml_runtime.meters.rapl import Rapl


def found():
    return {one.name: one for one in doctor()}


def test_the_machine_comes_first_with_its_facts():
    first = doctor()[0]

    assert first.name == f"target {own_name()}"
    assert first.available
    assert " cores" in first.detail


def test_what_is_installed_is_named_with_its_version():
    ability = found()["run ONNX"]

    assert ability.available
    assert ability.detail.startswith("onnxruntime ")
    assert ability.hint is None


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(doctors, "find_spec", lambda name: None if name in ("llama_cpp", "torch") else real(name))
    monkeypatch.setattr(shutil, "which", lambda name: None)

    abilities = found()

    missing = {name: one for name, one in abilities.items() if not one.available}
    assert {"make ONNX", "run GGUF", "make GGUF", "compile llama.cpp"} <= set(missing)
    assert all(one.hint for one in missing.values())
    assert abilities["run GGUF"].detail == "llama-cpp-python is not installed"
    assert "make gguf" in abilities["run GGUF"].hint
    assert "apt install g++" in abilities["compile llama.cpp"].hint
    assert abilities["run ONNX"].available


def test_energy_that_cannot_be_measured_has_the_meters_own_reason():
    missing = Rapl().unavailable()
    ability = found()["measure energy"]

    assert ability.available == (missing is None)
    assert missing is None or ability.detail == missing.reason


def test_it_is_readable_on_a_narrow_screen():
    text = as_text(doctor(), 80)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(line.startswith(("yes  ", "no   ", "     ")) for line in text.splitlines())
