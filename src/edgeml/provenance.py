"""How a figure was had, and what may be said of it: nothing that an emulator distorts is passed on as measured."""

from __future__ import annotations

from msgspec.structs import replace

from edgeml.metrics import METRICS
from edgeml_runtime.types import Absent, How, Outcome, Samples

# What says how fast, large or hungry a process was; counts of tokens or texts are the same under an emulator.
_DISTORTED = ("ms", "MiB", "J", "W")
_FAMILIES = ("latency", "memory", "energy")


def how_of(outcome: Outcome) -> How:
    """`measured`, or `emulated` where the programs of the machine are run by another's."""
    return "emulated" if outcome.environment.emulator else "measured"


def undistorted(outcome: Outcome) -> Outcome:
    """The outcome as it is, or, had under an emulator, without times, memory and energy, which are then absent."""
    emulator = outcome.environment.emulator
    if emulator is None:
        return outcome
    reason = f"its programs ran under {emulator}, whose times, memory and energy are not the device's"
    hint = "measure on the device: edgeml bench --host user@address"
    absent = [Absent(metric=family, reason=reason, hint=hint) for family in _FAMILIES]
    other = [one for one in outcome.absent if not one.metric.startswith(_FAMILIES)]
    kept = tuple(sample for sample in outcome.samples if not _is_distorted(sample))
    return replace(outcome, samples=kept, absent=(*absent, *other), before=None, after=None, energy=None)


def _is_distorted(sample: Samples) -> bool:
    is_cost = any(one.name == sample.metric and one.cost for one in METRICS)
    return is_cost and (sample.unit.startswith(_DISTORTED) or "/s" in sample.unit)
