"""Feature extraction, judged by 1-nearest-neighbour classification (Cover and Hart, 1967)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score, as_text, share
from edgeml_runtime.types import Generate, Row

GOLD = "label"
HEADLINE = "nearest_accuracy"


def read_gold(rows: Sequence[Row]) -> tuple[str, ...]:
    """The label of each row."""
    return tuple(as_text(row[GOLD]) for row in rows)


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`nearest_accuracy`: the share of rows whose nearest other row, or reference row, has the same label."""
    if not gold:
        return []
    return [share(HEADLINE, [label_of(answer, gold) == label for answer, label in zip(answers, gold, strict=True)])]


def label_of(answer: Any, gold: Sequence[str]) -> str:
    """The label of the nearest row, which the answer says itself where that is a reference row."""
    return as_text(answer["label"]) if "label" in answer else gold[answer["nearest"]]


def essence(answer: Any) -> str:
    """Which row is the nearest."""
    return f"row {answer['nearest'] + 1}"
