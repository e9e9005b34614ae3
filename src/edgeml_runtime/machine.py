"""What this machine is: facts for an outcome's provenance, each absent where the system does not tell."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeml_runtime.meters.sysfs import text
from edgeml_runtime.types import Environment

_LIBRARIES = ("onnxruntime", "llama-cpp-python", "tokenizers", "numpy", "pillow")
# Instruction sets that decide how fast, and with which rounding, integer kernels run.
_FEATURES = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def environment(threads: int) -> Environment:
    """Facts of this machine and the versions of the libraries that run models."""
    return Environment(
        machine=platform.machine(),
        system=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        threads=threads,
        cores=cores(),
        libraries={name: found for name in _LIBRARIES if (found := _version(name))},
        cpu=_cpuinfo("model name") or text(Path("/proc/device-tree/model")) or platform.processor() or None,
        cpu_features=cpu_features(),
        memory_bytes=_memory_bytes(),
        governor=text(Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")),
        device=text(Path("/proc/device-tree/model")),
    )


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
    if "SC_PHYS_PAGES" not in os.sysconf_names:
        return None
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
