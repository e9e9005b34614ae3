"""Sentence similarity: two texts in, the cosine of their vectors out.

Method: every text is embedded alone (batch of one); the answer of a row is the cosine of its two vectors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.encoding import cost, encoder, first, texts_of, throughput, truncated, vectors, work

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Floats
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Generate, Job, Row

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "work"]

COLUMNS = ("sentence1", "sentence2")
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False


def answers(session: Encoder | Decoder, job: Job, tick: Tick) -> Answers:
    """The cosine of each row."""
    texts = texts_of(job)
    unique = list(dict.fromkeys(texts))
    found = dict(zip(unique, vectors(encoder(session), unique, tick), strict=True))
    cosines = tuple(_cosine(found[row["sentence1"]], found[row["sentence2"]]) for row in job.rows)
    samples, warnings = truncated(encoder(session), unique, rows=len(job.rows))
    return Answers(
        values=cosines, samples=(throughput(encoder(session).embed, unique, job), *samples), warnings=tuple(warnings)
    )


def predict(session: Encoder | Decoder, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The cosine of a pair, or the vector of a single text."""
    if "text" in row:
        return encoder(session).embed([row["text"]])[0].tolist()
    pair = encoder(session).embed([row["sentence1"]])[0], encoder(session).embed([row["sentence2"]])[0]
    return _cosine(*pair)


def _cosine(first: Floats, second: Floats) -> float:
    scale = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / scale if scale else 0.0
