"""Before a run: which drop so many rows can show at all, and where a run that may stop early looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from edgeml.limits import Limit, is_cost, lower_is_better, named
from edgeml.stats import LEVEL, MINIMUM_N, normal_quantile
from edgeml_runtime.types import Record

# Spending of the error over the looks: share^3 of it by the time that this share of the rows is in (Kim and DeMets,
# Biometrika 74 (1987), 149-154, with rho = 3), so that the last look keeps most of it.
_RHO = 3
_CORRELATIONS = ("spearman", "pearson")
# Assumed before anything is measured: correlation with the right answers 0.8, of the two variants 0.998 (about what
# int8 and fp32 of a sentence encoder have). For both, the variance is Steiger's, Psychological Bulletin 87 (1980).
_SQUARED_ERROR = 2 * (1 - 0.998) * (1 - 0.8**2)


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
    """A sentence for each limit on a drop: which drop so many rows can show. Costs, and chunks of a text, have none."""
    asked = [named(limit, task, labelled=labelled) for limit in limits]
    drops = [one for one in asked if one.is_drop and not is_cost(str(one.metric))]
    found = [_sentence(one, rows, level) for one in drops if not lower_is_better(str(one.metric))]
    return list(dict.fromkeys(found))


def _sentence(limit: Limit, rows: int, level: float) -> str:
    z = normal_quantile(level)
    if limit.metric in _CORRELATIONS:
        half = z * math.sqrt(_SQUARED_ERROR / rows)
        enough = math.ceil(_SQUARED_ERROR * (z / limit.amount) ** 2) if limit.amount else None
        return f"{rows} rows show a drop of {limit.metric} to about {half:.2g} (an estimate); " + _needs(limit, enough)
    floor = z * z / (rows + z * z)
    enough = math.ceil(z * z * (1 - limit.amount) / limit.amount) if limit.amount else None
    return f"{rows} rows cannot show that a drop is below {floor:.1%}, even if no answer flips; " + _needs(
        limit, enough
    )


def _needs(limit: Limit, enough: int | None) -> str:
    amount = limit.text.rpartition("=")[2]
    return f"{amount} needs about {enough}" if enough else f"no number of rows shows {amount}"
