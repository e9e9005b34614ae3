"""Durations by the monotonic clock, one call at a time: warm-ups until they are steady, repeats, and their drift.

Warm-ups: as many as asked for, over the data in turn, so that buffers grow to what the data needs. Then one item alone,
since the data's lengths would hide it, until the median of the last five is within 2 % of that of the five before; at
most four times the asked warm-ups or three seconds. Where it ends at that limit while the last five are all faster, or
all slower, than the five before, the times were not steady; anything less is noise.
Drift: the repeats are cut into fifteen blocks in their order. They drifted when the medians of the last five blocks all
lie on one side of those of the first five, and both thirds differ by 5 % or more. Where order means nothing that
happens in less than 1 % of runs: 2 of the 252 ways to choose five of ten blocks. The data must come in an order that is
drawn, else its lengths are a drift. Source: Mann and Whitney, 1947, for the test of two samples by ranks, here at its
extreme; medians of blocks because neighbours in time are alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle, islice
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")

WINDOW = 5
STEADY = 0.02
MOST_WARMUPS = 4  # times those asked for
LONGEST_WARMUP_S = 3.0
BLOCKS = 15
DRIFT = 0.05
_FEWEST = 2 * BLOCKS  # repeats; of fewer, nothing is said


class Loop(NamedTuple):
    """Seconds of each warm-up and of each repeat, and why the repeats should not be trusted."""

    warmups: list[float]
    repeats: list[float]
    marks: tuple[str, ...]


def timed_s(call: Callable[[], object]) -> float:
    """Seconds that one call takes."""
    begin = perf_counter()
    call()
    return perf_counter() - begin


def _itself(item: Any) -> Any:
    return item


def steady_s(
    call: Callable[[Any], object],
    items: Sequence[T],
    *,
    warmups: int,
    repeats: int,
    prepare: Callable[[T], Any] = _itself,
) -> Loop:
    """Seconds of warm-ups and repeats over `items` in turn; only `prepare`, untimed, is done between two calls."""
    turns = cycle(items)
    warm = [_seconds(call, prepare(item)) for item in islice(turns, warmups)]
    more = _settled(partial(_seconds, call), prepare(items[0]), most=MOST_WARMUPS * warmups)
    times = [_seconds(call, prepare(item)) for item in islice(turns, repeats)]
    return Loop([*warm, *more], times, (*_unsteady(more, warmups), *drift(times)))


def drift(values: list[float]) -> tuple[str, ...]:
    """A mark where the values, in their order, drifted; empty where they did not, and for fewer than thirty."""
    if len(values) < _FEWEST:
        return ()
    blocks = [values[len(values) * block // BLOCKS : len(values) * (block + 1) // BLOCKS] for block in range(BLOCKS)]
    third = BLOCKS // 3
    first, last = [[median(block) for block in part] for part in (blocks[:third], blocks[-third:])]
    apart = min(last) > max(first) or max(last) < min(first)
    change = median(last) / median(first) - 1 if median(first) else 0.0
    return (f"drifted by {change:+.0%} over the run",) if apart and abs(change) >= DRIFT else ()


def _seconds(call: Callable[[Any], object], item: Any) -> float:
    begin = perf_counter()
    call(item)
    return perf_counter() - begin


def _settled(seconds: Callable[[Any], float], item: Any, *, most: int) -> list[float]:
    """Seconds of the further warm-ups; none where the limit leaves too few to judge."""
    times: list[float] = []
    begin = perf_counter()
    while most >= 2 * WINDOW and len(times) < most and not _steady(times):
        if perf_counter() - begin > LONGEST_WARMUP_S:
            break
        times.append(seconds(item))
    return times


def _steady(times: list[float]) -> bool:
    if len(times) < 2 * WINDOW:
        return False
    return abs(median(times[-WINDOW:]) / median(times[-2 * WINDOW : -WINDOW]) - 1) <= STEADY


def _unsteady(times: list[float], asked: int) -> tuple[str, ...]:
    if len(times) < 2 * WINDOW or _steady(times):
        return ()
    last, before = times[-WINDOW:], times[-2 * WINDOW : -WINDOW]
    apart = max(last) < min(before) or min(last) > max(before)
    return (f"not steady after {asked + len(times)} warm-ups",) if apart else ()
