"""Whether a run keeps its limits, decided by intervals that lie wholly on one side of a bound.

`pass` errs in at most (1 - level) / 2 of all cases with the truth exactly at the bound, and in fewer beyond it; so does
`fail` on the other side. Whatever lies between is `cannot tell`. Knows nothing of how a run came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from edgeml.fidelity import fidelity
from edgeml.measurements import only, row_scores, slices_of
from edgeml.scores import Score
from edgeml.stats import (
    LEVEL,
    MINIMUM_N,
    difference,
    mcnemar_p,
    normal_quantile,
    paired_shares,
    tango_score,
    with_unseen,
)
from edgeml.types import Run, Verdict
from edgeml.verdicts.costs import cost_verdict
from edgeml.verdicts.evidence import Bound, Evidence, Question, decided, marks_of, needed, unknown, why_missing
from edgeml.verdicts.limits import Limit, is_cost, lower_is_better, named

_LONG = ("perplexity",)  # a chunk is hundreds of tokens: what is rare among tokens is in every chunk
_RANGE = {"spearman": 2.0, "pearson": 2.0}  # what a metric spans, and so what a share of broken rows costs; others 1
_ITSELF = {"kl_divergence": 0.0, "same_top": 1.0}  # what a metric that compares with a baseline is of itself


def verdicts(
    run: Run,
    baseline: Run | None,
    limits: Sequence[Limit],
    *,
    sizes: tuple[int, int | None],
    level: float = LEVEL,
) -> list[Verdict]:
    """One verdict a limit, in their order; `sizes` are the bytes of the variant's files and of the baseline's.

    At a look before all rows were measured, `level` is that look's own. Raises EdgemlError where nothing pairs the
    rows of the two runs, or where a limit allows any drop at all.
    """
    asked = [named(limit, run.task, labelled=bool(run.gold)) for limit in limits]
    return [_verdict(Question(run=run, baseline=baseline, limit=limit, level=level, sizes=sizes)) for limit in asked]


def _verdict(asked: Question) -> Verdict:
    if asked.limit.needs_baseline and asked.baseline is None:
        return unknown(asked, "there is no baseline to compare with")
    if not asked.limit.is_drop or is_cost(asked.metric):
        return cost_verdict(asked)
    pair = _pair(asked)
    if isinstance(pair, str):
        return unknown(asked, pair)
    return _worst_slice(asked, *pair) if asked.limit.option == "max-drop-worst-slice" else _paired(asked, *pair)


def _pair(asked: Question) -> tuple[Score, Score] | str:
    """The metric of both runs, or why it cannot be had."""
    run, baseline, metric = asked.run, asked.baseline, asked.metric
    assert baseline is not None
    marks = marks_of(run, baseline, metric=metric)
    if marks:
        return f"its samples are marked: {', '.join(marks)}"
    ours = _named(metric, [*row_scores(run), *fidelity(run, baseline)])
    if ours is None:
        return why_missing(run, metric)
    theirs = _named(metric, [*row_scores(baseline), *fidelity(baseline, baseline)])
    if theirs is None and metric in _ITSELF:
        theirs = replace(ours, columns=((_ITSELF[metric],) * len(ours.columns[0]),))
    if theirs is None:
        return why_missing(baseline, metric)
    if len(theirs.columns[0]) != len(ours.columns[0]):
        return f"{len(ours.columns[0])} rows against {len(theirs.columns[0])} of the baseline: nothing pairs them"
    return ours, theirs


def _named(metric: str, scores: Sequence[Score]) -> Score | None:
    return next((score for score in scores if score.metric == metric), None)


def _paired(asked: Question, ours: Score, theirs: Score, *, slice: str | None = None) -> Verdict:
    n, base = len(ours.columns[0]), _value(theirs)
    sign = -1 if lower_is_better(ours.metric) else 1
    scale = abs(base) if asked.limit.relative and math.isfinite(base) else 1.0
    at = -sign * asked.limit.amount * scale
    bound = Bound(at=at, sign=sign, unit=ours.unit, statistic=ours.statistic_name, slice=slice)
    what = f"{n} rows" if slice is None else f"{n} rows of {slice}"
    if n < MINIMUM_N:
        return unknown(asked, f"{what} are too few; it takes {MINIMUM_N} at least", n=n, bound=bound)
    if not math.isfinite(base) or not math.isfinite(_value(ours)):
        return unknown(asked, f"{what} do not define it", n=n, bound=bound)
    if ours.is_right_or_wrong and theirs.is_right_or_wrong and asked.run.task not in _LONG:
        return decided(asked, bound, _of_shares(asked, ours, theirs, bound))
    return decided(asked, bound, _of_rows(asked, ours, theirs, bound))


def _of_shares(asked: Question, ours: Score, theirs: Score, bound: Bound) -> Evidence:
    pairs = list(zip(ours.columns[0], theirs.columns[0], strict=True))
    n, gained, lost = len(pairs), sum(a > b for a, b in pairs), sum(a < b for a, b in pairs)
    score = float(tango_score(gained, lost, n, bound.at))
    # With the same shares of rows gained and lost the score grows with the root of n.
    enough = n * (normal_quantile(asked.level) / score) ** 2 if score and math.isfinite(score) else None
    return Evidence(
        found=paired_shares(gained, lost, n, level=asked.level),
        method=f"score interval of paired shares (Tango, exact), {gained} rows gained, {lost} lost",
        needed=enough,
        p_value=None if ours.metric.startswith("fidelity.") else mcnemar_p(gained, lost),
    )


def _of_rows(asked: Question, ours: Score, theirs: Score, bound: Bound) -> Evidence:
    """The paired bootstrap; of a relative bound too, so that what is unsure of the baseline's value counts."""
    share = asked.limit.amount if asked.limit.relative else 0.0
    factor = 1 - bound.sign * math.copysign(share, _value(theirs))
    gap = difference(
        ours.columns, theirs.columns, ours.statistic, seed=asked.run.seed, level=asked.level, factor=factor
    )
    found = replace(gap.moved(bound.at if share else 0.0), value=_value(ours) - _value(theirs))
    if asked.run.task in _LONG or ours.unit not in ("1", "share"):
        return Evidence(found=found, method="paired bootstrap over chunks", needed=needed(found, bound.at))
    loss = _RANGE.get(ours.statistic_name, 1.0)
    return Evidence(
        found=with_unseen(found, -bound.sign * loss),
        method="paired bootstrap over rows, with room for rows too rare to be seen",
        needed=needed(found, bound.at, loss=loss, sign=bound.sign),
    )


