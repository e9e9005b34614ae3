"""What a verdict is made of: the question, the evidence, and the one rule that turns them into a word."""

from __future__ import annotations

import math

from edgeml.metrics import metric as known_metric
from edgeml.stats import Interval, normal_quantile
from edgeml.types import Run, Verdict, VerdictWord
from edgeml.verdicts.limits import Limit, lower_is_better
from edgeml_runtime.types import Record, Samples

# Units of a bound that is a share of what is not known.
OF_BASELINE, FROM_BASELINE = "of the baseline's", "from the baseline's"


class Question(Record, frozen=True, kw_only=True):
    """What one limit asks of a run. Its metric is named; `sizes` are bytes, of the variant and of the baseline."""

    run: Run
    limit: Limit
    level: float
    sizes: tuple[int, int | None]
    baseline: Run | None = None

    @property
    def metric(self) -> str:
        """The metric that the limit is of."""
        return self.limit.metric


class Bound(Record, frozen=True, kw_only=True):
    """The worst value that is allowed, of which metric; `sign` is 1 where more is better, else -1."""

    at: float
    sign: int
    unit: str
    statistic: str
    slice: str | None = None


class Evidence(Record, frozen=True, kw_only=True):
    """An interval of a difference, or of a value where there is no baseline, and how it was had.

    `needed` is with how many samples it would probably decide.
    """

    found: Interval
    method: str
    needed: float | None = None
    p_value: float | None = None


def decided(asked: Question, bound: Bound, evidence: Evidence) -> Verdict:
    """The verdict: `pass` or `fail` where the whole interval lies on one side of the bound, else `cannot tell`."""
    found = evidence.found
    word = _word(found, bound)
    unsure, compared = word == "cannot tell", asked.limit.needs_baseline
    return Verdict(
        variant=asked.run.variant,
        target=asked.run.target,
        metric=asked.metric,
        statistic=bound.statistic,
        unit=bound.unit,
        verdict=word,
        bound=bound.at,
        n=found.n,
        level=asked.level,
        method=evidence.method,
        baseline=asked.baseline.variant if asked.baseline and compared else None,
        difference=found.value if compared else None,
        value=None if compared else found.value,
        low=found.low,
        high=found.high,
        n_needed=_rounded_up(evidence.needed, found.n) if unsure and evidence.needed else None,
        p_value=evidence.p_value,
        slice=bound.slice,
        reason="the interval holds the bound" if unsure else None,
    )


def unknown(
    asked: Question, reason: str, *, n: int = 0, bound: Bound | None = None, n_needed: int | None = None
) -> Verdict:
    """A `cannot tell` that no interval stands behind; without a `bound` it is the limit's own.

    That is a change, in the metric's unit or FROM_BASELINE, or of a cost the largest value, in its unit or OF_BASELINE.
    """
    limit = asked.limit
    sign = -1 if lower_is_better(asked.metric) else 1
    share = FROM_BASELINE if limit.is_drop else OF_BASELINE
    own = Bound(
        at=-sign * limit.amount if limit.is_drop else limit.amount,
        sign=sign,
        unit=share if limit.relative else known_metric(asked.metric).unit,
        statistic=limit.statistic or "",
    )
    shown = bound or own
    return Verdict(
        variant=asked.run.variant,
        target=asked.run.target,
        metric=asked.metric,
        statistic=shown.statistic,
        unit=shown.unit,
        verdict="cannot tell",
        bound=shown.at,
        n=n,
        level=asked.level,
        method="none",
        baseline=asked.baseline.variant if asked.baseline and limit.needs_baseline else None,
        n_needed=n_needed,
        slice=shown.slice,
        reason=reason,
    )


def needed(found: Interval, bound: float, *, loss: float = 0.0, sign: int = 1) -> float | None:
    """Samples with which an interval that narrows with the root of their number would not hold the bound.

    With a `loss`, the end on the bad side of `sign` makes room for unseen rows as well, as `stats.with_unseen` does.
    """
    gap = found.value - bound
    if not gap or found.low is None or found.high is None or found.level is None:
        return None
    half = found.value - found.low if gap > 0 else found.high - found.value
    rare = loss * normal_quantile(found.level) ** 2 / abs(gap) if sign * gap > 0 else 0.0
    return found.n * (half / gap) ** 2 + rare


def samples_of(run: Run, metric: str) -> list[Samples]:
    """A metric's samples, of the first process and of the further ones."""
    outcomes = (run.outcome, *run.processes)
    return [sample for outcome in outcomes for sample in outcome.samples if sample.metric == metric and sample.values]


def marks_of(*runs: Run | None, metric: str) -> list[str]:
    """Why samples of a metric should not be trusted, each reason once."""
    found = [mark for run in runs if run for sample in samples_of(run, metric) for mark in sample.marks]
    return list(dict.fromkeys(found))


def why_missing(run: Run, metric: str) -> str:
    """Why a run has no such metric, as far as it says so itself."""
    said = [absent.reason for absent in run.outcome.absent if absent.metric == metric]
    return f"{run.variant} has no {metric}: {said[0] if said else f'{run.task} does not give it here'}"


def _word(found: Interval, bound: Bound) -> VerdictWord:
    if found.low is None or found.high is None:
        return "cannot tell"
    worst, best = sorted((bound.sign * (found.low - bound.at), bound.sign * (found.high - bound.at)))
    if worst >= 0:
        return "pass"
    return "fail" if best < 0 else "cannot tell"


def _rounded_up(samples: float, n: int) -> int:
    """To two digits, and more than there were."""
    whole = max(math.ceil(samples), n + 1)
    step = int(10 ** max(len(str(whole)) - 2, 0))
    return -(-whole // step) * step
