"""A verdict in one sentence: what changed, by how much, what was allowed, and what would decide."""

from __future__ import annotations

from collections.abc import Callable

from edgeml.render.figures import FIGURES, Figure
from edgeml.stats import LEVEL
from edgeml.types import Verdict
from edgeml.verdicts.evidence import FROM_BASELINE, OF_BASELINE
from edgeml.verdicts.limits import is_cost, lower_is_better, samples_noun

_PLAIN = Figure(title="", digits=4)
_OWN = ("", "median", "max", "once")  # what a cost is told by where no statistic is named
_UNITS = {"byte": "MB"}  # as the table scales it


def sentence(verdict: Verdict, label: Callable[[str], str] = str) -> str:
    """Everything but the variant and the word of the verdict itself."""
    figure = _figure(verdict)
    place = f" in {verdict.slice}" if verdict.slice else ""
    statistic = f" {verdict.statistic}" if is_cost(verdict.metric) and verdict.statistic not in _OWN else ""
    parts = [f"{verdict.metric}{statistic}{place} {_found(verdict, figure, label)}"]
    if verdict.level != LEVEL and verdict.low is not None:
        parts.append(f"interval at {verdict.level:.2%} for an early look")
    if "room for" in verdict.method:
        parts.append(f"interval {verdict.method[verdict.method.index('with room for') :]}")
    if verdict.p_value is not None:
        parts.append(f"McNemar p {verdict.p_value:.2g}")
    if verdict.reason:
        parts.append(verdict.reason)
    if verdict.n_needed is not None:
        parts.append(f"about {verdict.n_needed} {samples_noun(verdict.metric)} would tell, these are {verdict.n}")
    return "; ".join(parts)


def _found(verdict: Verdict, figure: Figure, label: Callable[[str], str]) -> str:
    if verdict.difference is not None:
        changed = f"changed by {_number(verdict.difference, figure, sign=True)}{_bounds(verdict, figure, sign=True)}"
        allowed = f"allowed {_number(verdict.bound, figure, sign=True)}" if verdict.bound else "no loss allowed"
        return f"{changed}{_unit(verdict)} from {label(verdict.baseline or '')}, {allowed}"
    if verdict.value is not None:
        found = f"is {_number(verdict.value, figure, sign=False)}{_bounds(verdict, figure, sign=False)}"
        worst = f"at {'most' if lower_is_better(verdict.metric) else 'least'}"
        return f"{found}{_unit(verdict)}, {worst} {_number(verdict.bound, figure, sign=False)} allowed"
    return f"is not known, {_limit(verdict, figure)}"


def _figure(verdict: Verdict) -> Figure:
    """How its numbers are shown; without a statistic, as the metric's first is."""
    wanted = verdict.metric, verdict.statistic
    found = (one for key, one in FIGURES.items() if key == wanted or (wanted == (key[0], "")))
    return next(found, _PLAIN)


def _unit(verdict: Verdict) -> str:
    return f" {_UNITS.get(verdict.unit, verdict.unit)}" if is_cost(verdict.metric) else ""


def _limit(verdict: Verdict, figure: Figure) -> str:
    """What is allowed where the baseline's own value may be unknown."""
    if verdict.unit == OF_BASELINE:
        return f"allowed {100 * verdict.bound:.4g}% of the baseline's"
    if verdict.unit == FROM_BASELINE:
        return f"allowed {100 * verdict.bound:+.4g}% from the baseline's" if verdict.bound else "no loss allowed"
    return f"allowed {_number(verdict.bound, figure, sign=verdict.baseline is not None)}"


def _bounds(verdict: Verdict, figure: Figure, *, sign: bool) -> str:
    if verdict.low is None or verdict.high is None or verdict.low == verdict.high:  # a fact has no interval
        return ""
    return f" [{_number(verdict.low, figure, sign=sign)}, {_number(verdict.high, figure, sign=sign)}]"


def _number(value: float, figure: Figure, *, sign: bool) -> str:
    digits = max(figure.digits, 4) if figure.scale == 1.0 and abs(value) < 1 else figure.digits
    return f"{value * figure.scale:{'+' if sign else ''}.{digits}f}"
