"""One thread that owns the model, and a bounded line of requests before it.

What runs is never interrupted within a library's call: a request whose client is gone, or whose time is over, ends at
its next step. Everything but what is called in the model's thread belongs to the event loop's.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from threading import Event
from time import monotonic
from typing import Any, Generic, TypeVar

from edgeml_runtime.server.refusals import RefusedError, busy, late, stopping

T = TypeVar("T")
_PAST = 0.9  # weight of the past in the mean time that a request takes


class GivenUpError(Exception):
    """The end of work whose answer nobody waits for any more."""


class Ask(Generic[T]):
    """One request's work, called in the model's thread: it looks at `given_up` between its steps, and may `say` parts.

    Work that finds itself given up may raise GivenUpError, which nobody sees.
    """

    def __init__(self, work: Callable[[Ask[T]], T]) -> None:
        self.work = work
        self.given_up = Event()
        self.began = Event()
        self._loop = asyncio.get_running_loop()
        self._parts: asyncio.Queue[Any] = asyncio.Queue()

    def say(self, part: Any) -> None:
        """Give a part of the answer to whoever reads the parts."""
        self._loop.call_soon_threadsafe(self._parts.put_nowait, part)

    async def parts(self, done: asyncio.Future[T]) -> AsyncIterator[Any]:
        """What was said, as it comes; raises what the work raised."""
        end = object()
        done.add_done_callback(lambda _: self._parts.put_nowait(end))
        while (part := await self._parts.get()) is not end:
            yield part
        done.result()


class Line:
    """Does one request's work at a time, in the order of their arrival; at most `waiting` wait.

    That many are let in for a burst. A line that had no place for another one is asked for more than it can do: every
    place in it is then only time that an answer is late, so that no more than `standing` wait until it has been empty.
    Clients that never fill it are all let in, however long one of them takes. Source of the idea, which there goes by
    time: Maurer, "Fail at Scale", ACM Queue 13(8), 2015, controlled delay.
    """

    def __init__(self, *, waiting: int, time_limit_s: float, standing: int | None = None) -> None:
        self.time_limit_s = time_limit_s
        self._waiting = waiting
        self._standing = waiting if standing is None else min(standing, waiting)
        self._was_full = False
        self.ending: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")
        self._open: dict[Future[Any], Ask[Any]] = {}
        self._mean_s = 0.0

    @property
    def waiting(self) -> int:
        """Requests that wait for the one that runs."""
        return sum(not ask.began.is_set() for ask in self._open.values())

    @property
    def wait_s(self) -> int:
        """Whole seconds until the requests that are here now should be done, at least one."""
        return max(1, math.ceil(len(self._open) * self._mean_s))

    @contextmanager
    def place(self, ask: Ask[T]) -> Iterator[asyncio.Future[T]]:
        """A place in the line, and what will be the request's answer; whoever leaves has given it up.

        Raises the refusal of one request too many.
        """
        self._was_full = bool(self._open) and (self._was_full or len(self._open) > self._waiting)
        if len(self._open) > (self._standing if self._was_full else self._waiting):
            ask.given_up.set()  # others may have been about to answer it along with theirs
            raise busy(self.wait_s)
        future = self._thread.submit(self._do, ask)
        self._open[future] = ask
        loop = asyncio.get_running_loop()
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left, future))
        done = asyncio.wrap_future(future)
        try:
            yield done
        finally:
            ask.given_up.set()
            done.cancel()

    def late(self, ask: Ask[Any]) -> RefusedError:
        """The refusal of a request whose time is over."""
        return late(self.time_limit_s, self.wait_s, began=ask.began.is_set())

    async def answer(self, ask: Ask[T], gone: asyncio.Future[Any]) -> T | None:
        """What the request's work gives, or None once the client is gone; raises the refusal of a late one."""
        with self.place(ask) as done:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait((done, gone, self.ending), timeout=self.time_limit_s, return_when=first)
            if done.done():
                return done.result()
            if gone.done():
                return None
            raise stopping() if self.ending.done() else self.late(ask)

    async def first(self, work: Callable[[], T]) -> T:
        """What a call gives in the model's thread, before there are requests."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def end(self) -> None:
        """Refuse what is not answered yet."""
        if not self.ending.done():
            self.ending.set_result(None)

    def close(self) -> None:
        """End what waits, and what runs at its next step."""
        for ask in self._open.values():
            ask.given_up.set()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _do(self, ask: Ask[T]) -> T:
        began_s = monotonic()
        ask.began.set()
        try:
            return ask.work(ask)
        finally:
            took_s = monotonic() - began_s
            self._mean_s = _PAST * self._mean_s + (1 - _PAST) * took_s if self._mean_s else took_s

    def _left(self, future: Future[Any]) -> None:
        self._open.pop(future, None)
