"""How answers become accuracy metrics: one module a task, named as the task. Metrics carry the field's own names.

A module states which column holds the right answer and which metric is its headline, reads the right answers, scores
the answers against them, and says which part of an answer can be compared for being the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import Any, Protocol, cast

from edgeml.errors import EdgemlError
from edgeml.stats import Statistic, statistic_of
from edgeml_runtime.types import Absent, Generate, Record, Row


class Score(Record, frozen=True, kw_only=True):
    """One metric: the columns it is computed from, one entry a row, and the statistic that joins them."""

    metric: str
    unit: str
    columns: tuple[tuple[float, ...], ...]
    statistic_name: str
    statistic: Statistic

    @property
    def is_right_or_wrong(self) -> bool:
        """Whether it is the share of rows that are right, so that exact tests of proportions apply."""
        return self.statistic_name == "mean" and len(self.columns) == 1 and set(self.columns[0]) <= {0.0, 1.0}


class Scorer(Protocol):
    """One module a task. `GOLD` is the column of right answers, `HEADLINE` the metric that judges with them."""

    GOLD: str | None
    HEADLINE: str

    def read_gold(self, rows: Sequence[Row]) -> tuple[Any, ...]:
        """The right answers, of rows that all have the column; raises EdgemlError for one that cannot be."""

    def scores(self, answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:
        """The metrics of one run's answers; `gold` is empty where the data has none."""

    def essence(self, answer: Any) -> str | None:
        """The part of an answer that is the same as another's or not; None where answers only differ by degree."""


def scorer_of(task: str) -> Scorer:
    """The module that scores a task's answers."""
    return cast("Scorer", import_module(f"edgeml.scores.{task.replace('-', '_')}"))


def gold(task: str, rows: Sequence[Row], labels: Sequence[str] = ()) -> tuple[Any, ...]:
    """What the data says the answers should be; empty where the task or the data has no such column.

    Where the model has `labels`, right answers are some of those. A scorer that wants it so has a function `named`.
    Raises EdgemlError with the row that alone lacks a right answer (null is none), or has one that cannot be.
    """
    scorer = scorer_of(task)
    column = scorer.GOLD
    if column is None or all(_is_absent(row.get(column)) for row in rows):
        return ()
    for index, row in enumerate(rows):
        if _is_absent(row.get(column)):
            raise EdgemlError(f"row {index + 1} has no {column}, others have", hint="complete the column, or drop it")
    found = scorer.read_gold(rows)
    named: Callable[[Any, Sequence[str]], tuple[Any, ...]] | None = getattr(scorer, "named", None)
    return named(found, labels) if named and labels else found


def _is_absent(value: Any) -> bool:
    """Whether a cell holds no right answer: a CSV file has no other way to say so than to leave it blank."""
    return value is None or (isinstance(value, str) and not value.strip())


def unscored(task: str, expected: Sequence[Any]) -> list[Absent]:
    """The accuracy metric that cannot be had because the data has no right answers."""
    scorer = scorer_of(task)
    if expected or scorer.GOLD is None:
        return []
    hint = f"give --data with a column {scorer.GOLD}, or map one: --columns YOURS={scorer.GOLD}"
    return [Absent(metric=scorer.HEADLINE, reason=f"the data has no column {scorer.GOLD!r}", hint=hint)]


def scores(task: str, answers: Sequence[Any], expected: Sequence[Any], generate: Generate) -> list[Score]:
    """The metrics of one run's answers."""
    return scorer_of(task).scores(answers, expected, generate)


def scores_by_baseline(
    task: str, answers: Sequence[Any], expected: Sequence[Any], generate: Generate, beside: Sequence[Any]
) -> list[Score]:
    """The further metrics of a run's answers that a baseline's, to the same rows, show to be meant.

    So a variant whose answers are broken has a value where its baseline has one. A scorer that can tell has a function
    `scores_beside`.
    """
    scorer = scorer_of(task)
    compared: Callable[..., list[Score]] | None = getattr(scorer, "scores_beside", None)
    if compared is None:
        return []
    own = {one.metric for one in scorer.scores(answers, expected, generate)}
    return [one for one in compared(answers, expected, generate, beside) if one.metric not in own]


def score(metric: str, columns: Sequence[Sequence[float]], name: str, statistic: Statistic) -> Score:
    """A metric without a unit."""
    rows = tuple(tuple(float(value) for value in column) for column in columns)
    return Score(metric=metric, unit="1", columns=rows, statistic_name=name, statistic=statistic)


def share(metric: str, right: Sequence[bool]) -> Score:
    """The share of rows that are right."""
    return score(metric, [[float(value) for value in right]], "mean", statistic_of("mean"))


def known_label(label: str, labels: Sequence[str], row: int) -> str:
    """One of the model's labels: that label, or the one at the place that `3` or `LABEL_3` stands for.

    Raises EdgemlError for any other, naming its row and the nearest known.
    """
    if label in labels:
        return label
    place = label.removeprefix("LABEL_")
    if place.isascii() and place.isdigit() and int(place) < len(labels):
        return labels[int(place)]
    near = get_close_matches(label, labels, n=1, cutoff=0)
    hint = f"the nearest of its {len(labels)} labels is {near[0]!r}; one may also be given by its place, from 0"
    raise EdgemlError(f"row {row} has the label {label!r}, which the model does not know", hint=hint)


def as_text(value: Any) -> str:
    """A right answer as text: JSON in one spelling, so that equal values are equal texts."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
