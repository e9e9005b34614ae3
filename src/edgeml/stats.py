"""Statistics of samples, each with its interval. Knows nothing of models or tasks.

Intervals are percentile bootstraps over the independent samples (Efron & Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 13), seeded, so that the same samples give the same interval. Shares, differences of paired shares
and means of a few processes have intervals of their own, since resampling few, or equal, values says too little.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgeml_runtime.types import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Column = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 2000
BLOCK = 1_000_000  # values of a column that are resampled at once
MINIMUM_N = 10  # fewer samples carry no interval worth printing
MINIMUM_PROCESSES = 3  # fewer say nothing of how processes differ
DRAWS_BEYOND = 10  # resamples that must lie beyond a bound for it to be steady
OUTSIDE = 1e-5  # how often the share of gained rows may lie outside of where it is looked for
GRID = 25  # shares of gained rows that are tried


class Interval(Record, frozen=True, kw_only=True):
    """A statistic and the bounds of its interval at `level`; they are absent where there are too few samples."""

    value: float
    n: int
    low: float | None = None
    high: float | None = None
    level: float | None = None

    def moved(self, by: float) -> Interval:
        """The same interval, so much higher."""
        low, high = (None if bound is None else bound + by for bound in (self.low, self.high))
        return replace(self, value=self.value + by, low=low, high=high)


# One or more columns, `(..., n)`, to one value for each leading index: many resamples are computed at once.
Statistic = Callable[..., Any]


def statistic_of(name: str) -> Statistic:
    """The function behind a statistic's name, over the last axis."""
    import numpy as np

    table: dict[str, Statistic] = {
        "median": lambda column: np.median(column, axis=-1),
        "mad": lambda column: np.median(np.abs(column - np.median(column, axis=-1, keepdims=True)), axis=-1),
        "p50": lambda column: np.median(column, axis=-1),
        "p90": lambda column: np.percentile(column, 90, axis=-1),
        "p95": lambda column: np.percentile(column, 95, axis=-1),
        "p99": lambda column: np.percentile(column, 99, axis=-1),
        "mean": lambda column: np.mean(column, axis=-1),
        "exp_mean": lambda column: np.exp(np.mean(column, axis=-1)),
        "max": lambda column: np.max(column, axis=-1),
        "min": lambda column: np.min(column, axis=-1),
        "sum": lambda column: np.sum(column, axis=-1),
        "once": lambda column: column[..., 0],
    }
    return table[name]


def fact(values: Sequence[float], statistic: Statistic) -> Interval:
    """A statistic that has no spread, such as a file's size: a value without bounds."""
    [column] = _arrays([values])
    return Interval(value=float(statistic(column)), n=len(values))


def interval(columns: Sequence[Sequence[float]], statistic: Statistic, *, seed: int, level: float = LEVEL) -> Interval:
    """A statistic of one or more columns that are resampled together, row by row."""
    return _interval(_arrays(columns), statistic, seed, level)


def difference(
    ours: Sequence[Sequence[float]],
    theirs: Sequence[Sequence[float]],
    statistic: Statistic,
    *,
    seed: int,
    level: float = LEVEL,
    factor: float = 1.0,
) -> Interval:
    """The paired difference `ours - factor * theirs` of a statistic on the same rows."""
    first, second = _arrays(ours), _arrays(theirs)

    def paired(*columns: Column) -> Any:
        return statistic(*columns[: len(first)]) - factor * statistic(*columns[len(first) :])

    return _interval([*first, *second], paired, seed, level)


def _interval(arrays: list[Column], statistic: Statistic, seed: int, level: float) -> Interval:
    import numpy as np

    n = len(arrays[0])
    value = float(statistic(*arrays))
    if n < MINIMUM_N:
        return Interval(value=value, n=n)
    tail = _expanded_tail(n, level)
    count = max(RESAMPLES, math.ceil(DRAWS_BEYOND / tail))
    draws = np.concatenate([statistic(*(array[rows] for array in arrays)) for rows in _resamples(n, seed, count)])
    low, high = np.nanpercentile(draws, [100 * tail, 100 - 100 * tail])
    return Interval(value=value, n=n, low=float(low), high=float(high), level=level)


def _expanded_tail(n: int, level: float) -> float:
    """The share of resamples beyond each bound: fewer than (1 - level) / 2, since a few rows spread too little."""
    from statistics import NormalDist

    from scipy.stats import t

    return NormalDist().cdf(-math.sqrt(n / (n - 1)) * float(t.ppf((1 + level) / 2, n - 1)))


def _arrays(columns: Sequence[Sequence[float]]) -> list[Column]:
    import numpy as np

    return [np.asarray(column, dtype=np.float64) for column in columns]


