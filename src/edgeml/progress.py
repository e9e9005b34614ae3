"""How long work reports itself. Verbs call it; only the command line decides what it looks like."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

_BEAT_S = 1.0
_WINDOW_S = 60.0  # a pace is that of the last minute, or of the last half of the time where that is longer


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


@contextmanager
def beating(progress: Progress) -> Iterator[Progress]:
    """What a block is to report to: its last report is repeated each second in which it says nothing.

    So a clock moves where a library works for minutes without a word. Not for a block that measures time.
    """
    last: list[tuple[str, int, int]] = []
    said, over, lock = threading.Event(), threading.Event(), threading.Lock()

    def report(step: str, done: int, total: int) -> None:
        with lock:
            last[:] = [(step, done, total)]
            said.set()
            progress(step, done, total)

    def beat() -> None:
        while not over.wait(_BEAT_S):
            with lock:
                if last and not said.is_set() and not over.is_set():
                    progress(*last[0])
                said.clear()

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield report
    finally:
        over.set()
        thread.join()


class Counter:
    """Adds up what is done, chunk by chunk, and reports the sum."""

    def __init__(self, progress: Progress, step: str, total: int) -> None:
        self._progress, self._step, self._total, self._done = progress, step, total, 0

    def __call__(self, amount: int) -> None:
        """Add one chunk."""
        self._done += amount
        self._progress(self._step, self._done, self._total)


class Pace:
    """How fast one step goes, from what was done when."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._began_s: float | None = None

    def note(self, now_s: float, done: int) -> None:
        """Note that at `now_s` so much was done."""
        self._began_s = now_s if self._began_s is None else self._began_s
        if not self._seen or done != self._seen[-1][1]:
            self._seen.append((now_s, done))
        window_s = max(_WINDOW_S, (now_s - self._began_s) / 2)
        while len(self._seen) > 2 and self._seen[1][0] < now_s - window_s:
            self._seen.popleft()

    def left_s(self, now_s: float, total: int) -> float | None:
        """Seconds until `total` at the pace so far; None where it is not known yet, or the end is not.

        Nor is it known any more when so much time has gone by without a word that all should have been done.
        """
        (began_s, first), (last_s, done) = (self._seen[0], self._seen[-1]) if self._seen else ((0.0, 0), (0.0, 0))
        if not total or done <= first or last_s <= began_s:
            return None
        left_s = (last_s - began_s) / (done - first) * (total - done) - (now_s - last_s)
        return left_s if left_s >= 0 else None
