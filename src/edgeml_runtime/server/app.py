"""The routes of the endpoint: what is asked at each, and what it answers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec
import numpy as np
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.server import logs, openai
from edgeml_runtime.server.access import Gate, refused
from edgeml_runtime.server.batching import Batcher, batch_tokens
from edgeml_runtime.server.bodies import body, parsed
from edgeml_runtime.server.generation import Answered, write
from edgeml_runtime.server.metrics import CONTENT_TYPE, Metrics
from edgeml_runtime.server.predict import Predict, answers, checked
from edgeml_runtime.server.refusals import RefusedError, wrong
from edgeml_runtime.server.streams import Stream, left
from edgeml_runtime.server.work import Ask, Line
from edgeml_runtime.session import is_encoder, kind_of
from edgeml_runtime.types import Record

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from edgeml_runtime.server.settings import Settings
    from edgeml_runtime.session import Decoder, Encoder, Session
    from edgeml_runtime.types import Row

T = TypeVar("T")
R = TypeVar("R", bound=Record)
GONE = 499  # nginx' status of a request whose client went away; nobody reads it but the log


class Service:
    """One opened model and what stands before it. `created` is when its variant was made, in seconds since 1970.

    `told` is called with each row that was predicted, its task and its answer: feedback may keep what is unsure.
    """

    def __init__(self, session: Session, settings: Settings, line: Line, *, created: int) -> None:
        self.session = session
        self.manifest = session.manifest
        self.settings = settings
        self.line = line
        self.metrics = Metrics(lambda: line.waiting)
        self.created = created
        self.ready = True
        self.told: Callable[[Row, str, Any], Awaitable[None]] | None = None
        limit = batch_tokens(settings, session.manifest)
        self.batcher = Batcher(cast("Encoder", session), limit) if is_encoder(session.manifest) else None

    async def health(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """The process lives."""
        return PlainTextResponse("alive\n")

    async def readiness(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """Whether requests are taken: the self-test passed, the model is loaded, and the end has not begun."""
        return PlainTextResponse("ready\n" if self.ready else "stopping\n", 200 if self.ready else 503)

    async def counts(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """What was counted, for Prometheus."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def models(self, request: Request) -> Response:  # noqa: ARG002 - Starlette's signature
        """The one model."""
        return _json(openai.models(self.manifest.name, self.created))

    async def chat(self, request: Request) -> Response | Stream:
        """An answer to a conversation."""
        asked = await self._asked(request, openai.Chat, "decoder")
        return await self._write(request, asked, openai.ChatShape(self.manifest.name))

    async def completions(self, request: Request) -> Response | Stream:
        """A text that goes on."""
        asked = await self._asked(request, openai.Completion, "decoder")
        return await self._write(request, asked, openai.CompletionShape(self.manifest.name))

    async def embeddings(self, request: Request) -> Response:
        """Vectors of texts."""
        asked = await self._asked(request, openai.Embeddings, "encoder")
        texts = asked.texts
        self._require_few(len(texts), "input")
        if self.batcher is None:
            raise AssertionError
        found = await self._answer(request, self.batcher.ask(texts))
        if found is None:
            return Response(status_code=GONE)
        _require_numbers(found.vectors)
        width = found.vectors.shape[1]
        if asked.dimensions not in (None, width):
            raise wrong(f"the vectors have {width} dimensions, and are not made shorter here", "dimensions")
        self._count(request, rows=len(texts), read=found.tokens)
        shape = openai.embeddings(found.vectors, found.tokens, self.manifest.name, asked.encoding_format)
        return _json(shape)

    async def predict(self, request: Request) -> Response:
        """The model's answer to each row."""
        asked = await self._asked(request, Predict, None)
        self._require_few(len(asked.rows), "rows")
        task, rows = checked(asked, self.manifest)
        room = {"context_tokens": self.settings.context_tokens, "max_new_tokens": self.settings.max_new_tokens}
        work = partial(answers, self.session, asked, task, rows)
        found = await self._answer(request, Ask[list[Any]](lambda ask: work(ask, **room)))
        if found is None:
            return Response(status_code=GONE)
        values = [value for value, _, _ in found]
        _require_numbers(values)
        self._count(request, rows=len(rows), read=sum(one[1] for one in found), written=sum(one[2] for one in found))
        if self.told:
            for row, value in zip(asked.rows, values, strict=True):
                await self.told(row, task, value)
        return _json({"model": self.manifest.name, "task": task, "answers": values})

    async def _asked(self, request: Request, kind: type[R], opens_as: str | None) -> R:
        """The body of a request for the served model; `opens_as` is the kind of model that the route needs."""
        if opens_as is not None and kind_of(self.manifest.task) != opens_as:
            use = "/v1/embeddings" if self.batcher else "/v1/predict"
            raise RefusedError(404, f"{self.manifest.name} does {self.manifest.task}: POST {use}", code="other_task")
        asked = parsed(await body(request, self.settings), kind)
        name = getattr(asked, "model", None)
        if name not in (None, self.manifest.name):
            message = f"the model here is {self.manifest.name}: name it, or leave the name out"
            raise RefusedError(404, message, code="model_not_found", place="model")
        return asked

    async def _write(
        self, request: Request, asked: openai.Chat | openai.Completion, shape: openai.Shape
    ) -> Response | Stream:
        wanted = asked.asked(self.settings.max_new_tokens)
        work = partial(write, cast("Decoder", self.session), wanted)
        ask = Ask[Answered](lambda ask: work(ask, self.settings.context_tokens))
        if asked.stream:
            counted = partial(self._count_answer, request)
            return Stream(self.line, ask, shape, tell_usage=asked.usage_wanted, answered=counted)
        found = await self._answer(request, ask)
        if found is None:
            return Response(status_code=GONE)
        self._count_answer(request, found)
        return _json(shape.whole(found))

    async def _answer(self, request: Request, ask: Ask[T]) -> T | None:
        gone = asyncio.ensure_future(left(request.receive))
        try:
            return await self.line.answer(ask, gone)
        finally:
            gone.cancel()

    def _require_few(self, count: int, place: str) -> None:
        if count > self.settings.rows:
            raise wrong(f"{count} are too many for one request: at most {self.settings.rows}", place)

    def _count_answer(self, request: Request, found: Answered) -> None:
        self._count(request, read=found.prompt_tokens, kept=found.reused, written=found.tokens)

    def _count(self, request: Request, **counts: int) -> None:
        request.scope["edgeml.counts"].update(counts)
        self.metrics.tokens({kind: count for kind, count in counts.items() if kind != "rows"})


