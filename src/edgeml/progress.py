"""How long work reports itself. Verbs call it; only the command line decides what it looks like."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told that `done` of `total` units of `step` are finished; `total` 0 means that the end is not known."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def silent(step: str, done: int, total: int) -> None:
    """The default: a library call prints nothing."""
