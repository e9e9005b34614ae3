"""Sentence similarity, judged by correlation with people's scores (STS Benchmark; Cer and others, SemEval-2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.scores import Score, score
from edgeml_runtime.types import Generate, Row

GOLD = "score"
HEADLINE = "spearman"


def read_gold(rows: Sequence[Row]) -> tuple[float, ...]:
    """The score of each row, a finite number; raises EdgemlError where all are equal."""
    values = tuple(_number(row[GOLD], index) for index, row in enumerate(rows))
    if len(set(values)) < 2:
        raise EdgemlError("every row has the same score, so nothing correlates", hint="give rows with different scores")
    return values


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`spearman` and `pearson`: correlation of the cosines with the scores; ties get their mean rank."""
    if not gold:
        return []
    columns = (answers, gold)
    return [score("spearman", columns, "spearman", spearman), score("pearson", columns, "pearson", pearson)]


def essence(answer: Any) -> None:
    """None: cosines differ by degree."""


def spearman(first: Any, second: Any) -> Any:
    """Rank correlation over the last axis; ties get their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(first, axis=-1), rankdata(second, axis=-1))


def pearson(first: Any, second: Any) -> Any:
    """Correlation over the last axis."""
    import numpy as np

    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample of equal values has no correlation: NaN, which the interval leaves out.
        return (first * second).sum(axis=-1) / scale


def _number(value: Any, index: int) -> float:
    problem = f"row {index + 1} has score {value!r}, which is no finite number"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise EdgemlError(problem, hint="fix the score column") from error
    if not math.isfinite(number):
        raise EdgemlError(problem, hint="fix the score column")
    return number
