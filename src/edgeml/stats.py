"""Statistics of samples, each with its interval. Knows nothing of models or tasks.

Intervals are percentile bootstraps over the independent samples (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13), seeded, so that the same samples give the same interval.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from edgeml_runtime.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
BLOCK = 1_000_000  # values of a column that are resampled at once
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


# One or more columns, `(..., n)`, to one value for each leading index: many resamples are computed at once.
Statistic = Callable[..., Any]


def statistic_of(name: str) -> Statistic:
    """The function behind a statistic's name, over the last axis."""
    import numpy as np

    table: dict[str, Statistic] = {
        "median": lambda column: np.median(column, axis=-1),
        "p95": lambda column: np.percentile(column, 95, axis=-1),
        "p99": lambda column: np.percentile(column, 99, axis=-1),
        "mean": lambda column: np.mean(column, axis=-1),
        "exp_mean": lambda column: np.exp(np.mean(column, axis=-1)),
        "max": lambda column: np.max(column, axis=-1),
        "sum": lambda column: np.sum(column, axis=-1),
        "once": lambda column: column[..., 0],
    }
    return table[name]


def fact(values: Sequence[float], statistic: Statistic) -> Interval:
    """A statistic that has no spread, such as a file's size: a value without bounds."""
    [column] = _arrays([values])
    return Interval(value=float(statistic(column)), n=len(values))


def interval(columns: Sequence[Sequence[float]], statistic: Statistic, *, seed: int) -> Interval:
    """A statistic of one or more columns that are resampled together, row by row."""
    return _interval(_arrays(columns), statistic, seed)


def difference(
    ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]], statistic: Statistic, *, seed: int
) -> Interval:
    """The paired difference `ours - theirs` of a statistic on the same rows."""
    first, second = _arrays(ours), _arrays(theirs)

    def paired(*columns: Column) -> Any:
        return statistic(*columns[: len(first)]) - statistic(*columns[len(first) :])

    return _interval([*first, *second], paired, seed)


def _interval(arrays: list[Column], statistic: Statistic, seed: int) -> Interval:
    import numpy as np

    n = len(arrays[0])
    value = float(statistic(*arrays))
    if n < MINIMUM_N:
        return Interval(value=value, n=n)
    draws = np.concatenate([statistic(*(array[rows] for array in arrays)) for rows in _resamples(n, seed)])
    tail = (1 - LEVEL) / 2 * 100
    low, high = np.nanpercentile(draws, [tail, 100 - tail])
    return Interval(value=value, n=n, low=float(low), high=float(high))


def _arrays(columns: Sequence[Sequence[float]]) -> list[Column]:
    import numpy as np

    return [np.asarray(column, dtype=np.float64) for column in columns]


def _resamples(n: int, seed: int) -> Iterator[Any]:
    """Row numbers of every resample, `(some, n)` at a time so that memory stays bounded."""
    import numpy as np

    random = np.random.default_rng(seed)
    some = max(1, min(RESAMPLES, BLOCK // n))
    for start in range(0, RESAMPLES, some):
        yield random.integers(0, n, size=(min(some, RESAMPLES - start), n))
