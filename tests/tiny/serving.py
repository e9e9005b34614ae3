"""The endpoint in a thread of this process, at a real socket; and requests to it, byte by byte where that matters."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from edgeml_runtime.server.app import Service
from edgeml_runtime.server.corrections import routes
from edgeml_runtime.server.running import opened, server_of
from edgeml_runtime.server.settings import Settings


class Answer(NamedTuple):
    """A response."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        """Its body."""
        return json.loads(self.text)

    @property
    def error(self) -> dict[str, Any]:
        """The refusal in it."""
        found: dict[str, Any] = self.json["error"]
        return found


class Served(NamedTuple):
    """A running endpoint."""

    port: int
    service: Service

    @property
    def url(self) -> str:
        """Where OpenAI's client finds it."""
        return f"http://127.0.0.1:{self.port}/v1"

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """The response to a body: bytes as they are, anything else as JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.ask("POST", path, content, **{"content-type": "application/json", **headers})

    def ask(self, method: str, path: str, content: bytes = b"", **headers: str) -> Answer:
        """The response to a request; header names are written with underscores."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as connection:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, content, named)
            response = connection.getresponse()
            told = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, told, response.read().decode())

    def raw(self, content: bytes) -> bytes:
        """All that comes back for some bytes, until the endpoint closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall(content)
            return b"".join(iter(lambda: connection.recv(65536), b""))


@contextmanager
def served(
    folder: Path, *, token: str | None = None, system_keeps: int | None = None, **settings: Any
) -> Iterator[Served]:
    """The endpoint of a variant's folder, until the block ends; the system keeps so many bytes that nobody has read."""
    box: queue.Queue[Any] = queue.Queue()
    listener = socket.create_server(("127.0.0.1", 0))
    if system_keeps:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, system_keeps)
    wanted = Settings(port=listener.getsockname()[1], **{"threads": 1, **settings})

    async def run() -> None:
        async with opened(folder, wanted) as service:
            with routes(service) as more:
                server = server_of(service, token, more)
                box.put((server, service))
                await server.serve(sockets=[listener])

    def work() -> None:
        try:
            asyncio.run(run())
        except BaseException as error:
            box.put(error)
            raise

    thread = threading.Thread(target=work)
    thread.start()
    found = box.get(timeout=20)
    if isinstance(found, BaseException):
        raise found
    server, service = found
    try:
        yield Served(wanted.port, service)
    finally:
        server.should_exit = True
        thread.join(20)
