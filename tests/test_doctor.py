"""What this machine can and cannot do, and how it could."""

from __future__ import annotations

import importlib.util
import shutil

from edgeml import doctor as doctors
from edgeml.doctor import doctor
from edgeml.render import as_text
from edgeml.targets import own_name
from edgeml_runtime.meters import AUTO, meter_of, relevant
from edgeml_runtime.meters.hwmon import Hwmon
from edgeml_runtime.types import State


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


def test_each_meter_that_this_machine_could_have_has_a_line_with_its_own_reason():
    lines = [one for one in doctor() if one.name.startswith("energy: ")]
    missing = [meter_of(name).available() for name in relevant()]

    assert [one.available for one in lines] == [reason is None for reason in missing]
    for line, reason in zip(lines, missing, strict=True):
        assert reason is None or line.detail == reason.reason.removeprefix("no energy sensor: ")
    assert all(one.available or one.hint for one in lines)


def test_every_meter_has_a_title():
    assert set(doctors._SENSORS) == set(AUTO)


def test_a_meter_that_is_there_is_told_with_its_scope_and_warnings(tmp_path, monkeypatch):
    (tmp_path / "hwmon0").mkdir()
    for file, text in {"name": "ina219", "power1_input": "3000000", "shunt_resistor": "10000"}.items():
        (tmp_path / "hwmon0" / file).write_text(text)
    monkeypatch.setattr(doctors, "relevant", lambda: ["hwmon"])
    monkeypatch.setattr(doctors, "meter_of", lambda name: Hwmon(tmp_path))

    line = found()["energy: INA2xx power chip"]

    assert line.available
    assert line.detail.startswith("the supply line ina219/1, shunt 10 milliohm; ")
    assert "default of 10 milliohm" in line.detail


def test_heat_and_throttling_are_told_where_the_system_does(monkeypatch):
    state = State(temperature_c=61.3, throttled=("under_voltage",))
    monkeypatch.setattr(doctors, "read_state", lambda: state)

    assert found()["temperature"].detail.startswith("61 °C")
    assert found()["throttling"].detail == "under_voltage"
    monkeypatch.setattr(doctors, "read_state", State)
    assert not found()["temperature"].available
    assert not found()["throttling"].available


def test_it_is_readable_on_a_narrow_screen():
    text = as_text(doctor(), 80)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(line.startswith(("yes  ", "no   ", "     ")) for line in text.splitlines())
