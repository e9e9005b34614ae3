"""Statistics of samples, each with its interval. Knows nothing of models or tasks.

Intervals are percentile bootstraps over the independent samples (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13), seeded, so that the same samples give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from edgeml_runtime.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
MINIMUM_N = 10  # fewer samples carry no interval worth printing


class Interval(Record, frozen=True, kw_only=True):
    """A statistic and the bounds of its interval; bounds are absent where there are too few samples."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None

    @property
    def level(self) -> float | None:
        """Confidence level of the bounds."""
        return None if self.low is None else LEVEL


Statistic = Callable[..., float]


def statistic_of(name: str) -> Statistic:
    """The function behind a statistic's name."""
    import numpy as np

    table: dict[str, Statistic] = {
        "median": lambda column: float(np.median(column)),
        "p95": lambda column: float(np.percentile(column, 95)),
        "p99": lambda column: float(np.percentile(column, 99)),
        "mean": lambda column: float(np.mean(column)),
        "exp_mean": lambda column: float(np.exp(np.mean(column))),
        "max": lambda column: float(np.max(column)),
        "sum": lambda column: float(np.sum(column)),
        "once": lambda column: float(column[0]),
    }
    return table[name]


def interval(columns: Sequence[Sequence[float]], statistic: Statistic, *, seed: int) -> Interval:
    """A statistic of one or more columns that are resampled together, row by row."""
    arrays = _arrays(columns)
    n = len(arrays[0])
    value = statistic(*arrays)
    if n < MINIMUM_N:
        return Interval(value=value, n=n)
    draws = [statistic(*(array[rows] for array in arrays)) for rows in _resamples(n, seed)]
    low, high = _bounds(draws)
    return Interval(value=value, n=n, low=low, high=high)


def difference(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], statistic: Statistic, *, seed: int
) -> Interval:
    """The paired difference `ours - theirs` of a statistic on the same rows."""
    first, second = _arrays(ours), _arrays(theirs)
    n = len(first[0])
    value = statistic(*first) - statistic(*second)
    if n < MINIMUM_N:
        return Interval(value=value, n=n)
    draws = [
        statistic(*(array[rows] for array in first)) - statistic(*(array[rows] for array in second))
        for rows in _resamples(n, seed)
    ]
    low, high = _bounds(draws)
    return Interval(value=value, n=n, low=low, high=high)


def _arrays(columns: Sequence[Sequence[float]]) -> list[Column]:
    import numpy as np

    return [np.asarray(column, dtype=np.float64) for column in columns]


def _resamples(n: int, seed: int) -> Any:
    import numpy as np

    return np.random.default_rng(seed).integers(0, n, size=(RESAMPLES, n))


def _bounds(draws: list[float]) -> tuple[float, float]:
    import numpy as np

    tail = (1 - LEVEL) / 2 * 100
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return float(low), float(high)
