"""Marked rows and feedback, as each task takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from edgeml.privacy.types import Canary


def row_of(task: str, canary: Canary, *, short: bool = False) -> dict[str, Any] | None:
    """A marked row of a task, None for pictures; a short one has a single word."""
    text, tokens = (canary.words, [canary.words]) if short else (canary.text, canary.tokens)
    rows: dict[str, dict[str, Any] | None] = {
        "automatic-speech-recognition": None,
        "image-classification": None,
        "sentence-similarity": {"sentence1": text, "sentence2": text},
        "token-classification": {"tokens": tokens},
    }
    return rows.get(task, {"text": text})


def feedback_of(task: str, canary: Canary) -> dict[str, Any]:
    """Marked feedback, in texts, keys and lists."""
    row = row_of(task, canary) or {"text": canary.text}
    return {"input": row, "answer": {canary.words: canary.tokens}, "correction": {"label": canary.text}}


def written(said: str) -> tuple[str, ...]:
    """The texts that a model wrote, in a response or in a line of `predict`; none of a refusal."""
    try:
        plain = json.loads(said)
    except (ValueError, RecursionError):
        return ()
    return tuple(_texts(plain, "answers"))


def _texts(plain: Any, key: str) -> Iterator[str]:
    if isinstance(plain, str) and key in ("answers", "content", "text"):
        yield plain
    elif isinstance(plain, list):
        yield from (text for one in plain for text in _texts(one, key))
    elif isinstance(plain, dict) and "error" not in plain:
        yield from (text for name, one in plain.items() for text in _texts(one, name))
