"""An answer as it is written, in server-sent events. A client that goes away ends the writing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.server.openai import event
from edgeml_runtime.server.refusals import RefusedError, stopping, wrong

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

    from edgeml_runtime.server.generation import Answered
    from edgeml_runtime.server.openai import Shape
    from edgeml_runtime.server.work import Ask, Line

DONE = b"data: [DONE]\n\n"
_LAST_WORD_S = 1.0  # for a client that read nothing until its time was over
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")],
}


class Stream:
    """The response to one request. What goes wrong before the first part has a status of its own, later an event."""

    def __init__(
        self, line: Line, ask: Ask[Answered], shape: Shape, *, tell_usage: bool, answered: Callable[[Answered], None]
    ) -> None:
        self._line = line
        self._ask = ask
        self._shape = shape
        self._tell_usage = tell_usage
        self._answered = answered
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - ASGI's signature
        """Send the answer as it comes."""
        with self._line.place(self._ask) as done:
            gone = asyncio.ensure_future(left(receive))

            def end(_: asyncio.Future[None]) -> None:
                done.cancel()

            gone.add_done_callback(end)
            self._line.ending.add_done_callback(end)
            try:
                async with asyncio.timeout(self._line.time_limit_s):
                    await self._send_all(done, send)
            except TimeoutError:
                await self._send_refusal(self._line.late(self._ask), send)
            except asyncio.CancelledError:
                if self._line.ending.done():
                    await self._send_refusal(stopping(), send)
                elif not gone.done():  # else it is the client that ended it
                    raise
            finally:
                self._line.ending.remove_done_callback(end)
                gone.cancel()

    async def _send_all(self, done: asyncio.Future[Answered], send: Send) -> None:
        try:
            async for text in self._ask.parts(done):
                await self._send([self._shape.part(text)], send)
        except (EdgemlError, RefusedError) as error:
            refusal = error if isinstance(error, RefusedError) else wrong(f"{error.message}: {error.hint}")
            await self._send_refusal(refusal, send)
            return
        answered = done.result()
        self._answered(answered)
        await self._send(self._shape.end(answered, tell_usage=self._tell_usage), send)
        await send({"type": "http.response.body", "body": DONE})

    async def _send(self, shapes: Iterable[dict[str, Any]], send: Send) -> None:
        if not self._begun:
            self._begun = True
            await send(_START)
            shapes = [*self._shape.begin(), *shapes]
        for shape in shapes:
            await send({"type": "http.response.body", "body": event(shape), "more_body": True})

    async def _send_refusal(self, refusal: RefusedError, send: Send) -> None:
        if not self._begun:
            raise refusal
        with suppress(TimeoutError):
            async with asyncio.timeout(_LAST_WORD_S):
                await send({"type": "http.response.body", "body": event(refusal.shape())})


async def left(receive: Receive) -> None:
    """Returns once the client is gone, or has its response."""
    while (await receive())["type"] != "http.disconnect":
        pass
