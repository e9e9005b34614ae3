"""Power of the Raspberry Pi 5's rails, by `vcgencmd pmic_read_adc`, in joules.

Method: volts times amperes of each rail that has both, paired by name, added up as they are, four times a second and
integrated by the trapezoidal rule. `EXT5V` and `BATT` have volts only. The sum leaves out what does not pass the power
chip (USB, PCIe, HATs, a fan) and the chip's own loss, so it is lower than power at the plug. One published fit, of one
board with one USB-C meter, is P(plug) = 1.1451 * P(rails) + 0.5879 W (github.com/jfikar/RPi5-power); it is not applied
here. Compare figures of one board with each other only: 10 % is what to expect of the absolute value.
A reading starts a process and asks the firmware, so it costs power itself; hence no more than four a second. Bursts
leave an error of 2.5 % over thirty seconds at that rate, so a window is no shorter.
Not yet run on a Raspberry Pi: tested on answers in its format.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence

from edgeml_runtime.meters import About, Reading, absent
from edgeml_runtime.meters.sampling import Sampler
from edgeml_runtime.types import Absent

PERIOD_S = 0.25
MINIMUM_READINGS = 120
_TIMEOUT_S = 2.0
_LINE = re.compile(r"^\s*(\S+)_([AV])\s+(?:current|volt)\(\d+\)=(\d+(?:\.\d+)?)[AV]\s*$", re.MULTILINE)


def open_meter() -> Pmic:
    """The rails of this board."""
    return Pmic()


def watts_of(text: str) -> dict[str, float]:
    """The power of each rail with a current and a voltage, by its name; what has only one of them has no power."""
    found: dict[str, dict[str, float]] = {}
    for name, unit, value in _LINE.findall(text):
        found.setdefault(name, {})[unit] = float(value)
    return {name: parts["A"] * parts["V"] for name, parts in found.items() if len(parts) == 2}


class Pmic:
    """The rails that `command` tells of; it gets `pmic_read_adc` as its last word."""

    def __init__(self, command: Sequence[str] = ("vcgencmd",), *, period_s: float = PERIOD_S) -> None:
        self._command = [*command, "pmic_read_adc"]
        self._rails: frozenset[str] = frozenset()
        self._sampler = Sampler(self._watts, period_s=period_s)

    def available(self) -> Absent | None:
        """Why the rails cannot be read, or None when they can."""
        if shutil.which(self._command[0]) is None:
            return absent(f"no energy sensor: {self._command[0]} is missing")
        done = self._ask()
        if done is None:
            return absent("vcgencmd gives no answer", hint="edgeml doctor")
        self._rails = frozenset(watts_of(done.stdout))
        if self._rails:
            return None
        said = (done.stderr or done.stdout).strip().splitlines()
        if done.returncode:
            hint = "sudo usermod --append --groups video $USER, and log in again"
            return absent(f"vcgencmd cannot read the rails: {said[0] if said else 'it says nothing'}", hint=hint)
        return absent("no energy sensor: this board's power chip tells no currents; a Raspberry Pi 5's does")

    def about(self) -> About:
        """The rails, by sampling."""
        return About(
            scope=f"sum of {len(self._rails)} rails of the power chip (PMIC)",
            kind="sampled",
            excludes="USB, PCIe, HATs, fan, and conversion loss; lower than power at the plug",
            uncertainty=0.1,
        )

    def start(self) -> None:
        """Begin to read."""
        self._sampler.start()

    def enough(self) -> bool:
        """Whether there are thirty seconds of readings."""
        return len(self._sampler.points) >= MINIMUM_READINGS

    def stop(self) -> Reading | Absent:
        """Joules since `start`."""
        return self._sampler.reading(MINIMUM_READINGS, "vcgencmd")

    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()

    def _watts(self) -> float | None:
        done = self._ask()
        rails = watts_of(done.stdout) if done else {}
        # An answer that lacks a rail would count as less power.
        return sum(rails.values()) if rails.keys() == self._rails else None

    def _ask(self) -> subprocess.CompletedProcess[str] | None:
        try:
            return subprocess.run(self._command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
