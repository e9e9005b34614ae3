"""Energy of an Apple chip, in joules: by `zeus-apple-silicon` without rights, else by `powermetrics` for root.

Method: processor, graphics and neural engine, added up. Without the first two there is no figure; nothing here runs on
the third. Memory's own energy is in none of them and is left out, since `powermetrics` does not tell it.
`zeus-apple-silicon` reads the chip's own counters (IOReport, 1 mJ). `powermetrics` prints one property list a report,
separated by NUL; the millijoules of its reports are added and divided by their `elapsed_ns`, since a report lasts
longer than was asked for, and this power is taken over the window. Thermal pressure that a report tells is passed on.
Apple calls the figures estimates, not meant for comparing one device with another. sudo is never called: what runs as
root could not be ended by who started it.
Source: zeus-apple-silicon's README; powermetrics(1); github.com/vladkens/macmon for the real length of reports.
Not yet run on a Mac: tested on reports in its format, and on an object that has the library's fields.
"""

from __future__ import annotations

import os
import plistlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from threading import Thread
from time import perf_counter
from typing import IO, Any, NamedTuple
from xml.parsers.expat import ExpatError

from edgeml_runtime.errors import why
from edgeml_runtime.meters import About, Reading, absent
from edgeml_runtime.types import Absent

MINIMUM_WINDOW_S = 1.0  # a counter of 1 mJ, and reports of a quarter of a second
_SAMPLERS = "cpu_power,gpu_power,ane_power,thermal"
POWERMETRICS = ("powermetrics", "--samplers", _SAMPLERS, "-f", "plist", "-i", "250", "-n", "0")
# What is added up, in millijoules; the last may be missing.
_ZEUS_FIELDS = ("cpu_total_mj", "gpu_mj", "ane_mj")
_PLIST_FIELDS = ("cpu_energy", "gpu_energy", "ane_energy")
_SCOPE = "processor, graphics and neural engine, as the chip estimates them"
_CALM = "Nominal"
_EXCLUDES = "memory, screen, storage, fan, and the power supply's loss"


class Report(NamedTuple):
    """What a property list tells of the span that it stands for."""

    elapsed_s: float
    joules: float
    pressure: str


def open_meter() -> Zeus | Powermetrics:
    """The way that needs no rights where its library is installed."""
    return Zeus() if find_spec("zeus_apple_silicon") or not _root() else Powermetrics()


class Zeus:
    """The chip's counters, by the module `zeus_apple_silicon`."""

    def __init__(self, module: str = "zeus_apple_silicon", *, system: str = sys.platform) -> None:
        self._module, self._system = module, system
        self._monitor: Any = None
        self._started = 0.0

    def available(self) -> Absent | None:
        """Why the counters cannot be read, or None when they can."""
        if self._system != "darwin":
            return absent("no energy sensor: this is no Mac")
        if find_spec(self._module) is None:
            hint = "pip install zeus-apple-silicon, or run as root: powermetrics is read then"
            return absent("zeus-apple-silicon is not installed", hint=hint)
        try:
            self._monitor = import_module(self._module).AppleEnergyMonitor()
        except (ImportError, RuntimeError, OSError) as error:
            return absent(
                f"zeus-apple-silicon does not work here: {why(error)}", hint="an Apple silicon Mac has counters"
            )
        return None

    def about(self) -> About:
        """The chip, by a counter."""
        return About(scope=_SCOPE, kind="counter", excludes=_EXCLUDES)

    def start(self) -> None:
        """Begin a window of the library's."""
        self._monitor.begin_window("edgeml")
        self._started = perf_counter()

    def enough(self) -> bool:
        """Whether a second has passed."""
        return perf_counter() - self._started >= MINIMUM_WINDOW_S

    def stop(self) -> Reading | Absent:
        """Joules since `start`."""
        found = self._monitor.end_window("edgeml")
        joules = _joules([getattr(found, name) for name in _ZEUS_FIELDS])
        if joules is None:
            hint = "run as root: powermetrics is read then"
            return absent("zeus-apple-silicon knows no counter of this chip's processor or graphics", hint=hint)
        return Reading(joules=joules, readings=2)

    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()


