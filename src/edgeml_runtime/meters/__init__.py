"""What is measured beside the answers: time, memory, energy, heat. Here: which meters of energy there are.

One module a meter, each tried without rights that the user does not have. None has yet been run on the hardware that
it is for: all are tested on trees of files and on answers in their format, made by hand with the traps of real ones.
"""

from __future__ import annotations

import platform
from importlib import import_module
from typing import Literal, NamedTuple, Protocol, cast

from edgeml_runtime.errors import unknown
from edgeml_runtime.types import Absent, EnergyPlan, Record

NO_SENSOR = "measure on a machine with such a sensor, or lay the log of an outside meter over the run: --energy-csv"
X86 = ("x86_64", "AMD64", "i686")


class Place(NamedTuple):
    """Where a meter can be: an operating system, and the processors where not all; `otherwise` where it helps."""

    system: str
    machines: tuple[str, ...] | None = None


# The meters that `auto` tries, the best first: counters miss nothing; a sensor in the supply line sees the whole board;
# the battery sees everything, but slowly.
AUTO = {
    "rapl": Place("Linux", X86),
    "hwmon": Place("Linux"),
    "pmic": Place("Linux", ("aarch64",)),
    "apple": Place("Darwin"),
    "battery": Place("Linux"),
}
# Read nothing themselves: another meter's log is laid over the windows afterwards; watts that the user states.
UNREAD = ("external", "estimate")
NAMES = (*AUTO, *UNREAD)


class About(Record, frozen=True, kw_only=True):
    """What a meter's joules contain and leave out, as in `Energy`."""

    scope: str
    kind: Literal["counter", "sampled", "estimated"]
    excludes: str
    uncertainty: float | None = None


class Reading(Record, frozen=True, kw_only=True):
    """What a meter read between `start` and `stop`; `coverage` is the share of that time that readings stand for."""

    joules: float | None
    readings: int
    coverage: float | None = None
    uncertainty: float | None = None


class Meter(Protocol):
    """One module a meter, with `open_meter() -> Meter`."""

    def available(self) -> Absent | None:
        """Why this machine's energy cannot be read in this way, or None when it can. Takes no time."""

    def about(self) -> About:
        """What the joules contain; asked of an available meter."""

    def start(self) -> None:
        """Begin a window."""

    def enough(self) -> bool:
        """Whether the window is long enough for this meter."""

    def stop(self) -> Reading | Absent:
        """End the window: what was read, or why it does not count."""

    def warnings(self) -> tuple[str, ...]:
        """What a reader must know of this meter's setting."""


class Unread:
    """Reads nothing, so that only the windows' times are kept."""

    def __init__(self, name: str) -> None:
        self._name = name

    def available(self) -> Absent | None:
        """Nothing is missing."""
        return None

    def about(self) -> About:
        """What is known before anything is laid over the windows."""
        if self._name == "estimate":
            return About(scope="watts that you stated", kind="estimated", excludes="everything measured")
        return About(scope="what the outside meter measures", kind="sampled", excludes="what it does not see")

    def start(self) -> None:
        """Nothing."""

    def enough(self) -> bool:
        """Any window will do."""
        return True

    def stop(self) -> Reading:
        """No joules."""
        return Reading(joules=None, readings=0)

    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()


def meter_of(name: str) -> Meter:
    """A meter by its name; an unknown one is refused with the nearest known."""
    if name not in NAMES:
        raise unknown("energy meter", name, (*NAMES, "auto", "off"), plural="energy meters")
    if name in UNREAD:
        return Unread(name)
    return cast("Meter", import_module(f"edgeml_runtime.meters.{name}").open_meter())


def relevant() -> list[str]:
    """The meters that a machine like this can have at all, the best first."""
    system, machine = platform.system(), platform.machine()
    return [
        name
        for name, place in AUTO.items()
        if place.system == system and (place.machines is None or machine in place.machines)
    ]


def choose(plan: EnergyPlan) -> tuple[str, Meter] | Absent:
    """The meter that the plan asks for, with its name, or why there is none; found without waiting."""
    if plan.meter == "off":
        return absent("energy was not to be measured", hint="--energy auto")
    if plan.meter == "estimate" and plan.busy_w is None:
        return absent(
            "nothing is estimated without watts", hint="state the least and the most watts of the busy machine"
        )
    if plan.meter != "auto":
        meter = meter_of(plan.meter)
        return meter.available() or (plan.meter, meter)
    missing = {}
    for name in relevant():
        meter = meter_of(name)
        reason = meter.available()
        if reason is None:
            return name, meter
        missing[name] = reason
    # A sensor that is there and cannot be read says more than all those that are not there.
    blocked = [reason for reason in missing.values() if reason.hint != NO_SENSOR]
    return blocked[0] if blocked else absent(f"no energy sensor: {', '.join(missing) or 'none'} found nothing to read")


def absent(reason: str, *, hint: str = NO_SENSOR) -> Absent:
    """Why there is no energy."""
    return Absent(metric="energy", reason=reason, hint=hint)
