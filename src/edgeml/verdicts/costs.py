"""Verdicts on what a variant costs: latency and energy over processes, size and memory as facts."""

from __future__ import annotations

import math

from edgeml.stats import MINIMUM_PROCESSES, Interval, statistic_of, student, welch
from edgeml.types import Run, Verdict
from edgeml.verdicts.evidence import (
    Bound,
    Evidence,
    Question,
    decided,
    marks_of,
    needed,
    samples_of,
    unknown,
    why_missing,
)
from edgeml.verdicts.limits import lower_is_better

_FACTS = ("size", "memory")  # no sample of many: what was read is what it is
_AGAIN = "; --processes 5"


def cost_verdict(asked: Question) -> Verdict:
    """The verdict of a limit on a cost, or on a cost's drop.

    Method: each process that nothing marks gives one value, its statistic; their logarithms have a t interval, and
    against a baseline Welch's interval of the ratio, which is said as a difference from the baseline's geometric mean.
    A size, and the largest peak of memory, have no interval: they are compared as they are.
    """
    return _fact(asked) if asked.metric.startswith(_FACTS) else _over_processes(asked)


def _over_processes(asked: Question) -> Verdict:
    baseline = asked.baseline if asked.limit.needs_baseline else None
    ours = _values(asked.run, asked)
    theirs = _values(baseline, asked) if baseline else None
    marks = marks_of(asked.run, baseline, metric=asked.metric)
    reason = _lacking(asked, ours, theirs, marks)
    if reason:
        return unknown(asked, reason, n=len(ours))
    left_out = f"; processes left out: {', '.join(marks)}" if marks else ""
    logs = [math.log(value) for value in ours]
    if theirs is None:
        found = _exponential(student(logs, level=asked.level), 1.0)
        bound = _bound(asked, asked.limit.amount)
        method = f"t interval over the logarithms of {len(ours)} processes{left_out}"
        return decided(asked, bound, Evidence(found=found, method=method, needed=needed(found, bound.at)))
    other = [math.log(value) for value in theirs]
    base = math.exp(math.fsum(other) / len(other))
    ratio = _exponential(welch(logs, other, level=asked.level), base)
    found = Interval(
        value=ratio.value - base, n=ratio.n, low=_less(ratio.low, base), high=_less(ratio.high, base), level=ratio.level
    )
    bound = _bound(asked, _allowed(asked, base))
    method = f"Welch's interval of the ratio, {len(ours)} and {len(theirs)} processes{left_out}"
    return decided(asked, bound, Evidence(found=found, method=method, needed=needed(found, bound.at)))


def _fact(asked: Question) -> Verdict:
    baseline = asked.baseline if asked.limit.needs_baseline else None
    ours = _largest(asked.run, asked, asked.sizes[0])
    theirs = _largest(baseline, asked, asked.sizes[1]) if baseline else 0.0
    if ours is None or theirs is None:
        marks = marks_of(asked.run, baseline, metric=asked.metric)
        return unknown(asked, _doubt(marks) if marks else _missing(asked, lacking_ours=ours is None))
    count = len(samples_of(asked.run, asked.metric))
    method = f"the largest of {count} processes, a fact" if count > 1 else "a fact"
    found = Interval(value=ours - theirs, n=max(count, 1), low=ours - theirs, high=ours - theirs)
    at = _allowed(asked, theirs) if baseline else asked.limit.amount
    return decided(asked, _bound(asked, at), Evidence(found=found, method=method))


def _allowed(asked: Question, base: float) -> float:
    """The worst difference from the baseline's value."""
    limit = asked.limit
    if not limit.is_drop:
        return (limit.amount - 1) * base
    return -_sign(asked) * limit.amount * (base if limit.relative else 1.0)


def _bound(asked: Question, at: float) -> Bound:
    kinds = samples_of(asked.run, asked.metric)
    unit, statistic = (kinds[0].unit, kinds[0].statistics[0]) if kinds else ("byte", "once")
    return Bound(at=at, sign=_sign(asked), unit=unit, statistic=asked.limit.statistic or statistic)


def _sign(asked: Question) -> int:
    return -1 if lower_is_better(asked.metric) else 1


def _values(run: Run, asked: Question) -> list[float]:
    """One value for each process that nothing marks."""
    import numpy as np

    good = [sample for sample in samples_of(run, asked.metric) if not sample.marks]
    return [
        float(statistic_of(asked.limit.statistic or one.statistics[0])(np.asarray(one.values, dtype=np.float64)))
        for one in good
    ]


def _largest(run: Run, asked: Question, size_bytes: int | None) -> float | None:
    if asked.metric == "size":
        return None if size_bytes is None else float(size_bytes)
    return max((max(one.values) for one in samples_of(run, asked.metric) if not one.marks), default=None)


def _lacking(asked: Question, ours: list[float], theirs: list[float] | None, marks: list[str]) -> str | None:
    """Why the processes cannot decide; None if they can."""
    fewest = min(len(ours), len(ours if theirs is None else theirs))
    if marks and fewest < MINIMUM_PROCESSES:
        return _doubt(marks)
    if not fewest:
        return _missing(asked, lacking_ours=not ours)
    if fewest < MINIMUM_PROCESSES:
        return ("one process cannot show" if fewest == 1 else "two processes hardly show") + _differ()
    return None if min(ours + (theirs or [])) > 0 else f"{asked.metric} is 0 in a process, so there is no ratio"


def _differ() -> str:
    return f" how processes differ{_AGAIN}"


def _missing(asked: Question, *, lacking_ours: bool) -> str:
    run = asked.run if lacking_ours or asked.baseline is None else asked.baseline
    return why_missing(run, asked.metric)


def _doubt(marks: list[str]) -> str:
    return f"its samples are marked: {', '.join(marks)}"


def _exponential(logs: Interval, factor: float) -> Interval:
    low, high = (None if bound is None else factor * math.exp(bound) for bound in (logs.low, logs.high))
    return Interval(value=factor * math.exp(logs.value), n=logs.n, low=low, high=high, level=logs.level)


def _less(bound: float | None, base: float) -> float | None:
    return None if bound is None else bound - base
