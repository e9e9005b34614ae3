"""What can be said of a target that is not at hand: its answers, from an emulator, and its cost, by estimate.

Each of the two is a report of its own, so that nothing emulated or estimated stands in one table with what was
measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from statistics import fmean
from typing import NamedTuple

from msgspec.structs import replace

from edgeml.conditions import Conditions, job_of, kept
from edgeml.errors import EdgemlError
from edgeml.measurements import measurements
from edgeml.metrics import metric
from edgeml.parity import compare, parity_job, parity_verdicts
from edgeml.progress import Progress, within
from edgeml.stats import LEVEL
from edgeml.store import Store
from edgeml.targets import emulated, local, profile_of
from edgeml.targets.emulator import emulator
from edgeml.targets.estimated import Estimated, Workload, estimates
from edgeml.targets.instructions import count_instructions
from edgeml.targets.recognition import here
from edgeml.targets.types import Estimate
from edgeml.types import Dataset, Measurement, Report, Run, Variant, Verdict
from edgeml.verdicts.evidence import OF_BASELINE
from edgeml.verdicts.limits import Limit, is_cost, named
from edgeml.wheels import runtime_of
from edgeml_runtime.types import Absent, Samples

_HINT = "measure on the device: edgeml bench --host user@address"


class Trace(NamedTuple):
    """A variant whose raw outputs on the emulated target were compared with this machine's."""

    variant: Variant
    run: Run
    verdicts: list[Verdict]


def here_instead(conditions: Conditions) -> Conditions:
    """How this machine is measured in place of the target: only what is the same on both has a bound."""
    limits = tuple(one for one in conditions.limits if one.option == "max-size" or not _is_of_cost(one, conditions))
    return replace(conditions, profile=profile_of(here()), limits=limits)


def emulated_report(
    variants: Sequence[Variant], dataset: Dataset, conditions: Conditions, *, store: Store, progress: Progress
) -> Report:
    """Whether each variant computes the same in an emulator of the target; only absences where there is none.

    Raises EdgemlError where the runtime cannot run on the target's processor at all.
    """
    if not conditions.parity_rows:
        return Report()
    try:
        for format in dict.fromkeys(runtime_of(variant.manifest) for variant in variants):
            emulator(conditions.profile, format)
    except EdgemlError as error:  # nothing to emulate with, which is no failure: what else is known is still told
        hint = error.hint if conditions.profile.emulated_cpu else _HINT
        absent = Absent(metric="parity", reason=error.message, hint=hint, target=conditions.profile.name)
        return Report(absent=(absent,))
    traces = [_trace(variant, dataset, conditions, progress) for variant in variants]
    for one in traces:
        store.add_run(one.run)
    return Report(
        measurements=tuple(
            found
            for one in traces
            for found in measurements(one.run, size_bytes=one.variant.manifest.size_bytes)
            if found.metric.startswith(("parity.", "instructions"))
        ),
        verdicts=tuple(verdict for one in traces for verdict in one.verdicts),
        absent=tuple(replace(one, target=conditions.profile.name) for one in _unsaid(traces)),
    )


def estimated_report(
    runs: Sequence[tuple[Variant, Run]], dataset: Dataset, conditions: Conditions, *, baseline: Variant | Run | None
) -> Report:
    """What each variant would cost on the target; how long texts are is taken from the runs on this machine."""
    judged = [variant.name for variant, _ in runs if not (isinstance(baseline, Variant) and variant == baseline)]
    found = [(variant, _estimated(variant, run, conditions)) for variant, run in runs]
    limits = [named(one, conditions.task, labelled=True) for one in conditions.limits if _is_judged(one, conditions)]
    return Report(
        measurements=tuple(
            _measurement(variant, one, dataset, conditions) for variant, all in found for one in all.estimates
        ),
        verdicts=tuple(
            _undecided(variant, all, limit, conditions)
            for variant, all in found
            if variant.name in judged
            for limit in limits
        ),
        absent=tuple(
            replace(one, variant=variant.name, target=conditions.profile.name)
            for variant, all in found
            for one in all.absent
        ),
        fits=tuple(all.fit for _, all in found if all.fit),
    )


def _is_of_cost(limit: Limit, conditions: Conditions) -> bool:
    return not limit.is_drop or is_cost(named(limit, conditions.task, labelled=True).metric)


