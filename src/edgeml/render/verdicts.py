"""A verdict in one sentence: what changed, by how much, what was allowed, and what would decide."""

from __future__ import annotations

from collections.abc import Callable

from edgeml.render.figures import FIGURES, Figure
from edgeml.types import Verdict

_PLAIN = Figure(title="", digits=4)


def sentence(verdict: Verdict, label: Callable[[str], str] = str) -> str:
    """Everything but the variant and the word of the verdict itself."""
    figure = FIGURES.get((verdict.metric, verdict.statistic), _PLAIN)
    place = f" in {verdict.slice}" if verdict.slice else ""
    parts = [f"{verdict.metric}{place} {_found(verdict, figure, label)}"]
    if verdict.p_value is not None:
        parts.append(f"McNemar p {verdict.p_value:.2g}")
    if verdict.reason:
        parts.append(verdict.reason)
    if verdict.n_needed is not None:
        parts.append(f"about {verdict.n_needed} rows would tell, these are {verdict.n}")
    return "; ".join(parts)


def _found(verdict: Verdict, figure: Figure, label: Callable[[str], str]) -> str:
    if verdict.difference is not None:
        changed = f"changed by {_number(verdict.difference, figure, sign=True)}{_bounds(verdict, figure, sign=True)}"
        allowed = f"allowed {_number(verdict.bound, figure, sign=True)}" if verdict.bound else "no loss allowed"
        return f"{changed} from {label(verdict.baseline or '')}, {allowed}"
    if verdict.value is not None:
        found = f"is {_number(verdict.value, figure, sign=False)}{_bounds(verdict, figure, sign=False)}"
        return f"{found}, allowed {_number(verdict.bound, figure, sign=False)}"
    return f"is not known, allowed {_number(verdict.bound, figure, sign=verdict.baseline is not None)}"


def _bounds(verdict: Verdict, figure: Figure, *, sign: bool) -> str:
    if verdict.low is None or verdict.high is None:
        return ""
    return f" [{_number(verdict.low, figure, sign=sign)}, {_number(verdict.high, figure, sign=sign)}]"


def _number(value: float, figure: Figure, *, sign: bool) -> str:
    digits = max(figure.digits, 4) if figure.scale == 1.0 and abs(value) < 1 else figure.digits
    return f"{value * figure.scale:{'+' if sign else ''}.{digits}f}"
