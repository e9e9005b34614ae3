"""Below which confidence an answer should be kept on a device, as far as a bench of the user's own data can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeml.errors import EdgemlError
from edgeml.scores import as_text
from edgeml.stats import LEVEL, Interval, wilson
from edgeml.types import Run
from edgeml_runtime.feedback.confidence import NONE, confidence_of
from edgeml_runtime.types import Absent, Record

CATCHES = (0.5, 0.8, 0.9, 0.95)
_STEP = 1e-4  # a threshold is rounded up to so much, so that it can be written down


class Threshold(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.threshold/1"):
    """A value for `feedback.low_confidence`, meant to keep the share `catch` of a variant's wrong answers.

    `caught` is the share of future wrong answers below the threshold, `kept` that of all answers; both with their 95 %
    interval, where what is asked of the device is like the data of `run`, which had `wrong` of `rows` answers wrong.
    """

    variant: str
    task: str
    run: str
    catch: float
    threshold: float
    rows: int
    wrong: int
    caught: Interval
    kept: Interval


def thresholds(run: Run, catches: Sequence[float]) -> list[Threshold | Absent]:
    """A threshold for each share of the wrong answers, or why there is none.

    It lies just above the k-th least confidence of n wrong answers, k being the least with k / (n + 1) of at least that
    share. Whatever the confidences' distribution, the share of further wrong answers below it is then that of Beta(k,
    n + 1 - k) (Wilks, Annals of Mathematical Statistics 12 (1941), 91-96), or more where confidences are equal. So the
    interval allows for the threshold having been found in the same data. `kept` has Wilson's, as if it were given.
    """
    if why := _why_not(run):
        return [why]
    sure = [confidence_of(run.task, answer) or 0.0 for answer in run.outcome.answers]
    pairs = zip(run.outcome.answers, run.gold, strict=True)
    wrong = sorted(one for one, (answer, gold) in zip(sure, pairs, strict=True) if answer["label"] != as_text(gold))
    return [_threshold(run, catch, sure, wrong) for catch in catches]


def _why_not(run: Run) -> Absent | None:
    if run.task in NONE:
        return _absent(run, NONE[run.task], "keep corrections alone, or have people look at answers drawn by chance")
    if not run.gold:
        return _absent(run, "the data has no right answers", "edgeml bench with --data that has them")
    if any(confidence_of(run.task, answer) is None for answer in run.outcome.answers):
        return _absent(run, "the answers hold no confidence", "bench the variant again")
    return None


def _threshold(run: Run, catch: float, sure: Sequence[float], wrong: Sequence[float]) -> Threshold | Absent:
    from scipy.stats import beta

    n, place = len(wrong), math.ceil(catch * (len(wrong) + 1) - 1e-9)
    if place > n:
        needed = math.ceil(catch / (1 - catch) - 1e-9)
        reason = f"{n} wrong answers are too few to tell where {catch:.0%} of them lie; {needed} are the least"
        return _absent(run, reason, "bench with more data, or ask for a smaller share: --catch")
    least = wrong[place - 1]
    value = min(round((math.floor(least / _STEP) + 1) * _STEP, 4), 1.0)
    if value <= least:
        reason = f"{catch:.0%} of the wrong answers are not told by confidence: the model was fully sure of some"
        return _absent(run, reason, "ask for a smaller share: --catch")
    low, high = (float(beta.ppf(tail, place, n + 1 - place)) for tail in ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return Threshold(
        variant=run.variant,
        task=run.task,
        run=run.file_name,
        catch=catch,
        threshold=value,
        rows=len(sure),
        wrong=n,
        caught=Interval(value=place / (n + 1), n=n, low=low, high=high, level=LEVEL),
        kept=wilson(sum(one < value for one in sure), len(sure)),
    )


def _absent(run: Run, reason: str, hint: str) -> Absent:
    return Absent(metric="feedback.low_confidence", reason=reason, hint=hint, variant=run.variant, target=run.target)


def require_shares(catches: Sequence[float]) -> None:
    """Raise EdgemlError for a share that is none."""
    for catch in catches:
        if not 0 < catch < 1:
            raise EdgemlError(f"{catch:g} is no share of the wrong answers", hint="give one such as 0.8")
