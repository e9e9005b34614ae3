"""Durations by the monotonic clock, one call at a time."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle, islice
from time import perf_counter
from typing import TypeVar

T = TypeVar("T")


def timed_s(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begin = perf_counter()
    call()
    return perf_counter() - begin


def steady_s(
    call: Callable[[T], object], items: list[T], *, warmups: int, repeats: int
) -> tuple[list[float], list[float]]:
    """Seconds of each warm-up and of each repeat, over `items` in turn, with nothing done between two calls."""
    times: list[float] = []
    for item in islice(cycle(items), warmups + repeats):
        begin = perf_counter()
        call(item)
        times.append(perf_counter() - begin)
    return times[:warmups], times[warmups:]
