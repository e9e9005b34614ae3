"""Energy of a whole laptop on battery, from Linux' power_supply class, in joules.

Method: `power_now` (microwatts), else `current_now` times `voltage_now` (microamperes, microvolts), read twice a second
and integrated by the trapezoidal rule; else the fall of `energy_now` (microwatt-hours), or of `charge_now`
(microampere-hours) times the mean voltage. Drivers disagree about the sign of a discharging current, so it is dropped.
Every battery of the machine must be discharging, or idle, at the beginning and at the end, with no charger connected;
a mouse's battery does not count. The gauge renews its value every 1 to 30 seconds only, so what counts are changes:
below 20 in a window there is no figure. `energy_now` moves in steps of some 10 to 100 mWh, which bounds its precision.
Source: Linux Documentation/ABI/testing/sysfs-class-power; powerstat(8) for why windows last minutes.
Not yet run on a laptop's battery: tested on trees made by hand.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Literal

from edgeml_runtime.meters import About, Reading, absent
from edgeml_runtime.meters.sampling import Sampler, coverage, integral
from edgeml_runtime.meters.sysfs import number, text
from edgeml_runtime.types import Absent

POWER_SUPPLY = Path("/sys/class/power_supply")
PERIOD_S = 0.5
MINIMUM_UPDATES = 20
Route = Literal["power", "energy", "charge"]
_JOULES_PER_UWH = 3600 / 1e6


def open_meter() -> Battery:
    """The batteries of this machine."""
    return Battery()


def on_battery(root: Path = POWER_SUPPLY) -> bool | None:
    """Whether the machine runs from its battery alone; None for a machine without one."""
    states = {text(one / "status") for one in _batteries(root)}
    chargers = [one for one in _supplies(root, "Mains", "USB") if number(one / "online")]
    return "Discharging" in states and "Charging" not in states and not chargers if states else None


class Battery:
    """The batteries below `root`."""

    def __init__(self, root: Path = POWER_SUPPLY, *, period_s: float = PERIOD_S) -> None:
        self._root = root
        self._used: list[Path] = []
        self._route: Route = "power"
        self._volt = 0.0
        self._sampler = Sampler(self._read, period_s=period_s)

    def available(self) -> Absent | None:
        """Why the batteries tell no power, or None when they do."""
        running = on_battery(self._root)
        if running is None:
            return absent(f"no energy sensor: no battery in {self._root}")
        return self._prepare() if running else _not_running()

    def about(self) -> About:
        """The whole machine, sampled or by its gauge."""
        return About(
            scope="whole machine from its battery, screen included",
            kind="sampled" if self._route == "power" else "counter",
            excludes="nothing inside the machine",
        )

    def start(self) -> None:
        """Begin to read."""
        self._prepare()
        self._volt = self._volts()
        self._sampler.start()

    def enough(self) -> bool:
        """Whether the gauge has renewed its value often enough."""
        return self._sampler.updates() >= MINIMUM_UPDATES

    def stop(self) -> Reading | Absent:
        """Joules since `start`."""
        begin, end = self._sampler.stop()
        updates, seconds = self._sampler.updates(), end - begin
        if not on_battery(self._root):
            return _not_running()
        if updates < MINIMUM_UPDATES:
            pace = f"every {seconds / updates:.1f} s" if updates else "not once"
            reason = f"the battery's gauge changed {pace} in {seconds:.0f} s, {MINIMUM_UPDATES} changes are needed"
            return absent(reason, hint="ask for longer windows, or use an outside meter")
        return self._reading(begin, end)

    def warnings(self) -> tuple[str, ...]:
        """How coarse the gauge is, where its steps were added up."""
        if self._route == "power" or not self._sampler.updates():
            return ()
        return (f"energy: the battery's gauge moves in steps of {self._step_j():.0f} J",)

    def _reading(self, begin: float, end: float) -> Reading | Absent:
        points = self._sampler.points
        if self._route == "power":
            joules = integral(points, begin, end)
            held = coverage(points, begin, end, period_s=self._sampler.period_s)
            return Reading(joules=joules, readings=len(points), coverage=held)
        joules = (points[0][1] - points[-1][1]) * self._scale()
        if joules <= 0:
            return absent("the battery's gauge did not fall", hint="measure on battery, or use an outside meter")
        return Reading(joules=joules, readings=self._sampler.updates(), uncertainty=self._step_j() / joules)

    def _step_j(self) -> float:
        values = [value for _, value in self._sampler.points]
        return min((abs(one - other) for one, other in pairwise(values) if one != other), default=0) * self._scale()

    def _scale(self) -> float:
        """Joules of one unit of the gauge."""
        if self._route == "energy":
            return _JOULES_PER_UWH
        return _JOULES_PER_UWH * (self._volt + self._volts()) / 2

    def _prepare(self) -> Absent | None:
        self._used = [one for one in _batteries(self._root) if text(one / "status") == "Discharging"]
        for route in ("power", "energy", "charge"):
            self._route = route
            if self._read():  # some firmware has the file, and a zero in it
                return None
        return absent("the battery tells neither power nor energy", hint="use an outside meter: --energy-csv")

    def _read(self) -> float | None:
        values = [_value(one, self._route) for one in self._used]
        found = [value for value in values if value is not None]
        return sum(found) if len(found) == len(values) else None

    def _volts(self) -> float:
        volts = [value for one in self._used if (value := number(one / "voltage_now"))]
        return sum(volts) / len(volts) / 1e6 if volts else 0.0


def _not_running() -> Absent:
    return absent("the machine is not running from its battery", hint="unplug it, and set the screen as in use")


def _batteries(root: Path) -> list[Path]:
    return [one for one in _supplies(root, "Battery") if text(one / "scope") != "Device"]


def _supplies(root: Path, *types: str) -> list[Path]:
    return [one for one in sorted(root.glob("*")) if text(one / "type") in types]


def _value(battery: Path, route: Route) -> float | None:
    """Watts, or the gauge's own number."""
    if route == "energy":
        return number(battery / "energy_now")
    volt = number(battery / "voltage_now")
    if route == "charge":
        return number(battery / "charge_now") if volt else None
    if power_uw := number(battery / "power_now"):
        return abs(power_uw) / 1e6
    current_ua = number(battery / "current_now")
    return abs(current_ua) * volt / 1e12 if current_ua and volt else None
