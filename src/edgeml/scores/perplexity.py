"""Perplexity is sampled by the task itself, a value a chunk: there is no answer to score."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score
from edgeml_runtime.types import Generate, Row

GOLD = None
HEADLINE = "perplexity"


def read_gold(rows: Sequence[Row]) -> tuple[()]:  # noqa: ARG001 - one signature for all
    """Nothing."""
    return ()


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """Nothing."""
    return []


def essence(answer: Any) -> None:
    """None: there are no answers."""
