"""What a row that goes wholly wrong costs a metric, so that verdicts leave room for such rows where none was seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from edgeml.scores import Score

# Nats: what a guess among 160 000 tokens, about as many as today's models know, costs.
WRONG_TOKEN = 12.0
_TRIED = 41  # rows of a correlation that are broken, evenly over their scores


def cost_of_a_row(score: Score) -> float:
    """By how much a broken row lowers the metric, times the number of rows; at least 1, as of a share of rows.

    `score` is the baseline's. Which change of one row is meant, by the metric's statistic:

    `mean`: a value of 1 becomes 0. `spearman`, `pearson`: the answer becomes the run's lowest or highest, whichever
    does more harm; the mean over rows, so whatever breaks is taken to do so at any score. Where it were the outermost
    rows alone, one would cost up to 6. `f1`, `share`: every entity, or word, of a row becomes a wrong one; rows count
    by what they hold (sum of squares by sum), so it is taken to break rows whatever their length. `rate`: as
    many words as were said are wrong, though an answer that never ends may have more. `macro_f1`: a right row of the
    label that loses most gets the label that suffers most from it, a rare one.
    """
    cost = {"f1": _f1, "share": _share, "rate": _rate, "macro_f1": _macro_f1}
    cost |= {"spearman": _correlation, "pearson": _correlation}
    of: Callable[[Score], float] = cost.get(score.statistic_name, lambda _: 1.0)
    return max(of(score), 1.0)


def cost_of_a_token(score: Score, value: float, parts: int) -> float:
    """By how much a wrong token raises the mean of a text, or lowers `same_top`, times the number of tokens.

    `score` is the variant's, `value` the baseline's, `parts` the scored tokens of a chunk. A wrong token costs
    WRONG_TOKEN nats of `kl_divergence`, and of the logarithm of a perplexity. What compares with the baseline shows
    how far wrong tokens come in clumps (the variance of chunks by that of single tokens): they count that often, and
    twice, which simulations asked for.
    """
    import numpy as np

    if score.statistic_name == "exp_mean":
        return WRONG_TOKEN * value
    cost = WRONG_TOKEN if score.unit == "nat" else 1.0
    apart = np.abs(_columns(score)[0] - value)
    clumps = float(apart.var(ddof=1) * parts / (apart.mean() * cost)) if apart.any() else 1.0
    return 2 * cost * max(clumps, 1.0)


def _f1(score: Score) -> float:
    right, given, wanted = _columns(score)
    return _by_size(right, float(given.sum() + wanted.sum()) / 2)


def _share(score: Score) -> float:
    right, all_words = _columns(score)
    return _by_size(right, float(all_words.sum()))


def _rate(score: Score) -> float:
    _, all_words = _columns(score)
    return _by_size(all_words, float(all_words.sum()))


def _by_size(right: Any, whole: float) -> float:
    return float(len(right) * (right**2).sum() / right.sum() / whole) if right.any() else 0.0


def _macro_f1(score: Score) -> float:
    import numpy as np

    labels = np.unique(score.columns)
    if len(labels) == 1:
        return len(score.columns[0]) / 2  # any other label has an F1 of 0
    columns = [np.searchsorted(labels, column) for column in _columns(score)]
    right = np.bincount(columns[0][columns[0] == columns[1]], minlength=len(labels))
    both = sum(np.bincount(column, minlength=len(labels)) for column in columns)
    before = 2 * right / both
    lost = np.where(right > 0, before - 2 * (right - 1) / np.maximum(both - 1, 1), -np.inf)
    falls = lost[:, None] + (before - 2 * right / (both + 1))  # (label it had, label it gets)
    np.fill_diagonal(falls, -np.inf)
    return float(len(columns[0]) * falls.max() / len(labels))


def _correlation(score: Score) -> float:
    import numpy as np

    answers, gold = _columns(score)
    n = len(answers)
    rows = np.argsort(gold, kind="stable")[np.linspace(0, n - 1, min(_TRIED, n)).round().astype(int)]
    base, falls = float(score.statistic(answers, gold)), []
    for row in rows:
        broken = np.stack([answers, answers])
        broken[:, row] = answers.min(), answers.max()
        falls.append(base - float(np.nanmin(score.statistic(broken, gold))))
    return float(n * np.mean(falls))


def _columns(score: Score) -> list[Any]:
    import numpy as np

    return [np.asarray(column, dtype=np.float64) for column in score.columns]
