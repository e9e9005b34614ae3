"""Before a run: which drop so many rows can show at all, and where a run that may stop early looks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

from edgeml.stats import LEVEL, MINIMUM_N, normal_quantile
from edgeml.verdicts.limits import Limit, lower_is_better, named, samples_noun
from edgeml_runtime.errors import counted
from edgeml_runtime.types import Record

# Spending of the error over the looks: share^3 of it by the time that this share of the rows is in (Kim and DeMets,
# Biometrika 74 (1987), 149-154, with rho = 3), so that the last look keeps most of it.
_RHO = 3
_CORRELATIONS = ("spearman", "pearson")
_USUAL, _COST = 0.8, 3.2  # what a correlation is taken for before anything is measured, and what a row costs it then
# Metrics of which a row may cost more than its own place, and why: how much more depends on the data.
_UNEVEN = {
    "entity_f1": "entities are",
    "token_accuracy": "long rows are",
    "macro_f1": "a label is",
}


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


def detectable(
    limits: Sequence[Limit],
    task: str,
    *,
    rows: int,
    labelled: bool,
    smallest_slice: int | None = None,
    level: float = LEVEL,
) -> list[str]:
    """A sentence for each limit on a drop: which drop so many rows can show at all. Costs, and a text, have none.

    `smallest_slice` is how many rows the smallest slice has, which decides whether every slice can pass.
    """
    asked = [named(limit, task, labelled=labelled) for limit in limits]
    drops = [one for one in asked if one.is_drop and not lower_is_better(one.metric)]
    of_rows = [one for one in drops if samples_noun(one.metric) == "rows"]
    return list(dict.fromkeys(_sentence(one, rows, smallest_slice, level) for one in of_rows))


def _sentence(limit: Limit, rows: int, smallest_slice: int | None, level: float) -> str:
    """Right or wrong: the bound of Tango's interval where no answer flips. Others: the room for unseen rows."""
    z2 = normal_quantile(level) ** 2
    amount = limit.text.rpartition("=")[2]
    correlation = limit.metric.endswith(_CORRELATIONS)
    cost, value = (_COST, _USUAL) if correlation else (1.0, 1.0)
    about = "about " if correlation else "at least " if limit.metric in _UNEVEN else ""
    whole = _whole(limit, rows, smallest_slice)
    if limit.option == "max-drop-worst-slice":
        rows = rows if smallest_slice is None else smallest_slice
    floor = cost * z2 / (rows + z2) / value
    shown = f"{floor:.1%}" if limit.relative or not correlation else f"{floor * value:.2g}"
    allowed = limit.amount * (value if limit.relative else 1.0)
    count = f"{about or 'about '}{math.ceil(z2 * (cost - allowed) / allowed)}" if allowed else ""
    of_what = " of a baseline near 1" if limit.relative and not correlation else ""
    needs = f"{amount}{of_what} needs {count}" if allowed else f"no number of rows shows {amount}"
    return f"{whole} cannot show that a drop of {limit.metric} is below {about}{shown}, {_if_equal(limit)}; {needs}"


def _whole(limit: Limit, rows: int, smallest_slice: int | None) -> str:
    if limit.option != "max-drop-worst-slice":
        return counted(rows, "row")
    return f"a slice of all {rows} rows" if smallest_slice is None else f"the smallest slice's {smallest_slice} rows"


def _if_equal(limit: Limit) -> str:
    if limit.metric.endswith(_CORRELATIONS):
        return f"even if nothing changes (an estimate, for a correlation of {_USUAL})"
    if limit.metric in _UNEVEN:
        return f"even if no answer flips; the rarer {_UNEVEN[limit.metric]}, the more it takes"
    return "even if no answer flips"
