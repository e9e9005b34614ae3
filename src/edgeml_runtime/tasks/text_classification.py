"""Text classification: a text in, its likeliest label and that label's probability out.

Method: every text is classified alone; the probability is the softmax of the logits, so one label out of several.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.encoding import latency, singles, texts_of, throughput, tokens, truncated, vectors

if TYPE_CHECKING:
    from edgeml_runtime.session import Classifier, Floats, Session
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Generate, Job, Row, Samples

COLUMNS = ("text",)
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False
_CLASSIFIED = "text in, logits out (tokenizer, graph)"


def first(session: Session, job: Job) -> None:
    """Classify one text."""
    classifier(session).classify(texts_of(job)[:1])


def cost(session: Session, job: Job) -> list[Samples]:
    """Latency of single texts."""
    return [latency(classifier(session).classify, texts_of(job), job, what=_CLASSIFIED)]


def work(session: Session, job: Job) -> Work:
    """Single texts, classified."""
    return singles(classifier(session).classify, texts_of(job), job)


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """For each row its `label` and the label's probability, `score`."""
    model, texts = classifier(session), texts_of(job)
    logits = vectors(model, texts, tick)
    samples, warnings = truncated(model, texts, rows=len(job.rows))
    return Answers(
        values=tuple(from_vectors(session, job, logits)),
        samples=(throughput(model.classify, texts, job), *samples, tokens(model, texts, rows=len(job.rows))),
        warnings=tuple(warnings),
    )


def from_vectors(session: Session, job: Job, found: Floats) -> list[Any]:  # noqa: ARG001 - one signature for all
    """The answers that those logits, a text each, stand for."""
    return [likeliest(row, session.manifest.labels) for row in found]


def predict(session: Session, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The label of a text and its probability."""
    model = classifier(session)
    return likeliest(model.classify([row["text"]])[0], model.manifest.labels)


def classifier(session: Session) -> Classifier:
    """The session as a classifier; refuses a model that gives no label."""
    if not hasattr(session, "classify"):
        task = session.manifest.task
        raise EdgemlError(f"{session.manifest.name} gives texts no labels", hint=f"edgeml bench --task {task}")
    return cast("Classifier", session)


def likeliest(logits: Any, labels: Sequence[str]) -> dict[str, Any]:
    """The label of the largest of the logits, and its softmax."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    best = int(logits.argmax())
    return {"label": labels[best], "score": float(powers[best] / powers.sum())}