def _worst_slice(asked: Question, ours: Score, theirs: Score) -> Verdict:
    """`pass` if every slice passes, each at its own level, which is enough for all of them together (Berger, 1982).

    `fail` if one fails at a level that allows for the number of slices (Bonferroni).
    """
    slices = slices_of(asked.run)
    if not slices:
        return unknown(asked, "no column is a slice; --slice COLUMN")
    strict = replace(asked, level=1 - (1 - asked.level) / len(slices))
    found = []
    for name, rows in slices.items():
        pair = only(ours, rows), only(theirs, rows)
        alone = _paired(asked, *pair, slice=name)
        found.append(_paired(strict, *pair, slice=name) if alone.verdict == "fail" else alone)
    failed = [one for one in found if one.verdict == "fail"]
    doubtful = [one for one in found if one.verdict != "pass"]
    worst = min(failed or doubtful or found, key=_margin)
    return replace(worst, method=f"{worst.method}; the worst of {len(slices)} slices")


def _margin(one: Verdict) -> float:
    """How far the doubtful end of the interval is on the good side; a slice without an interval comes first."""
    if one.low is None or one.high is None:
        return -math.inf
    return one.bound - one.high if lower_is_better(one.metric) else one.low - one.bound


def _value(score: Score) -> float:
    import numpy as np

    columns = [np.asarray(column, dtype=np.float64) for column in score.columns]
    return float(score.statistic(*columns)) if len(columns[0]) else math.nan
