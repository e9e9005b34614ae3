"""Feature extraction: a text in, its vector out; judged by whether the nearest other text has the same label.

Method: every text is embedded alone; for each row the row with the largest cosine among all others is found
(leave-one-out), and its index and cosine are the answer. Of rows that are equally near, as equal texts are, the first.
With reference rows, the nearest is sought among those instead, and the answer says its label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from edgeml_runtime.errors import EdgemlError
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
    unit,
    work,
)

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats, Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Generate, Job, Row

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "work"]

COLUMNS = ("text",)
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False
_SOME = 1024  # rows compared with all others at once
_TIE = 1e-6  # cosines of equal vectors differ by so much in float32, by their place in the matrix product


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """For each row the index of its nearest other row, and their cosine; raises EdgemlError for a single row."""
    texts = texts_of(job)
    if len(texts) < 2 and not job.reference_rows:
        raise EdgemlError("a single text has no nearest other", hint="give at least two rows")
    found = embedded(session, job, tick)
    samples, warnings = truncated(encoder(session), texts, rows=len(job.rows))
    speed = throughput(encoder(session).embed, texts, job)
    return Answers(
        values=tuple(from_vectors(session, job, found)),
        samples=(speed, *samples, tokens(encoder(session), texts, rows=len(job.rows))),
        warnings=tuple(warnings),
        vectors=packed(found),
    )


def from_vectors(session: Session, job: Job, found: Floats) -> list[Any]:
    """The answers that those vectors, one a text of `texts_of`, stand for."""
    if job.reference_rows:
        return _among_references(session, job, found)
    return _nearest(found, found, range(len(found)))


def again(session: Session, job: Job, changed: Sequence[tuple[int, Row]], tick: Tick) -> list[Any]:
    """The answers to changed rows, each among all others as they were, with the index of the row that it replaces."""
    queries = embedded(session, replace(job, rows=tuple(row for _, row in changed)), tick)
    if job.reference_rows:
        return _among_references(session, job, queries)
    return _nearest(embedded(session, job, tick), queries, [index for index, _ in changed])


def _among_references(session: Session, job: Job, queries: Floats) -> list[Any]:
    references = embedded(session, replace(job, rows=job.reference_rows), _quiet)
    found = _nearest(references, queries, None)
    return [{**answer, "label": job.reference_rows[answer["nearest"]].get("label")} for answer in found]


def _nearest(found: Floats, queries: Floats, rows: Sequence[int] | None) -> list[Any]:
    """For each query the nearest of the rows, but of the one that it stands for; some at a time to bound the memory."""
    found, queries, values = unit(found), unit(queries), []
    for start in range(0, len(queries), _SOME):
        near = queries[start : start + _SOME] @ found.T  # (some, rows) cosines
        if rows is not None:
            near[np.arange(len(near)), np.asarray(rows[start : start + _SOME])] = -np.inf
        best = (near >= near.max(1, keepdims=True) - _TIE).argmax(1)
        values += [{"nearest": int(index), "cosine": float(near[row, index])} for row, index in enumerate(best)]
    return values


def _quiet(step: str, done: int, total: int) -> None:
    """The references are no rows of the data: nothing to report."""


def predict(session: Session, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The vector of a text."""
    return encoder(session).embed([row["text"]])[0].tolist()
