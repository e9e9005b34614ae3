"""Runs on the device, not here: its own facts as one line of JSON. Needs Python 3.7 and nothing besides.

The keys are those of `Probe`, but that `throttled` is as the firmware says it. What a system does not tell is null.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import struct
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

_PATIENCE_S = 20
# sysctl's words on an Apple chip, and what Linux calls the same.
_APPLE_FEATURES = (
    ("FEAT_DotProd", "asimddp"),
    ("FEAT_FP16", "asimdhp"),
    ("FEAT_I8MM", "i8mm"),
    ("FEAT_BF16", "bf16"),
    ("FEAT_SME", "sme"),
)


def facts() -> dict[str, object]:
    """What this machine says of itself."""
    own = _of_mac() if platform.system() == "Darwin" else _of_linux()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return {
        "machine": platform.machine(),
        "userland_bits": struct.calcsize("P") * 8,
        "system": f"{platform.system()} {platform.release()}",
        "pythons": pythons(os.environ.get("PATH", os.defpath)),
        "home": str(Path.home()),
        "disk_free_bytes": _free(cache),
        "page_bytes": os.sysconf("SC_PAGE_SIZE"),
        "libc": libc(),
        "unix_time_s": time.time(),
        **own,
    }


def pythons(path: str) -> list[str]:
    """The versions of those programs named python3, python3.11, ... on a path that do run, the newest last."""
    found = {f"{sys.version_info[0]}.{sys.version_info[1]}"}
    for folder in path.split(os.pathsep):
        for program in Path(folder).glob("python3*"):
            if re.fullmatch(r"python3(\.\d+)?", program.name):
                version = re.match(r"Python (3\.\d+)", _said(str(program), "--version") or "")
                if version:
                    found.add(version.group(1))
    return sorted(found, key=lambda text: int(text.partition(".")[2]))


def libc() -> str | None:
    """The C library and its version, such as `glibc 2.36`."""
    try:
        found = os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, OSError, ValueError):
        found = None
    return found or ("musl" if "musl" in str(sysconfig.get_config_var("HOST_GNU_TYPE")) else None)


def emulator() -> str | None:
    """What runs this program's instructions, where that is QEMU's user mode: as `edgeml_runtime.qemu` finds it."""
    own, real = _machine_of("/proc/self/exe"), _machine_of("/proc/thread-self/exe")
    if own is None or real is None or own == real:
        return None
    return Path(os.readlink("/proc/thread-self/exe")).name  # noqa: PTH115 - Path.readlink is of Python 3.9


def _of_linux() -> dict[str, object]:
    cpu, memory = _lines("/proc/cpuinfo"), _lines("/proc/meminfo")
    features = cpu.get("Features") or cpu.get("flags") or ""
    return {
        "model": _text("/proc/device-tree/model") or _text("/sys/class/dmi/id/product_name"),
        "release": _lines("/etc/os-release", "=").get("PRETTY_NAME", "").strip("\"'") or None,
        "cpu_part": cpu.get("CPU part"),
        "cpu_features": features.split(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": _kib(memory.get("MemTotal")),
        "memory_available_bytes": _kib(memory.get("MemAvailable")),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "throttled": _throttled(),
        "emulator": emulator(),
    }


def _of_mac() -> dict[str, object]:
    told = dict(line.split(": ", 1) for line in (_said("sysctl", "-a") or "").splitlines() if ": " in line)
    size = told.get("hw.memsize")
    translated = told.get("sysctl.proc_translated") == "1"
    return {
        "model": told.get("machdep.cpu.brand_string") or told.get("hw.model"),
        "release": "macOS " + platform.mac_ver()[0],
        "cpu_features": [ours for theirs, ours in _APPLE_FEATURES if told.get("hw.optional.arm." + theirs) == "1"],
        "cores": os.cpu_count(),
        "memory_bytes": int(size) if size else None,
        "emulator": "Rosetta" if translated else None,
    }


def _throttled() -> str | None:
    """The Raspberry Pi's bits, from the kernel or by the firmware's own program, as they say it."""
    for pattern in ("soc*/*firmware/get_throttled", "*firmware/get_throttled"):
        for path in Path("/sys/devices/platform").glob(pattern):
            return _text(path)
    return _said("vcgencmd", "get_throttled")


def _machine_of(program: str) -> bytes | None:
    """The machine that an ELF file is for."""
    try:
        with Path(program).open("rb") as file:
            header = file.read(20)
    except OSError:
        return None
    return header[18:] if header.startswith(b"\x7fELF") else None


def _said(*command: str) -> str | None:
    """What a program prints, where it is there and succeeds."""
    try:
        done = subprocess.run(
            command,
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return None if done.returncode else done.stdout.decode(errors="replace").strip()


def _text(path: str | Path) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _lines(path: str, joint: str = ":") -> dict[str, str]:
    """Keys and values; of a key that stands twice (a processor's), the first."""
    found: dict[str, str] = {}
    for line in (_text(path) or "").splitlines():
        key, _, value = line.partition(joint)
        found.setdefault(key.strip(), value.strip())
    return found


def _kib(text: str | None) -> int | None:
    return int(text.split()[0]) * 1024 if text else None


def _free(folder: Path) -> int:
    while not folder.is_dir():
        folder = folder.parent
    return shutil.disk_usage(folder).free


if __name__ == "__main__":
    sys.stdout.write(json.dumps(facts()) + "\n")
