"""Before a run: which drop so many rows can show at all, and where a run that may stop early looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from edgeml.stats import LEVEL, MINIMUM_N, normal_quantile
from edgeml.verdicts.limits import Limit, is_cost, lower_is_better, named
from edgeml_runtime.types import Record

# Spending of the error over the looks: share^3 of it by the time that this share of the rows is in (Kim and DeMets,
# Biometrika 74 (1987), 149-154, with rho = 3), so that the last look keeps most of it.
_RHO = 3
_CORRELATIONS = ("spearman", "pearson")
_USUAL = 0.8  # what a correlation is taken for before anything is measured


class Look(Record, frozen=True, kw_only=True):
    """After how many rows a verdict may be had, and at which level its intervals are then."""

    rows: int
    level: float


def looks(n: int, count: int, *, level: float = LEVEL) -> list[Look]:
    """`count` looks, evenly over `n` rows; fewer where looks would lie under 10 rows apart.

    A `pass` or `fail` at any of them is final. However the looks depend on one another, all of them together err in
    at most 1 - level of cases, half of it each way: each look has what is spent between the one before and itself.
    """
    count = max(1, min(count, n // MINIMUM_N))
    spent = [(look / count) ** _RHO for look in range(count + 1)]
    shares = [after - before for before, after in pairwise(spent)]
    return [
        Look(rows=n if index + 1 == count else n * (index + 1) // count, level=1 - (1 - level) * share)
        for index, share in enumerate(shares)
    ]


def detectable(limits: Sequence[Limit], task: str, *, rows: int, labelled: bool, level: float = LEVEL) -> list[str]:
    """A sentence for each limit on a drop: which drop so many rows can show at all. Costs, and a text, have none."""
    asked = [named(limit, task, labelled=labelled) for limit in limits]
    drops = [one for one in asked if one.is_drop and not is_cost(one.metric) and not lower_is_better(one.metric)]
    return list(dict.fromkeys(_sentence(one, rows, level) for one in drops))


def _sentence(limit: Limit, rows: int, level: float) -> str:
    """Right or wrong: the bound of Tango's interval where no answer flips. Correlation: the room for unseen rows."""
    z2 = normal_quantile(level) ** 2
    amount = limit.text.rpartition("=")[2]
    correlation = limit.metric.endswith(_CORRELATIONS)
    span, about, value = (2.0, "about ", _USUAL) if correlation else (1.0, "", 1.0)
    floor = span * z2 / (rows + z2) / value
    shown = f"{floor:.1%}" if limit.relative or not correlation else f"{floor * value:.2g}"
    flips = (
        f"even if nothing changes (an estimate, for a correlation of {_USUAL})"
        if correlation
        else "even if no answer flips"
    )
    whole = f"{rows} {'rows of a slice' if limit.option == 'max-drop-worst-slice' else 'rows'}"
    allowed = limit.amount * (value if limit.relative else 1.0)
    needs = (
        f"{amount} needs about {math.ceil(z2 * (span - allowed) / allowed)}"
        if allowed
        else f"no number of rows shows {amount}"
    )
    return f"{whole} cannot show that a drop of {limit.metric} is below {about}{shown}, {flips}; {needs}"
