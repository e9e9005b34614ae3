"""How answers become accuracy metrics, by task. Metrics carry the names that the field gives them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.stats import Statistic, statistic_of
from edgeml_runtime.types import Absent, Record, Row

Gold = float | str
_GOLD = {  # the column that holds the right answer, and the metric that is absent without it
    "sentence-similarity": ("score", "spearman"),
    "feature-extraction": ("label", "nearest_accuracy"),
    "text-generation": ("expected", "exact_match"),
}


class Score(Record, frozen=True, kw_only=True):
    """One metric: the columns it is computed from, one entry a row, and the statistic that joins them."""

    metric: str
    unit: str
    columns: tuple[tuple[float, ...], ...]
    statistic_name: str
    statistic: Statistic


def gold(task: str, rows: Sequence[Row]) -> tuple[Gold, ...]:
    """What the data says the answers should be; empty where the task or the data has no such column.

    Raises EdgemlError with the row that alone lacks a right answer (null is none), or has a score that is no number.
    """
    column, _ = _GOLD.get(task, (None, None))
    if column is None or all(row.get(column) is None for row in rows):
        return ()
    for index, row in enumerate(rows):
        if row.get(column) is None:
            raise EdgemlError(f"row {index + 1} has no {column}, others have", hint="complete the column, or drop it")
    if task == "sentence-similarity":
        return _varied(tuple(_number(row[column], index) for index, row in enumerate(rows)))
    return tuple(_text(row[column]) for row in rows)


def unscored(task: str, expected: Sequence[Gold]) -> list[Absent]:
    """The accuracy metric that cannot be had because the data has no right answers."""
    if expected or task not in _GOLD:
        return []
    column, metric = _GOLD[task]
    hint = f"give --data with a column {column}, or map one: --columns yours={column}"
    return [Absent(metric=metric, reason=f"the data has no column {column!r}", hint=hint)]


def scores(task: str, answers: Sequence[Any], expected: Sequence[Gold]) -> list[Score]:
    """The metrics of one run's answers."""
    if task == "sentence-similarity" and expected:
        columns = (tuple(answers), tuple(float(value) for value in expected))
        return [_score("spearman", columns, "spearman", _spearman), _score("pearson", columns, "pearson", _pearson)]
    if task == "feature-extraction" and expected:
        right = [expected[answer["nearest"]] == label for answer, label in zip(answers, expected, strict=True)]
        return [_share("nearest_accuracy", right)]
    if task == "text-generation":
        found = [_share("contract.valid", [_json(answer["text"]) is not None for answer in answers])]
        if expected:
            right = [_matches(answer["text"], str(want)) for answer, want in zip(answers, expected, strict=True)]
            found.append(_share("exact_match", right))
        return found
    return []


def _score(metric: str, columns: tuple[tuple[float, ...], ...], name: str, statistic: Statistic) -> Score:
    return Score(metric=metric, unit="1", columns=columns, statistic_name=name, statistic=statistic)


def _share(metric: str, right: Sequence[bool]) -> Score:
    return _score(metric, (tuple(float(value) for value in right),), "mean", statistic_of("mean"))


def _spearman(first: Any, second: Any) -> Any:
    from scipy.stats import rankdata

    return _pearson(rankdata(first, axis=-1), rankdata(second, axis=-1))


def _pearson(first: Any, second: Any) -> Any:
    import numpy as np

    first = first - first.mean(axis=-1, keepdims=True)
    second = second - second.mean(axis=-1, keepdims=True)
    scale = np.sqrt((first**2).sum(axis=-1) * (second**2).sum(axis=-1))
    with np.errstate(invalid="ignore", divide="ignore"):
        # A resample of equal values has no correlation: NaN, which the interval leaves out.
        return (first * second).sum(axis=-1) / scale


def _matches(text: str, want: str) -> bool:
    ours, theirs = _json(text), _json(want)
    return ours == theirs if theirs is not None else text.strip() == want.strip()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _number(value: Any, index: int) -> float:
    problem = f"row {index + 1} has score {value!r}, which is no finite number"
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise EdgemlError(problem, hint="fix the score column") from error
    if not math.isfinite(number):
        raise EdgemlError(problem, hint="fix the score column")
    return number


def _varied(values: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(values)) < 2:
        raise EdgemlError("every row has the same score, so nothing correlates", hint="give rows with different scores")
    return values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
