"""Feature extraction: a text in, its vector out; judged by whether the nearest other text has the same label.

Method: every text is embedded alone; for each row the row with the largest cosine among all others is found
(leave-one-out), and its index and cosine are the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.encoding import cost, encoder, first, texts_of, throughput, truncated, vectors, work

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Generate, Job, Row

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "work"]

COLUMNS = ("text",)
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False


def answers(session: Encoder | Decoder, job: Job, tick: Tick) -> Answers:
    """For each row the index of its nearest other row, and their cosine; raises EdgemlError for a single row."""
    texts = texts_of(job)
    if len(texts) < 2:
        raise EdgemlError("a single text has no nearest other", hint="give at least two rows")
    found = vectors(encoder(session), texts, tick)
    found = found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)
    near = found @ found.T  # (rows, rows) cosines
    np.fill_diagonal(near, -np.inf)
    best = near.argmax(1)
    values = tuple({"nearest": int(index), "cosine": float(near[row, index])} for row, index in enumerate(best))
    samples, warnings = truncated(encoder(session), texts, rows=len(job.rows))
    return Answers(
        values=values, samples=(throughput(encoder(session).embed, texts, job), *samples), warnings=tuple(warnings)
    )


def predict(session: Encoder | Decoder, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The vector of a text."""
    return encoder(session).embed([row["text"]])[0].tolist()