class Watched:
    """Counts every request, and writes its line."""

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: Sequence[Route]) -> None:
        self._app = app
        self._metrics = metrics
        self._known = {route.path for route in routes}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s, status = perf_counter(), 500
        counts: dict[str, int] = {}
        scope["edgeml.counts"] = counts

        async def watching(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, watching)
        finally:
            took_s = perf_counter() - began_s
            route = scope["path"] if scope["path"] in self._known else "other"
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self._metrics.request(route, status, took_s)
            logs.request(method, route, status, took_s, counts)


def application(service: Service, token: str | None = None, more: Sequence[Route] = ()) -> Starlette:
    """The whole endpoint; `more` are routes beside its own."""
    routes = [
        Route("/health", service.health),
        Route("/ready", service.readiness),
        Route("/metrics", service.counts),
        Route("/v1/models", service.models),
        Route("/v1/chat/completions", service.chat, methods=["POST"]),
        Route("/v1/completions", service.completions, methods=["POST"]),
        Route("/v1/embeddings", service.embeddings, methods=["POST"]),
        Route("/v1/predict", service.predict, methods=["POST"]),
        *more,
    ]
    middleware = [
        Middleware(Watched, service.metrics, routes),
        Middleware(Gate, service.settings, token),
    ]
    handlers: dict[Any, Any] = {
        RefusedError: lambda _, error: refused(error),
        EdgemlError: lambda _, error: refused(wrong(f"{error.message}: {error.hint}")),
        HTTPException: lambda _, error: refused(RefusedError(error.status_code, error.detail, headers=error.headers)),
        ClientDisconnect: lambda _, __: Response(status_code=GONE),
        Exception: lambda _, __: refused(RefusedError(500, "this is a bug of the endpoint: its log says where")),
    }
    return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)


def _json(plain: Any) -> Response:
    return Response(msgspec.json.encode(plain), media_type="application/json")


def _require_numbers(found: Any) -> None:
    """Raise the refusal of an answer with something in it that is no number."""
    if not (np.isfinite(found).all() if isinstance(found, np.ndarray) else _is_finite(found)):
        raise RefusedError(500, "the model is broken: it answers with NaN", code="broken_model")


def _is_finite(found: Any) -> bool:
    if isinstance(found, (list, dict)):
        return all(map(_is_finite, found.values() if isinstance(found, dict) else found))
    return not isinstance(found, float) or math.isfinite(found)
