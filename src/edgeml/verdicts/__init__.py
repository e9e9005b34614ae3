"""Whether a run keeps its limits, decided by intervals that lie wholly on one side of a bound.

`pass` errs in at most (1 - level) / 2 of all cases with the truth exactly at the bound, and in fewer beyond it; so does
`fail` on the other side. Whatever lies between is `cannot tell`. Knows nothing of how a run came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from msgspec.structs import replace

from edgeml.fidelity import fidelity
from edgeml.measurements import only, pairable, slices_of
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
from edgeml.verdicts.limits import OF_ITSELF, Limit, is_cost, lower_is_better, named, samples_noun
from edgeml.verdicts.unseen import cost_of_a_row, cost_of_a_token

FEWEST_CHUNKS = 30  # where nothing says how many tokens one holds


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
    ours = _named(metric, [*pairable(run), *fidelity(run, baseline)])
    if ours is None:
        return why_missing(run, metric)
    theirs = _named(metric, [*pairable(baseline), *fidelity(baseline, baseline)])
    if theirs is None and metric in OF_ITSELF:
        theirs = replace(ours, columns=((OF_ITSELF[metric],) * len(ours.columns[0]),))
    if theirs is None:
        return why_missing(baseline, metric)
    if run.seed != baseline.seed and _is_sampled(run, metric):
        return "the rows that it was tried on were drawn by another seed than the baseline's"
    if len(theirs.columns[0]) != len(ours.columns[0]):
        return f"{len(ours.columns[0])} rows against {len(theirs.columns[0])} of the baseline: nothing pairs them"
    return ours, theirs


def _named(metric: str, scores: Sequence[Score]) -> Score | None:
    return next((score for score in scores if score.metric == metric), None)


def _is_sampled(run: Run, metric: str) -> bool:
    """Whether its rows are a sample of the data's."""
    return any(sample.metric == metric and sample.unit_of_sample == "sampled row" for sample in run.outcome.samples)


def _paired(asked: Question, ours: Score, theirs: Score, *, slice: str | None = None) -> Verdict:
    n, base, noun = len(ours.columns[0]), _value(theirs), samples_noun(ours.metric)
    sign = -1 if lower_is_better(ours.metric) else 1
    scale = abs(base) if asked.limit.relative and math.isfinite(base) else 1.0
    at = -sign * asked.limit.amount * scale
    bound = Bound(at=at, sign=sign, unit=ours.unit, statistic=ours.statistic_name, slice=slice)
    what = f"{n} {noun}" if slice is None else f"{n} {noun} of {slice}"
    if n < MINIMUM_N:
        return unknown(asked, f"{what} are too few; it takes {MINIMUM_N} at least", n=n, bound=bound)
    if noun == "chunks" and n < FEWEST_CHUNKS and _tokens(asked) is None:
        reason = f"{what} of unknown length are too few; it takes {FEWEST_CHUNKS} at least"
        return unknown(asked, reason, n=n, bound=bound, n_needed=FEWEST_CHUNKS)
    if not math.isfinite(base) or not math.isfinite(_value(ours)):
        return unknown(asked, f"{what} do not define it", n=n, bound=bound)
    uncertain = asked.limit.relative and sign < 0  # a share of the baseline's, which is small and no surer than ours
    if uncertain and not base:
        amount = f"allow an amount: --{asked.limit.option} {ours.metric}=0.01"
        return unknown(asked, f"the baseline's is 0, and any share of that is 0; {amount}", n=n, bound=bound)
    if _is_share(ours, theirs) and not uncertain and noun == "rows":
        return decided(asked, bound, _of_shares(asked, ours, theirs, bound))
    return decided(asked, bound, _of_rows(asked, ours, theirs, bound))


def _is_share(ours: Score, theirs: Score) -> bool:
    return ours.is_right_or_wrong and theirs.is_right_or_wrong


def _tokens(asked: Question) -> int | None:
    """How many tokens of each chunk were scored; None where the run does not say, as those of earlier versions."""
    return next((sample.parts for sample in samples_of(asked.run, asked.metric)), None)


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
    noun, parts = samples_noun(ours.metric), _tokens(asked) or 1
    if (noun == "chunks" and parts == 1) or (noun == "rows" and ours.unit != "1"):
        return Evidence(found=found, method=f"paired bootstrap over {noun}", needed=needed(found, bound.at))
    loss = cost_of_a_row(theirs) if noun == "rows" else cost_of_a_token(ours, _value(theirs), parts)
    widened = with_unseen(found, -bound.sign * loss, parts=parts)
    if share and _is_share(ours, theirs):  # the baseline's rows, of which it is a share, may be rare as well
        widened = with_unseen(widened, bound.sign * loss * abs(factor))
    return Evidence(
        found=widened,
        method=f"paired bootstrap over {noun}, with room for {'rows' if parts == 1 else 'tokens'} too rare to be seen",
        needed=needed(found, bound.at, loss=loss / parts, sign=bound.sign),
    )


def _worst_slice(asked: Question, ours: Score, theirs: Score) -> Verdict:
    """`pass` if every slice passes, each at its own level, which is enough for all of them together (Berger, 1982).

    `fail` if one fails at a level that allows for the number of slices (Bonferroni).
    """
    slices = slices_of(asked.run)
    if not slices:
        return unknown(asked, "no column is a slice; --slice COLUMN")
    if any(len(ours.columns[0]) != len(values) for values in asked.run.slices.values()):
        return unknown(asked, "it was tried on some rows only: no slices")
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
