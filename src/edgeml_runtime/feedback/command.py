"""What the command `feedback` of a bundle does, on the device itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.feedback.store import FeedbackStore
from edgeml_runtime.rows import read_rows


def kept(settings: FeedbackSettings | None) -> dict[str, int]:
    """How many items there are of each kind."""
    store = _store(settings)
    try:
        return store.counts() or {"items": 0}
    finally:
        store.close()


def erase(settings: FeedbackSettings | None, ids: Sequence[str], inputs: Path | None) -> dict[str, int]:
    """Remove the items of those ids, and all whose input is a row of the file `inputs`; how many there were."""
    rows = read_rows(inputs) if inputs else []
    store = _store(settings)
    try:
        count = sum(store.erase(id=id) for id in ids) + sum(store.erase(input=row) for row in rows)
    finally:
        store.close()
    return {"erased": count}


def _store(settings: FeedbackSettings | None) -> FeedbackStore:
    if settings is None or not Path(settings.file).exists():
        raise EdgemlError("no feedback is kept here", hint="the table [feedback] of the configuration names its file")
    return FeedbackStore(Path(settings.file), settings)
