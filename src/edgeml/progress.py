"""How long work reports itself. Verbs call it; only the command line decides what it looks like."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Told that `done` of `total` units of `step` are finished; `total` 0 means that the end is not known."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


def silent(step: str, done: int, total: int) -> None:
    """The default: a library call prints nothing."""


def within(progress: Progress, name: str) -> Progress:
    """Reports every step as one of `name`, so that the same step of two things can be told apart."""

    def named(step: str, done: int, total: int) -> None:
        progress(f"{name}: {step}", done, total)

    return named


class Counter:
    """Adds up what is done, chunk by chunk, and reports the sum."""

    def __init__(self, progress: Progress, step: str, total: int) -> None:
        self._progress, self._step, self._total, self._done = progress, step, total, 0

    def __call__(self, amount: int) -> None:
        """Add one chunk."""
        self._done += amount
        self._progress(self._step, self._done, self._total)
