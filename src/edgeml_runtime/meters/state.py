"""What the machine is like around a measurement: heat, clock rate, throttling, supply, load, paging.

Each figure is absent where the system does not tell it. The kernel's clock rate is that of its fastest processor at
the moment of reading; on a Raspberry Pi the firmware is asked instead, since the kernel goes on telling the rate that
it wished for while the firmware throttles. macOS tells thermal pressure, supply, low power mode and paging, and
neither temperature nor clock rate; Windows next to nothing.
Source: Linux Documentation/admin-guide/pm/cpufreq.rst, thermal/sysfs-api.rst; proc(5) for vmstat; getrusage(2);
the bits of `get_throttled`: raspberrypi.com/documentation/computers/os.html. Of the firmware nothing has yet been read
on a board: tested on trees and answers made by hand.
"""

from __future__ import annotations

import os
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from msgspec.structs import replace

from edgeml_runtime import macos
from edgeml_runtime.commands import said
from edgeml_runtime.meters.battery import on_battery
from edgeml_runtime.meters.sysfs import number, text
from edgeml_runtime.types import State

if find_spec("resource"):  # not on Windows
    import resource

_NOW = ("under_voltage", "frequency_capped", "throttled", "soft_temperature_limit")
_BITS = {**dict(enumerate(_NOW)), **{16 + bit: f"had_{name}" for bit, name in enumerate(_NOW)}}
_PLAUSIBLE_C = (-40.0, 150.0)  # zones without a sensor behind them tell absurd values
# A few pages of a library that was not yet needed are no sign; 256 pages are a megabyte.
MOST_SWAPPED_PAGES = 256
MOST_MAJOR_FAULTS = 10
_CALM = (None, "Nominal")


def read_state(root: Path = Path("/"), *, vcgencmd: str = "vcgencmd", system: str = sys.platform) -> State:
    """The machine now; `root` is where `sys` and `proc` are."""
    told = macos.state() if system == "darwin" else _linux(root, vcgencmd)
    return replace(
        told,
        load_average=os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        major_faults=resource.getrusage(resource.RUSAGE_SELF).ru_majflt if find_spec("resource") else None,
    )


def _linux(root: Path, vcgencmd: str) -> State:
    cpufreq = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    return State(
        temperature_c=_temperature_c(root),
        frequency_mhz=_firmware_mhz(vcgencmd) or _kernel_mhz(cpufreq),
        governor=text(cpufreq[0] / "scaling_governor") if cpufreq else None,
        on_battery=on_battery(root / "sys/class/power_supply"),
        swapped_pages=_swapped_pages(root / "proc/vmstat"),
        throttled=_throttled(root, vcgencmd),
    )


def marks(before: State, after: State) -> tuple[str, ...]:
    """Why what was measured between two states should not be trusted; empty where nothing speaks against it."""
    found = []
    if bits := _new_bits(before, after):
        found.append(f"the board throttled: {', '.join(bits)}")
    if _grown(before.swapped_pages, after.swapped_pages) > MOST_SWAPPED_PAGES:
        found.append(f"the machine swapped {_grown(before.swapped_pages, after.swapped_pages)} pages")
    if _grown(before.major_faults, after.major_faults) > MOST_MAJOR_FAULTS:
        faults = _grown(before.major_faults, after.major_faults)
        found.append(f"the model was read from disk {faults} times while it ran: it does not fit into memory")
    if before.on_battery != after.on_battery:
        found.append("the supply changed between battery and mains")
    if hot := [word for word in (before.thermal_pressure, after.thermal_pressure) if word not in _CALM]:
        found.append(f"thermal pressure was {hot[-1]}: the system slows the processor down")
    if before.low_power_mode or after.low_power_mode:
        found.append("the machine was in low power mode")
    return tuple(found)


def throttle_bits(said: str) -> tuple[str, ...]:
    """The names of the bits that are set, from `throttled=0x50005` or the kernel's `50005`; empty for none."""
    value = int(said.strip().rpartition("=")[2], 16)
    return tuple(name for bit, name in _BITS.items() if value >> bit & 1)


def _new_bits(before: State, after: State) -> list[str]:
    """What throttles now, or has since `before`: a sticky bit that was set already says nothing about this run."""
    earlier, later = before.throttled or (), after.throttled or ()
    return [name for name in _BITS.values() if name in later and (name in _NOW or name not in earlier)] or [
        name for name in earlier if name in _NOW
    ]


def _grown(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else after - before


def _temperature_c(root: Path) -> float | None:
    values = [number(zone) for zone in root.glob("sys/class/thermal/thermal_zone*/temp")]
    found = [value / 1000 for value in values if value is not None]
    return max((value for value in found if _PLAUSIBLE_C[0] < value < _PLAUSIBLE_C[1]), default=None)


def _kernel_mhz(cpufreq: list[Path]) -> float | None:
    rates = [number(folder / "scaling_cur_freq") for folder in cpufreq]
    return max((rate / 1000 for rate in rates if rate), default=None)


def _firmware_mhz(vcgencmd: str) -> float | None:
    found = re.search(r"=(\d+)", said(vcgencmd, "measure_clock", "arm") or "")
    return int(found[1]) / 1e6 if found and int(found[1]) else None


def _throttled(root: Path, vcgencmd: str) -> tuple[str, ...] | None:
    files = [*root.glob("sys/devices/platform/soc*/*firmware/get_throttled")]
    files += root.glob("sys/devices/platform/*firmware/get_throttled")
    bits = text(files[0]) if files else said(vcgencmd, "get_throttled")
    return throttle_bits(bits) if bits and re.search(r"(^|=)(0x)?[0-9a-fA-F]+$", bits) else None


def _swapped_pages(vmstat: Path) -> int | None:
    fields = dict(line.split() for line in (text(vmstat) or "").splitlines())
    return int(fields["pswpin"]) + int(fields["pswpout"]) if {"pswpin", "pswpout"} <= fields.keys() else None
