"""Connections that cost nothing: too many of them are turned away, and so is one that never finishes its headers.

Who does not read what was written is cut off. uvicorn bounds neither the time that headers or reading take nor, but
with a 503, how many connections there are.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from edgeml_runtime.server.metrics import Metrics
    from edgeml_runtime.server.settings import Settings

ROUTE = "connection"  # where these are counted: they never came to a route
_AT_ONCE = struct.pack("ii", 1, 0)  # l_onoff, l_linger of socket(7): nothing that is unread is kept for the other side


class Bounded(H11Protocol):
    """uvicorn's protocol over h11, with bounds."""

    settings: Settings
    metrics: Metrics
    _timer: asyncio.TimerHandle | None = None
    _reading: asyncio.TimerHandle | None = None
    _one_too_many = False

    def connection_made(self, transport: Any) -> None:
        """Take a connection."""
        super().connection_made(transport)
        # A response is written in two parts, and the second would wait 40 ms for the client's delayed acknowledgement;
        # asyncio sets this only on sockets that were made with TCP's number.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport.set_write_buffer_limits(high=0)  # writing pauses, and `_unread` waits, for any byte that is not taken
        self._one_too_many = len(self.connections) > self.settings.connections
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take what came; who is turned away is told now, since who is closed upon while writing reads nothing."""
        if self._one_too_many and not self.transport.is_closing():
            self._turn_away(429, b"Too Many Requests", b"retry-after: 1\r\n")
        elif not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The end."""
        self._unwatch()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The system takes no more of what was written, since the client does not read."""
        super().pause_writing()
        self._wait_for_reading()

    def resume_writing(self) -> None:
        """All of it was taken."""
        if self._reading is not None:
            self._reading.cancel()
            self._reading = None
        super().resume_writing()

    def on_response_complete(self) -> None:
        """The end of a response, which may have come before that of the body it refuses."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:  # an idle connection is uvicorn's to end
            self._watch()

    def _watch(self) -> None:
        """Wait for the end of headers, or of a body that was answered already; once it is there, no more."""
        if not self._is_waited_for or self.transport.is_closing():
            self._unwatch()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.settings.read_timeout_s, self._late)

    def _unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    @property
    def _is_waited_for(self) -> bool:
        return self.conn.their_state is h11.IDLE or (
            self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE
        )

    def _late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.their_state is h11.IDLE:
            self._turn_away(408, b"Request Timeout")
        elif self._is_waited_for:
            self.transport.close()

    def _wait_for_reading(self) -> None:
        left = self.transport.get_write_buffer_size()
        self._reading = self.loop.call_later(self.settings.write_timeout_s, self._unread, left)

    def _unread(self, before: int) -> None:
        if self.transport.get_write_buffer_size() < before:  # slow, but at it
            self._wait_for_reading()
            return
        with suppress(OSError):  # closed by now, or a system with another layout
            self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _AT_ONCE)
        self.transport.abort()

    def _turn_away(self, status: int, reason: bytes, more: bytes = b"") -> None:
        self.metrics.request(ROUTE, status, 0.0)
        head = b"HTTP/1.1 %d %s\r\nconnection: close\r\ncontent-length: 0\r\n%s\r\n"
        self.transport.write(head % (status, reason, more))
        self.transport.close()


def protocol(settings: Settings, metrics: Metrics) -> type[asyncio.Protocol]:
    """The protocol with these settings' bounds: uvicorn makes one a connection, and gives it nothing of ours."""
    return type("BoundedHere", (Bounded,), {"settings": settings, "metrics": metrics})
