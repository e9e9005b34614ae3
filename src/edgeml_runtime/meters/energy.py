"""How energy is measured: an idle baseline, windows of whole inferences, the idle baseline again.

Method, after MLPerf Power: what counts is the gross energy of a window over the units of work done in it, idle power
included; idle power is measured beside it and never subtracted silently. Each kind of work has its own windows, in
turn, so that a drift of the machine meets all alike. A window lasts as long as was asked for, and on until its meter
has enough, at most five minutes. Source: mlcommons/inference_policies, power_measurement.adoc.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from edgeml_runtime.meters import Meter, absent, choose
from edgeml_runtime.meters.estimate import estimated
from edgeml_runtime.meters.state import marks, read_state
from edgeml_runtime.tasks import Tick, Work
from edgeml_runtime.types import Absent, Energy, EnergyPlan, Record, Samples, Window

LONGEST_S = 300.0
LEAST_COVERAGE = 0.8  # of a window's time, by readings that came when they should
MOST_IDLE_DRIFT = 0.1  # idle power that differs more before and after says that something else ran
_REST_S = 0.2
_METRICS = {"steady": ("energy", "J"), "prefill": ("energy_prefill", "J/token"), "decode": ("energy_decode", "J/token")}
Kind = Literal["idle", "steady", "prefill", "decode"]


class Found(Record, frozen=True, kw_only=True):
    """What came of a plan: figures, or why there are none, and the windows that they were taken in."""

    samples: tuple[Samples, ...] = ()
    absent: tuple[Absent, ...] = ()
    energy: Energy | None = None
    warnings: tuple[str, ...] = ()


def carry_out(plan: EnergyPlan, work: Callable[[], Work], tick: Tick) -> Found:
    """Measure what the plan asks for; without a sensor the reason, at once."""
    chosen = choose(plan)
    if isinstance(chosen, Absent):
        return Found(absent=(chosen,))
    name, meter = chosen
    if name == "estimate":  # only time is needed
        plan = msgspec.structs.replace(plan, settle_s=0.0, idle_s=0.0)
    energy = measure(chosen, plan, work(), tick)
    if isinstance(energy, Absent):
        return Found(absent=(energy,))
    if name == "external":
        waiting = absent("the log of the outside meter is not yet laid over the windows", hint="--energy-csv FILE")
        return Found(absent=(waiting,), energy=energy)
    if plan.busy_w and name == "estimate":
        guess = estimated(energy, plan.busy_w)
        return Found(absent=(guess,)) if isinstance(guess, Absent) else Found(samples=(guess,), energy=energy)
    return Found(samples=tuple(figures(energy)), energy=energy, warnings=meter.warnings())


def measure(named: tuple[str, Meter], plan: EnergyPlan, work: Work, tick: Tick) -> Energy | Absent:
    """Every window of the plan, read by a meter with its name; Absent as soon as one window does not count."""
    if not work:
        return absent("this task names no work that can be repeated", hint="bench another task")
    name, meter = named
    steps: list[tuple[Kind, Callable[[], int]]] = [("idle", _rest)]
    steps += [(kind, do) for _ in range(plan.windows) for kind, do in work.items()]
    steps.append(("idle", _rest))
    found: list[Window] = []
    shares: list[tuple[float | None, float | None]] = []
    time.sleep(plan.settle_s)
    before = read_state()
    for index, (kind, do) in enumerate(steps):
        tick("energy", index, len(steps))
        window = _window(meter, kind, do, plan.idle_s if kind == "idle" else plan.window_s)
        if isinstance(window, Absent):
            return window
        found.append(window[0])
        shares.append(window[1:])
    return _energy(name, meter, found, shares, marks(before, read_state()))


def figures(energy: Energy) -> list[Samples]:
    """Joules a unit of work, one value a window, gross and above idle, and the idle power in watts."""
    rests = [window for window in energy.windows if window.kind == "idle" and window.joules is not None]
    idle_w = [window.joules / window.duration_s for window in rests if window.joules is not None and window.duration_s]
    doubts = (*energy.marks, *_drifted(idle_w))
    samples = []
    for kind, (metric, unit) in _METRICS.items():
        windows = [window for window in energy.windows if window.kind == kind]
        gross = [window.joules / window.units for window in windows if window.joules is not None]
        samples.append(_sample(energy, metric, unit, gross, doubts))
        if kind == "steady" and idle_w:
            rest_w = sum(idle_w) / len(idle_w)
            net = [one - rest_w * window.duration_s / window.units for one, window in zip(gross, windows, strict=True)]
            samples.append(_sample(energy, "energy_net", unit, net, doubts))
    samples.append(_sample(energy, "power_idle", "W", idle_w, doubts))
    return [sample for sample in samples if sample.values]


def _window(
    meter: Meter, kind: Kind, do: Callable[[], int], seconds: float
) -> tuple[Window, float | None, float | None] | Absent:
    """A window, and how much of it its meter covered, and how certain it is."""
    started_s, begin = time.time(), time.perf_counter()
    meter.start()
    try:
        units = do()
        while (passed := time.perf_counter() - begin) < seconds or (passed < LONGEST_S and not meter.enough()):
            units += do()
        duration_s = time.perf_counter() - begin
    finally:
        found = meter.stop()
    if isinstance(found, Absent):
        return found
    window = Window(
        kind=kind,
        started_s=started_s,
        duration_s=duration_s,
        units=units,
        joules=found.joules,
        readings=found.readings,
    )
    return window, found.coverage, found.uncertainty


def _rest() -> int:
    time.sleep(_REST_S)
    return 0


def _energy(
    name: str,
    meter: Meter,
    windows: list[Window],
    shares: list[tuple[float | None, float | None]],
    doubts: tuple[str, ...],
) -> Energy:
    about = meter.about()
    covered = [coverage for coverage, _ in shares if coverage is not None]
    certain = [uncertainty for _, uncertainty in shares if uncertainty is not None]
    seconds, readings = sum(one.duration_s for one in windows), sum(one.readings for one in windows)
    return Energy(
        meter=name,
        scope=about.scope,
        kind=about.kind,
        excludes=about.excludes,
        windows=tuple(windows),
        unit_of_work="answer" if any(one.kind == "decode" for one in windows) else "inference",
        sampling_hz=readings / seconds if about.kind == "sampled" and readings and seconds else None,
        coverage=min(covered, default=None),
        uncertainty=max(certain, default=about.uncertainty),
        marks=(*doubts, *_uncovered(min(covered, default=1.0))),
    )


def _uncovered(share: float) -> tuple[str, ...]:
    return () if share >= LEAST_COVERAGE else (f"the meter's readings cover only {share:.0%} of a window",)


def _drifted(idle_w: list[float]) -> tuple[str, ...]:
    if len(idle_w) < 2 or idle_w[0] <= 0 or abs(idle_w[-1] / idle_w[0] - 1) <= MOST_IDLE_DRIFT:
        return ()
    change = idle_w[-1] / idle_w[0] - 1
    return (f"idle power went from {idle_w[0]:.3g} to {idle_w[-1]:.3g} W ({change:+.0%}) over the run",)


def _sample(energy: Energy, metric: str, unit: str, values: list[float], doubts: tuple[str, ...]) -> Samples:
    what = {
        "energy": f"gross, idle included, per {energy.unit_of_work}",
        "energy_net": f"above the idle power before and after, per {energy.unit_of_work}",
        "energy_prefill": "gross, per token read",
        "energy_decode": "gross, per token written after a single one",
        "power_idle": "before and after the windows of work",
    }
    return Samples(
        metric=metric,
        unit=unit,
        values=tuple(values),
        statistics=("median",) if metric == "power_idle" else ("median", "mad"),
        unit_of_sample="window",
        method=f"{energy.meter}: {energy.scope} ({energy.kind}); {what[metric]}; excludes {energy.excludes}",
        marks=doubts,
    )
