"""Sentence similarity: two texts in, the cosine of their vectors out.

Method: every text is embedded alone (batch of one); the answer of a row is the cosine of its two vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.encoding import (
    cost,
    embedded,
    encoder,
    first,
    packed,
    texts_of,
    throughput,
    tokens,
    truncated,
    work,
)

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats, Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Generate, Job, Row

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "work"]

COLUMNS = ("sentence1", "sentence2")
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """The cosine of each row."""
    texts, found = texts_of(job), embedded(session, job, tick)
    unique = list(dict.fromkeys(texts))
    samples, warnings = truncated(encoder(session), unique, rows=len(job.rows))
    speed = throughput(encoder(session).embed, unique, job)
    return Answers(
        values=tuple(from_vectors(session, job, found)),
        samples=(speed, *samples, tokens(encoder(session), texts, rows=len(job.rows))),
        warnings=tuple(warnings),
        vectors=packed(found),
    )


def from_vectors(session: Session, job: Job, found: Floats) -> list[Any]:  # noqa: ARG001 - one signature for all
    """The answers that those vectors, one a text of `texts_of`, stand for."""
    return [_cosine(found[2 * row], found[2 * row + 1]) for row in range(len(job.rows))]


def again(session: Session, job: Job, changed: Sequence[tuple[int, Row]], tick: Tick) -> list[Any]:
    """The answers to changed rows, each with the index of the row that it takes the place of."""
    asked = replace(job, rows=tuple(row for _, row in changed))
    return from_vectors(session, asked, embedded(session, asked, tick))


def predict(session: Session, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The cosine of a pair, or the vector of a single text."""
    if "text" in row:
        return encoder(session).embed([row["text"]])[0].tolist()
    pair = encoder(session).embed([row["sentence1"]])[0], encoder(session).embed([row["sentence2"]])[0]
    return _cosine(*pair)


def _cosine(first: Floats, second: Floats) -> float:
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else 0.0
