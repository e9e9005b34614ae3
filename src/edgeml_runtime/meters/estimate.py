"""Energy from watts that the user states: no measurement, and named and labelled so that it is never taken for one.

Method: the time that a unit of work takes in a window, the median of the windows, times the least and the most watts
of the busy machine. No watts are known here for any device: what is not stated is absent.
"""

from __future__ import annotations

from statistics import median

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters import absent
from edgeml_runtime.types import Absent, Energy, Samples


def estimated(energy: Energy, busy_w: tuple[float, float]) -> Samples | Absent:
    """`energy_estimated`, the least and the most joules of a unit of work; raises EdgemlError for watts in disorder."""
    if not 0 < busy_w[0] <= busy_w[1]:
        raise EdgemlError(f"{busy_w[0]:g} to {busy_w[1]:g} W is no range", hint="state the least watts, then the most")
    steady = [window.duration_s / window.units for window in energy.windows if window.kind == "steady"]
    if not steady:
        return absent("this task has no whole answer to estimate", hint="bench another task")
    seconds = median(steady)
    watts = f"the stated {busy_w[0]:g} to {busy_w[1]:g} W"
    return Samples(
        metric="energy_estimated",
        unit="J",
        values=(busy_w[0] * seconds, busy_w[1] * seconds),
        statistics=("min", "max"),
        unit_of_sample="bound",
        method=f"not measured: {seconds:.4g} s per {energy.unit_of_work} times {watts}",
        how="estimated",
    )