def _is_judged(limit: Limit, conditions: Conditions) -> bool:
    """Whether only a measurement on the target could decide it."""
    return limit.option != "max-size" and _is_of_cost(limit, conditions)


def _trace(variant: Variant, dataset: Dataset, conditions: Conditions, progress: Progress) -> Trace:
    job = parity_job(job_of(variant, dataset, conditions, reference=None), conditions.parity_rows)
    step = within(progress, f"emulate {conditions.profile.emulated_cpu}, {variant.name}")
    format, started = runtime_of(variant.manifest), datetime.now(UTC).isoformat(timespec="milliseconds")
    there = emulated.run(job, conditions.profile, format, progress=step)
    here = local.run(job, progress=within(progress, f"the same here, {variant.name}"))
    samples = compare(here, there, task=conditions.task, scheme=variant.manifest.scheme)
    counted = [count_instructions(job, conditions.profile, format, progress=step)] if conditions.instructions else []
    outcome = replace(
        there,
        samples=(*samples, *(one for one in counted if isinstance(one, Samples))),
        absent=tuple(one for one in counted if isinstance(one, Absent)),
        trace=(),
    )
    whole = kept(variant, dataset, conditions, job, outcome)
    run = replace(whole, started=started, how="emulated", gold=(), slices={})
    return Trace(variant, run, parity_verdicts(run, scheme=variant.manifest.scheme))


def _unsaid(traces: Sequence[Trace]) -> Iterable[Absent]:
    emulator = next((one.run.outcome.environment.emulator for one in traces), None) or "an emulator"
    for family in ("latency", "memory", "energy"):
        reason = f"what {emulator} needs of it says nothing of the device"
        yield Absent(metric=family, reason=reason, hint=_HINT)
    for one in traces:
        yield from (replace(absent, variant=one.variant.name) for absent in one.run.outcome.absent)


def _estimated(variant: Variant, run: Run, conditions: Conditions) -> Estimated:
    """The estimates for texts as long as those of the data, and answers as long as those that were given here."""
    read, written = _mean(run, "tokens"), _mean(run, "generated")
    usual = Workload(task=conditions.task)
    workload = replace(
        usual,
        input_tokens=read or usual.input_tokens,
        prompt_tokens=read or usual.prompt_tokens,
        output_tokens=written or usual.output_tokens,
        context_tokens=max(conditions.context_tokens, (read or 0) + (written or 0)),
        threads=conditions.threads if isinstance(conditions.threads, int) else None,
        gpu=conditions.gpu,
    )
    return estimates(variant, conditions.profile, workload)


def _mean(run: Run, metric: str) -> int | None:
    """The mean of a metric's samples, such as the tokens of a row, rounded up; None where the task has none."""
    values = [value for one in run.outcome.samples if one.metric == metric for value in one.values]
    return math.ceil(fmean(values)) if values else None


def _measurement(variant: Variant, one: Estimate, dataset: Dataset, conditions: Conditions) -> Measurement:
    return Measurement(
        variant=variant.name,
        target=conditions.profile.name,
        how="estimated",
        task=conditions.task,
        metric=one.metric,
        unit=one.unit,
        value=one.value,
        low=one.low,
        high=one.high,
        level=one.level,
        n=len(one.sources),
        statistic=one.statistic,
        provenance={
            "method": one.method,
            "sources": "; ".join(one.sources),
            "dataset": dataset.name,
            "asked": replace(conditions.profile, file=None).asked,  # its chip and memory size, which decide the figures
        },
    )


def _undecided(variant: Variant, all: Estimated, limit: Limit, conditions: Conditions) -> Verdict:
    """An estimate decides nothing: the verdict says what it is, and that it is one."""
    known, one = metric(limit.metric), next((one for one in all.estimates if one.metric == limit.metric), None)
    about = f"it is estimated at {one.value:.3g} [{one.low:.3g}, {one.high:.3g}] {one.unit}, " if one else ""
    return Verdict(
        variant=variant.name,
        target=conditions.profile.name,
        metric=limit.metric,
        statistic=limit.statistic or "",
        unit=OF_BASELINE if limit.relative else known.unit,
        verdict="cannot tell",
        bound=limit.amount,
        n=0,
        level=LEVEL,
        method="none",
        reason=f"{about}not measured; {_HINT}",
    )
