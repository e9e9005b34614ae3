"""Power that is read again and again: a thread that sleeps between readings, and the integral over them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from threading import Event, Thread
from time import perf_counter

from edgeml_runtime.errors import counted
from edgeml_runtime.meters import Reading, absent
from edgeml_runtime.types import Absent

Point = tuple[float, float]  # seconds, and what was read then
_LATE = 3  # a gap of so many periods is no longer covered by its two readings


class Sampler:
    """Calls `read` every `period_s` between `start` and `stop`; a `read` that gives None is left out.

    `points` are what was read and when, the last of them after the window `ended`.
    """

    def __init__(self, read: Callable[[], float | None], *, period_s: float) -> None:
        self._read = read
        self.period_s = period_s
        self.points: list[Point] = []
        self._ending = Event()
        self._thread: Thread | None = None
        self.began = self.ended = 0.0

    def start(self) -> None:
        """Take the first reading and go on in the background."""
        self.points, self._ending = [], Event()
        self.began = perf_counter()
        self._take()
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> tuple[float, float]:
        """Take the last reading; when the window began and ended, by the clock of `points`."""
        self.ended = perf_counter()
        self._ending.set()
        if self._thread:
            self._thread.join()
        self._take()
        return self.began, self.ended

    def reading(self, fewest: int, sensor: str) -> Reading | Absent:
        """Joules of the window that ends now, of readings in watts; absent, naming the sensor, where too few came."""
        begin, end = self.stop()
        points = self.points
        if len(points) < fewest:
            reason = f"{sensor} gave {counted(len(points), 'reading')} in {end - begin:.0f} s, {fewest} are needed"
            return absent(reason, hint="ask for longer windows")
        held = coverage(points, begin, end, period_s=self.period_s)
        return Reading(joules=integral(points, begin, end), readings=len(points), coverage=held)

    def updates(self) -> int:
        """How often the value changed: a sensor that renews rarely is read many times with the same value."""
        return sum(one != other for (_, one), (_, other) in pairwise(list(self.points)))

    def _run(self) -> None:
        while not self._ending.wait(self.period_s):
            self._take()

    def _take(self) -> None:
        value = self._read()
        if value is not None:
            self.points.append((perf_counter(), value))


def integral(points: Sequence[Point], begin: float, end: float) -> float:
    """Area below the straight lines between the points, from `begin` to `end`; beyond them the outermost hold.

    Trapezoidal rule. `points` are in order of time and at least one.
    """
    edges = [begin, *(time for time, _ in points if begin < time < end), end]
    return sum(
        (later - earlier) * (_at(points, earlier) + _at(points, later)) / 2 for earlier, later in pairwise(edges)
    )


def coverage(points: Sequence[Point], begin: float, end: float, *, period_s: float) -> float:
    """Share of the window that lies between readings which followed each other in time."""
    if end <= begin:
        return 1.0
    edges = [begin, *(time for time, _ in points if begin < time < end), end]
    gaps = [later - earlier for earlier, later in pairwise(edges)]
    return sum(gap for gap in gaps if gap <= _LATE * period_s) / (end - begin)


def _at(points: Sequence[Point], time: float) -> float:
    from bisect import bisect_left

    place = bisect_left(points, time, key=lambda point: point[0])
    if place == len(points):
        return points[-1][1]
    after_time, after = points[place]
    if place == 0 or after_time == time:
        return after
    before_time, before = points[place - 1]
    return before + (after - before) * (time - before_time) / (after_time - before_time)