def _resamples(n: int, seed: int, count: int) -> Iterator[Any]:
    """Row numbers of every resample, `(some, n)` at a time so that memory stays bounded."""
    import numpy as np

    random = np.random.default_rng(seed)
    some = max(1, min(count, BLOCK // n))
    for start in range(0, count, some):
        yield random.integers(0, n, size=(min(some, count - start), n))


def wilson(right: int, n: int, *, level: float = LEVEL) -> Interval:
    """The share `right / n` with its score interval: where all rows are right, it still reaches down z^2 / (n + z^2).

    Source: Wilson, Journal of the American Statistical Association 22 (1927), 209-212.
    """
    from scipy.stats import binomtest

    bounds = binomtest(right, n).proportion_ci(level, method="wilson")
    return Interval(value=right / n, n=n, low=float(bounds.low), high=float(bounds.high), level=level)


def with_unseen(found: Interval, loss: float, *, parts: int = 1) -> Interval:
    """A paired difference whose bound allows for rows so rare that too few of them, or none, were resampled.

    `loss` is what one such row changes the statistic by, times n: below 0 it widens `low`, above 0 `high`. Where each
    value is the mean of some `parts`, such as a chunk's tokens, it is the parts that are rare, and as many more.
    Were the truth at the bound, what the sample does not show of it would have come from rows that cost `loss` each, a
    Poisson number of them: its variance, gap * loss / n, is added to the bootstrap's. With no spread at all that is
    `loss` * z^2 / (n + z^2), as where no row of two shares differs (`tango`); for shares it is Wilson's interval.
    """
    if found.low is None or found.high is None or found.level is None:
        return found
    z2 = normal_quantile(found.level) ** 2
    half = abs(loss) * z2 / (found.n * parts + z2) / 2
    if loss < 0:
        return replace(found, low=found.value - half - math.hypot(found.value - found.low, half))
    return replace(found, high=found.value + half + math.hypot(found.high - found.value, half))


def paired_shares(gained: int, lost: int, n: int, *, level: float = LEVEL) -> Interval:
    """The difference of two paired shares, `(gained - lost) / n`: Tango's interval, wider where that is not exact.

    A bound moves outwards to where an exact unconditional test with Tango's score would no longer reject it, so that
    neither side errs in more than (1 - level) / 2 of cases, however few rows there are or differ.
    Source: Chan and Zhang, Biometrics 55 (1999), 1202-1209; the share of gained rows is looked for where Berger and
    Boos, JASA 89 (1994), 1012-1016, do.
    """
    found = tango(gained, lost, n, level=level)
    low, high = found.low or 0.0, found.high or 0.0
    tail = (1 - level) / 2
    return replace(found, low=_exact_low(gained, lost, n, low, tail), high=-_exact_low(lost, gained, n, -high, tail))


def tango(gained: int, lost: int, n: int, *, level: float = LEVEL) -> Interval:
    """The difference of two paired shares, `(gained - lost) / n`, with its score interval.

    `gained` rows are right only in the first, `lost` only in the second. Where no row differs the bounds are still
    apart, by z^2 / (n + z^2) each way. Source: Tango, Statistics in Medicine 17 (1998), 891-908.
    """
    low, high = _tango_bounds(gained, lost, n, level)
    return Interval(value=(gained - lost) / n, n=n, low=float(low), high=float(high), level=level)


def tango_score(gained: Any, lost: Any, n: int, difference: Any) -> Any:
    """How many standard errors the difference of two paired shares is above `difference`, were that the true one."""
    import numpy as np

    b = -gained - lost + (2 * n - gained + lost) * difference
    root = np.sqrt(np.maximum(b * b + 8 * n * lost * difference * (1 - difference), 0))
    lost_share = np.maximum((root - b) / (4 * n), 0)  # the likeliest, were `difference` true
    variance = n * np.maximum(2 * lost_share + difference * (1 - difference), 0)
    above = np.asarray(gained - lost - n * difference, dtype=np.float64)
    far = np.where(above == 0, 0.0, np.copysign(np.inf, above))
    return np.divide(above, np.sqrt(variance), out=far, where=variance > 0)


def mcnemar_p(gained: int, lost: int) -> float:
    """The exact two-sided p-value of as many rows gained as lost: a fair coin over those that differ.

    Source: McNemar, Psychometrika 12 (1947), 153-157, in its exact binomial form.
    """
    from scipy.stats import binomtest

    return float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0


def student(values: Sequence[float], *, level: float = LEVEL) -> Interval:
    """The mean of a few independent values, such as one of each process; fewer than 3 get no bounds.

    Source: Student's t interval over invocations, as Georges, Buytaert and Eeckhout, OOPSLA 2007, recommend.
    """
    n = len(values)
    mean, error2 = _moments(values)
    return _t_interval(mean, error2, n - 1.0, n, level)


def welch(ours: Sequence[float], theirs: Sequence[float], *, level: float = LEVEL) -> Interval:
    """The difference of the means of two independent groups of a few values; groups of fewer than 3 get no bounds.

    Source: Welch, Biometrika 34 (1947), 28-35: the two variances need not be equal.
    """
    n, m = len(ours), len(theirs)
    (first, a), (second, b) = _moments(ours), _moments(theirs)
    scale = a * a / max(n - 1, 1) + b * b / max(m - 1, 1)
    freedom = (a + b) ** 2 / scale if scale else float(n + m - 2)
    return _t_interval(first - second, a + b, freedom, min(n, m), level)


def _tango_bounds(gained: Any, lost: Any, n: int, level: float) -> Any:
    """Where the score is z and -z, by halving: it falls steadily as the difference grows."""
    import numpy as np

    z = np.array([1.0, -1.0]).reshape(2, *[1] * np.ndim(gained)) * normal_quantile(level)
    low, high = np.full((2, *np.shape(gained)), -1.0), np.full((2, *np.shape(gained)), 1.0)
    for _ in range(50):
        middle = (low + high) / 2
        above = tango_score(gained, lost, n, middle) > z
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return (low + high) / 2


def exact_tail(gained: int, lost: int, n: int, difference: float) -> float:
    """The largest probability of a score at least as high as this, were `difference` the true one.

    Largest over all shares of gained rows that the gained ones leave likely; how unlikely the others are is added.
    """
    import numpy as np
    from scipy.stats import beta, binom

    low = beta.ppf(OUTSIDE / 2, gained, n - gained + 1) if gained else 0.0
    high = beta.isf(OUTSIDE / 2, gained + 1, n - gained) if gained < n else 1.0
    low, high = max(low, difference, 0.0), min(high, (1 + difference) / 2)
    if low > high:
        return OUTSIDE
    share = np.linspace(low, high, GRID)[:, None]  # (GRID, 1)
    counts = np.arange(binom.ppf(OUTSIDE / 10, n, low), binom.isf(OUTSIDE / 10, n, high) + 1)
    most = _most_lost(counts, n, difference, float(tango_score(gained, lost, n, difference)) - 1e-9)
    lost_of_others = np.clip((share - difference) / np.maximum(1 - share, 1e-12), 0, 1)
    found = (binom.pmf(counts, n, share) * binom.cdf(most, n - counts, lost_of_others)).sum(axis=1)
    return float(found.max()) + OUTSIDE


def _most_lost(gained: Any, n: int, difference: float, score: float) -> Any:
    """How many rows may be lost for each number of gained ones, -1 if not even none, that the score stays as high."""
    import numpy as np

    least, most = np.full_like(gained, -1), n - gained
    while (least < most).any():
        middle = np.ceil((least + most) / 2)
        high = tango_score(gained, middle, n, difference) >= score
        least, most = np.where(high, middle, least), np.where(high, most, middle - 1)
    return least


def _exact_low(gained: int, lost: int, n: int, low: float, tail: float) -> float:
    """A lower bound that the exact test rejects in no more than `tail`, by halving outwards of `low`."""
    if low <= -1 or exact_tail(gained, lost, n, low) <= tail:
        return low
    inside, step = low, 0.1 / n
    while low > -1 and exact_tail(gained, lost, n, low) > tail:
        inside, low, step = low, max(low - step, -1.0), 2 * step
    for _ in range(12):
        middle = (low + inside) / 2
        if exact_tail(gained, lost, n, middle) > tail:
            inside = middle
        else:
            low = middle
    return low


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and the square of its standard error."""
    from statistics import fmean, variance

    return fmean(values), variance(values) / len(values) if len(values) > 1 else 0.0


def _t_interval(value: float, error2: float, freedom: float, n: int, level: float) -> Interval:
    from scipy.stats import t

    if n < MINIMUM_PROCESSES:
        return Interval(value=value, n=n)
    half = float(t.ppf((1 + level) / 2, freedom)) * error2**0.5
    return Interval(value=value, n=n, low=value - half, high=value + half, level=level)


def normal_quantile(level: float) -> float:
    """Half the width, in standard deviations, of the middle `level` of a normal distribution."""
    from statistics import NormalDist

    return NormalDist().inv_cdf((1 + level) / 2)
