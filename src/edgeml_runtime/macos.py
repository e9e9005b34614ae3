"""What macOS tells of the machine and of this process: chip, cores, thermal pressure, supply, paging, footprint.

A thread cannot be pinned to a kind of core here: macOS takes a quality of service, and places threads itself.
Thermal pressure is the state of the notification com.apple.system.thermalpressurelevel, which powermetrics prints too
and which needs no rights; `pmset -g therm` says nothing of an Apple chip, and a name that nobody posts reads as 0,
Nominal. Low power mode is `lowpowermode` of `pmset -g`, or `powermode` 1 where a Mac has a high power mode as well.
Source: sysctl(3) with Apple's "Determining system capabilities" for the names below hw.; pmset(1); vm_stat(1);
libkern/OSThermalNotification.h for the name and its levels on macOS; sys/resource.h, struct rusage_info_v4, for
proc_pid_rusage. Not yet run on a Mac: tested on outputs written after these documents.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any

from edgeml_runtime.chip import Chip
from edgeml_runtime.commands import said
from edgeml_runtime.types import State

# Instruction sets by Linux' names, and what macOS calls them.
_FEATURES = {
    "asimd": "hw.optional.AdvSIMD",
    "asimddp": "hw.optional.arm.FEAT_DotProd",
    "i8mm": "hw.optional.arm.FEAT_I8MM",
}
_TRANSLATED = "sysctl.proc_translated"
_NAMES = (
    "machdep.cpu.brand_string",
    "hw.model",
    "hw.memsize",
    "hw.nperflevels",
    "hw.perflevel0.physicalcpu",
    "hw.perflevel1.physicalcpu",
    "hw.perflevel1.name",
    _TRANSLATED,
    *_FEATURES.values(),
)
PRESSURE = "com.apple.system.thermalpressurelevel"
_LEVELS = ("Nominal", "Moderate", "Heavy", "Trapping", "Sleeping")
_RUSAGE_INFO_V4 = 4
_RUSAGE_FIELDS = (
    "user_time",
    "system_time",
    "pkg_idle_wkups",
    "interrupt_wkups",
    "pageins",
    "wired_size",
    "resident_size",
    "phys_footprint",
    "proc_start_abstime",
    "proc_exit_abstime",
    "child_user_time",
    "child_system_time",
    "child_pkg_idle_wkups",
    "child_interrupt_wkups",
    "child_pageins",
    "child_elapsed_abstime",
    "diskio_bytesread",
    "diskio_byteswritten",
    "cpu_time_qos_default",
    "cpu_time_qos_maintenance",
    "cpu_time_qos_background",
    "cpu_time_qos_utility",
    "cpu_time_qos_legacy",
    "cpu_time_qos_user_initiated",
    "cpu_time_qos_user_interactive",
    "billed_system_time",
    "serviced_system_time",
    "logical_writes",
    "lifetime_max_phys_footprint",
    "instructions",
    "cycles",
    "billed_energy",
    "serviced_energy",
    "interval_max_phys_footprint",
    "runnable_time",
)


class RusageInfo(ctypes.Structure):
    """`struct rusage_info_v4`: what the kernel has counted of one process; sizes in bytes."""

    _fields_ = (("uuid", ctypes.c_uint8 * 16), *((name, ctypes.c_uint64) for name in _RUSAGE_FIELDS))


def chip() -> Chip:
    """The processor. Under Rosetta 2 its instruction sets are left out: the process cannot use them."""
    told = dict(re.findall(r"^([\w.]+): (.+)$", said("sysctl", *_NAMES) or "", re.MULTILINE))
    translated = told.get(_TRANSLATED) == "1"
    # The M5 Pro and Max have none that are frugal; a system too old to name the levels runs on no such chip.
    hybrid = _number(told, "hw.nperflevels") == 2 and told.get("hw.perflevel1.name", "Efficiency") == "Efficiency"
    return Chip(
        cpu=told.get("machdep.cpu.brand_string"),
        features=() if translated else tuple(name for name, ours in _FEATURES.items() if told.get(ours) == "1"),
        memory_bytes=_number(told, "hw.memsize"),
        performance_cores=_number(told, "hw.perflevel0.physicalcpu") if hybrid else None,
        efficiency_cores=_number(told, "hw.perflevel1.physicalcpu") if hybrid else None,
        device=told.get("hw.model"),
        emulator="Rosetta 2" if translated else None,
    )


def state() -> State:
    """Heat, supply and paging, as far as macOS tells them without rights; it tells no temperature and no clock rate."""
    return State(
        thermal_pressure=_pressure(said("notifyutil", "-g", PRESSURE) or ""),
        on_battery=_on_battery(said("pmset", "-g", "batt") or ""),
        low_power_mode=_low_power(said("pmset", "-g") or ""),
        swapped_pages=_swapped_pages(said("vm_stat") or ""),
    )


def peak_footprint_bytes(library: Any = None) -> int | None:
    """The most memory that this process ever had to itself, or None where the kernel does not tell.

    That is its dirty and compressed memory, and what it holds on the GPU; clean pages of a mapped file are not in it.
    `library` is C's, the process's own if left out.
    """
    own = library or ctypes.CDLL(None)
    if not hasattr(own, "proc_pid_rusage"):
        return None
    found = RusageInfo()
    if own.proc_pid_rusage(os.getpid(), _RUSAGE_INFO_V4, ctypes.byref(found)) != 0:
        return None
    return found.lifetime_max_phys_footprint or None


def _pressure(text: str) -> str | None:
    found = re.fullmatch(rf"{re.escape(PRESSURE)}\s+(\d+)", text)
    if not found:
        return None
    level = int(found[1])
    return _LEVELS[level] if level < len(_LEVELS) else f"level {level}"


def _on_battery(text: str) -> bool | None:
    """None for a Mac without a battery, which tells its supply too."""
    return "'Battery Power'" in text if "Battery-" in text else None


def _low_power(text: str) -> bool | None:
    modes = re.findall(r"^\s*(?:low)?powermode\s+(\d+)\s*$", text, re.MULTILINE)
    return "1" in modes if modes else None


def _swapped_pages(text: str) -> int | None:
    pages = re.findall(r'^"?Swap(?:ins|outs)"?:\s+(\d+)\.$', text, re.MULTILINE)
    return sum(map(int, pages)) if len(pages) == 2 else None


def _number(told: dict[str, str], name: str) -> int | None:
    found = told.get(name, "")
    return int(found) if found.isdecimal() else None