class Powermetrics:
    """The reports of `command`, which runs as long as a window."""

    def __init__(
        self, command: Sequence[str] = POWERMETRICS, *, system: str = sys.platform, root: bool | None = None
    ) -> None:
        self._command, self._system = list(command), system
        self._root = _root() if root is None else root
        self._child: subprocess.Popen[bytes] | None = None
        self._reader: Thread | None = None
        self._reports: list[Report] = []
        self._pressures: set[str] = set()
        self._started = 0.0

    def available(self) -> Absent | None:
        """Why no reports can be had, or None when they can."""
        if self._system != "darwin":
            return absent("no energy sensor: this is no Mac")
        if shutil.which(self._command[0]) is None:
            return absent(f"no energy sensor: {self._command[0]} is missing")
        if not self._root:
            return absent(
                "powermetrics is for root alone", hint="pip install zeus-apple-silicon, which needs no rights"
            )
        return None

    def about(self) -> About:
        """The chip, by its counters' reports."""
        return About(scope=_SCOPE, kind="sampled", excludes=_EXCLUDES)

    def start(self) -> None:
        """Start the command."""
        self._reports = []
        self._child = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self._child.stdout is not None
        self._reader = Thread(target=self._listen, args=(self._child.stdout,), daemon=True)
        self._reader.start()
        self._started = perf_counter()

    def enough(self) -> bool:
        """Whether four reports have come in a second or more."""
        return len(self._reports) >= 4 and perf_counter() - self._started >= MINIMUM_WINDOW_S

    def stop(self) -> Reading | Absent:
        """Joules since `start`: the mean power of the reports over the window."""
        window_s = perf_counter() - self._started
        assert self._child is not None
        assert self._reader is not None
        self._child.terminate()
        self._child.wait()
        self._reader.join()
        self._pressures |= {one.pressure for one in self._reports if one.pressure != _CALM}
        seconds = sum(one.elapsed_s for one in self._reports)
        if not seconds:
            return absent("powermetrics gave no report of the processor's energy", hint="edgeml doctor")
        joules = sum(one.joules for one in self._reports) / seconds * window_s
        return Reading(joules=joules, readings=len(self._reports), coverage=min(1.0, seconds / window_s))

    def warnings(self) -> tuple[str, ...]:
        """The thermal pressure above nominal that was told in any window."""
        if not self._pressures:
            return ()
        return (f"energy: thermal pressure was {', '.join(sorted(self._pressures))} while it was measured",)

    def _listen(self, stream: IO[bytes]) -> None:
        with stream:
            rest = b""
            while part := os.read(stream.fileno(), 65536):
                *whole, rest = (rest + part).split(b"\0")
                self._reports += [found for one in whole if (found := report(one))]
            self._reports += [found for one in [rest] if (found := report(one))]


def report(text: bytes) -> Report | None:
    """One property list; None for one that is cut short, or lacks the processor or the graphics."""
    try:
        found = plistlib.loads(text.strip())
    except (plistlib.InvalidFileException, ExpatError, ValueError):
        return None
    energies, elapsed_ns = found.get("processor", {}), found.get("elapsed_ns")
    joules = _joules([energies.get(name) for name in _PLIST_FIELDS])
    if joules is None or not elapsed_ns:
        return None
    return Report(elapsed_ns / 1e9, joules, found.get("thermal_pressure", _CALM))


def _joules(millijoules: Sequence[float | None]) -> float | None:
    processor, graphics, *others = millijoules
    if processor is None or graphics is None:
        return None
    return (processor + graphics + sum(one or 0 for one in others)) / 1000


def _root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
