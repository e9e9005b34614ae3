"""What the endpoint hands to the store: a correction that was posted, or an answer of its own."""

from __future__ import annotations

from typing import Any

from edgeml_runtime.feedback.confidence import confidence_of
from edgeml_runtime.feedback.types import Entry, Posted
from edgeml_runtime.types import Row, VariantManifest


def corrected(posted: Posted, served: VariantManifest, task: str) -> Entry:
    """A correction of an answer that `served` gave; `task` is the one it is served for."""
    return Entry(
        kind="correction",
        task=posted.task or task,
        input=posted.input,
        answer=posted.answer,
        correction=posted.correction,
        model=served.name,
        variant_sha256=served.weights_sha256,
        confidence=confidence_of(posted.task or task, posted.answer),
    )


def answered(row: Row, answer: Any, served: VariantManifest, task: str) -> Entry:
    """An answer as `FeedbackStore.capture` wants it, which keeps it if it was unsure."""
    return Entry(
        kind="low-confidence",
        task=task,
        input=row,
        answer=answer,
        model=served.name,
        variant_sha256=served.weights_sha256,
        confidence=confidence_of(task, answer),
    )
