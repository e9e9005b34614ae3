"""What this machine is: facts for an outcome's provenance, each absent where the system does not tell."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeml_runtime import macos, qemu, windows
from edgeml_runtime.chip import Chip
from edgeml_runtime.clusters import core_kinds
from edgeml_runtime.meters.sysfs import text
from edgeml_runtime.types import Environment

_LIBRARIES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "pillow")
# Instruction sets that decide how fast, and with which rounding, integer kernels run.
_FEATURES = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def environment(threads: int, *, accelerator: str | None = None, system: str = sys.platform) -> Environment:
    """Facts of this machine and the versions of the libraries that run models; `accelerator` computes with the CPU."""
    here = chip(system)
    return Environment(
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        threads=threads,
        cores=cores(),
        libraries={name: found for name in _LIBRARIES if (found := _version(name))},
        cpu=here.cpu or platform.processor() or None,
        cpu_features=here.features,
        memory_bytes=here.memory_bytes,
        governor=None if here.emulator else text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        device=here.device,
        emulator=here.emulator,
        performance_cores=here.performance_cores,
        efficiency_cores=here.efficiency_cores,
        accelerator=accelerator,
    )


def chip(system: str = sys.platform) -> Chip:
    """The processor and its memory, as this system tells of them."""
    if system == "darwin":
        return macos.chip()
    if system == "win32":
        return Chip(memory_bytes=windows.memory_bytes())
    model, emulator = text(Path("/proc/device-tree/model")), qemu.emulator()
    asked = hasattr(os, "sched_getaffinity") and not emulator  # else the machine beneath would answer
    kinds = core_kinds(os.sched_getaffinity(0)) if asked else None
    return Chip(
        cpu=_cpuinfo("model name") or model,
        features=cpu_features(),
        memory_bytes=None if emulator else _memory_bytes(),  # else that of the machine beneath
        performance_cores=kinds[0] if kinds else None,
        efficiency_cores=kinds[1] if kinds else None,
        device=model,
        emulator=emulator,
    )


def default_threads(system: str = sys.platform) -> int:
    """Threads that suit inference: one for each fast core where there are frugal ones too, else every processor.

    The libraries share out a layer and wait for its slowest part. Source: llama.cpp's cpu_get_num_math and
    cpu_get_num_physical_cores (common.cpp), which count fast cores alone too.
    """
    return min(chip(system).performance_cores or cores(), cores())


def cores() -> int:
    """Processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_features() -> tuple[str, ...]:
    """Those of the processor's instruction sets that matter to integer kernels; empty where unknown."""
    flags = (_cpuinfo("flags") or _cpuinfo("Features") or "").split()
    return tuple(name for name in _FEATURES if name in flags)


def _cpuinfo(key: str) -> str | None:
    for line in (text(Path("/proc/cpuinfo")) or "").splitlines():
        name, _, value = line.partition(":")
        if name.strip() == key:
            return value.strip()
    return None


def _memory_bytes() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
