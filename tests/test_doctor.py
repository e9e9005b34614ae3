"""What this machine can and cannot do, and how it could."""

from __future__ import annotations

import importlib.util
import platform
import shutil

from edgeml import doctor as doctors
from edgeml import targets
from edgeml.doctor import doctor
from edgeml.render import as_text
from edgeml.targets import own_name, recognition
from edgeml.targets.types import Probe
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


def test_a_machine_without_a_profile_is_told_with_how_to_write_one(monkeypatch):
    intel = Probe(machine="x86_64", userland_bits=64, system="Darwin 23", pythons=("3.12",), home="/Users/a")
    monkeypatch.setattr(recognition, "here", lambda: intel)
    monkeypatch.setattr(targets, "here", lambda: intel)

    first = doctor()[0]

    assert (first.name, first.available) == ("target", False)
    assert first.detail.startswith("this is an Intel Mac, and edgeml has no profile of one: ")
    assert "edgeml targets --template" in first.hint


def test_a_machine_that_cannot_be_what_it_calls_itself_is_told_with_the_reason(monkeypatch):
    old = Probe(
        machine="aarch64",
        userland_bits=32,
        system="Linux 6.6",
        pythons=("3.11",),
        home="home",
        model="Raspberry Pi 4 Model B Rev 1.4",
    )
    monkeypatch.setattr(doctors, "here", lambda: old)
    monkeypatch.setattr(targets, "here", lambda: old)

    first = doctor()[0]

    assert (first.name, first.available) == ("target pi4", False)
    assert "its programs are 32-bit, on a 64-bit kernel" in first.detail
    assert first.hint


def test_what_reaches_a_device_is_told_and_how_to_get_it(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    assert found()["reach a device over SSH"].detail.startswith("/bin/ssh")
    monkeypatch.setattr(shutil, "which", lambda name: None)
    line = found()["reach a device over SSH"]

    assert not line.available
    assert line.detail == "no ssh and no scp here"
    assert "openssh-client" in line.hint


def test_an_emulator_is_told_to_be_ready_or_how_it_gets_so(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path))
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    assert found()["emulate a Raspberry Pi"].hint == "edgeml download --emulator --target pi5"
    (tmp_path / "emulator/qemu").mkdir(parents=True)
    (tmp_path / "emulator/qemu/qemu-aarch64").touch()
    (tmp_path / "emulator" / "root" / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "emulator" / "root" / "usr" / "bin" / "python3.11").touch()

    assert found()["emulate a Raspberry Pi"].detail.startswith("QEMU and Python 3.11 for ARM64")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert not found()["emulate a Raspberry Pi"].available


def test_windows_and_its_linux_are_told_what_they_can_measure(monkeypatch):
    monkeypatch.setattr(doctors, "relevant", list)
    (native,) = doctors._windows("Windows", "11")
    (inside,) = doctors._windows("Linux", "6.6.87.2-microsoft-standard-WSL2")

    assert "peak working set" in native.detail
    assert "never tried on Windows" in native.detail
    assert "--energy-csv" in inside.hint
    assert doctors._windows("Linux", "6.12.25") == []
    assert not found()["energy"].available
    assert "--energy-csv" in found()["energy"].hint


def test_thermal_pressure_is_told_in_the_place_of_throttling(monkeypatch):
    monkeypatch.setattr(doctors, "read_state", lambda: State(thermal_pressure="Nominal"))

    assert found()["throttling"].detail == "thermal pressure: Nominal"


def test_it_is_readable_on_a_narrow_screen():
    text = as_text(doctor(), 80)

    assert all(len(line) <= 80 for line in text.splitlines())
    assert all(line.startswith(("yes  ", "no   ", "     ")) for line in text.splitlines())
