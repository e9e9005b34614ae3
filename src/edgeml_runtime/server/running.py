"""From a folder to an endpoint that answers, and to its end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import uvicorn
from starlette.routing import Route

from edgeml_runtime.bundle import GOLDENS, MANIFEST, variant_folder
from edgeml_runtime.errors import EdgemlError, why
from edgeml_runtime.machine import default_threads
from edgeml_runtime.selftest import selftest
from edgeml_runtime.server import logs
from edgeml_runtime.server.app import Service, application
from edgeml_runtime.server.connections import protocol
from edgeml_runtime.server.corrections import routes
from edgeml_runtime.server.settings import Settings, read_token
from edgeml_runtime.server.work import Line
from edgeml_runtime.session import open_session

_KEEP_ALIVE_S = 30
_HEADER_BYTES = 16_384
_LAST_WORD_S = 1.0  # for the refusals of what is not answered at the end
_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM") if hasattr(signal, name))


def serve(folder: Path, settings: Settings) -> None:
    """Prove a bundle, or open a variant's folder, and answer requests until SIGTERM or SIGINT.

    Raises EdgemlError before anything listens: for a token that others may read, a port that is taken, and then for a
    self-test that fails.
    """
    token = read_token(settings)
    logs.set_up()
    with _listening(settings) as listener:
        _prove(folder)
        asyncio.run(run(folder, settings, token, listener))


async def run(folder: Path, settings: Settings, token: str | None, listener: socket.socket) -> None:
    """Answer requests at a socket until the process is asked to end."""
    async with opened(folder, settings) as service:
        with routes(service) as more:
            server = server_of(service, token, more, begun=lambda: _say_ready(service, listener))
            with _asked_to_end(server, service):
                await server.serve(sockets=[listener])
    logs.say("stopped")


@contextlib.asynccontextmanager
async def opened(folder: Path, settings: Settings) -> AsyncIterator[Service]:
    """The service of a bundle's or a variant's folder, its model loaded; it keeps prompts' beginnings where it can."""
    variant = variant_folder(folder)
    line = Line(waiting=settings.queue, standing=settings.standing_queue, time_limit_s=settings.time_limit_s)
    try:
        session = await line.first(lambda: open_session(variant, threads=settings.threads or default_threads()))
        try:
            if hasattr(session, "keep"):
                session.keep(settings.kept_bytes)
            yield Service(session, settings, line, created=int((variant / "variant.json").stat().st_mtime))
        finally:
            line.close()
            session.close()
    finally:
        line.close()


def server_of(
    service: Service,
    token: str | None = None,
    more: Sequence[Route] = (),
    *,
    begun: Callable[[], None] | None = None,
) -> Server:
    """The server with this endpoint's application, its `more` routes, and bounds; `begun` is called once it listens."""
    settings = service.settings
    config = uvicorn.Config(
        application(service, token, more),
        http=protocol(settings, service.metrics),
        loop="asyncio",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=settings.stop_s + _LAST_WORD_S,  # type: ignore[arg-type] # asyncio takes parts of a second
        h11_max_incomplete_event_size=_HEADER_BYTES,
    )
    return Server(config, service, begun)


class Server(uvicorn.Server):
    """uvicorn, whose own way with signals ends the process by them: a service that stops as asked exits with 0."""

    def __init__(self, config: uvicorn.Config, service: Service, begun: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._service = service
        self._begun = begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        if self._begun:
            self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more requests, and refuse those that are not answered in time."""
        asyncio.get_running_loop().call_later(self._service.settings.stop_s, self._service.line.end)
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing: `run` sees to them."""
        yield


@contextlib.contextmanager
def _asked_to_end(server: Server, service: Service) -> Iterator[None]:
    loop = asyncio.get_running_loop()

    def end() -> None:
        service.ready = False
        server.should_exit = True
        _tell_systemd("STOPPING=1")

    for number in _ENDING:
        loop.add_signal_handler(number, end)
    if hasattr(signal, "pthread_sigmask"):  # whoever started this process may have held them back
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    try:
        yield
    finally:
        for number in _ENDING:
            loop.remove_signal_handler(number)


def _say_ready(service: Service, listener: socket.socket) -> None:
    logs.say(f"{service.manifest.name} is served at {_address(listener)}")
    _tell_systemd("READY=1")


def _prove(folder: Path) -> None:
    """Run the self-test of a bundle; a variant's own folder has none."""
    if (folder / MANIFEST).is_file() or (folder / GOLDENS).is_file():
        passed = selftest(folder)
        logs.say(f"self-test passed: {passed.files} files intact, agreement {passed.agreement:.6f}")
    else:
        logs.say("no self-test: this is a variant's folder, not a bundle")


@contextlib.contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    """A bound socket, which nobody can connect to before the server listens at it."""
    host = settings.host.strip("[]")
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family[0], socket.SOCK_STREAM)
    except OSError as error:
        raise EdgemlError(f"{host} is no address of this machine: {why(error)}", hint="--host 127.0.0.1") from error
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(family[4])
        except OSError as error:
            problem = f"cannot listen at {host} port {settings.port}: {error.strerror}"
            raise EdgemlError(problem, hint="choose another one: --port 8081") from error
        yield listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _tell_systemd(state: str) -> None:
    """Tell whoever supervises this service (sd_notify(3)); nobody does where the variable is not set."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path or not hasattr(socket, "AF_UNIX"):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify, contextlib.suppress(OSError):
        notify.sendto(state.encode(), "\0" + path[1:] if path.startswith("@") else path)
