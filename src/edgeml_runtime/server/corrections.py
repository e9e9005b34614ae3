"""Where feedback meets the endpoint: `POST /v1/feedback`, and answers of which the model is unsure."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.feedback.confidence import confidence_of
from edgeml_runtime.feedback.store import FeedbackStore
from edgeml_runtime.feedback.types import Entry, FullError, read_posted
from edgeml_runtime.server import logs
from edgeml_runtime.server.bodies import body
from edgeml_runtime.server.refusals import RefusedError, wrong

if TYPE_CHECKING:
    from collections.abc import Iterator

    from starlette.requests import Request

    from edgeml_runtime.feedback.settings import FeedbackSettings
    from edgeml_runtime.server.app import Service
    from edgeml_runtime.types import Row

FULL = 507  # Insufficient Storage


@contextmanager
def routes(service: Service) -> Iterator[list[Route]]:
    """The route of feedback where the settings want some, with its store open; else none."""
    settings = service.settings.feedback
    if settings is None:
        yield []
        return
    store = FeedbackStore(Path(settings.file), settings)
    for warning in store.warnings:
        logs.say(warning)
    kept = Corrections(service, store, settings)
    if settings.low_confidence is not None:
        service.told = kept.notice
    try:
        yield [Route("/v1/feedback", kept.post, methods=["POST"])]
    finally:
        service.told = None
        store.close()


class Corrections:
    """The store behind the endpoint. It writes in another thread than the one that answers."""

    def __init__(self, service: Service, store: FeedbackStore, settings: FeedbackSettings) -> None:
        self._service = service
        self._store = store
        self._settings = settings

    async def post(self, request: Request) -> Response:
        """Keep a correction; its id, once it is on the disk."""
        content = await body(request, self._service.settings)
        try:
            posted = read_posted(content, most_bytes=self._settings.item_bytes)
            task = posted.task or self._service.manifest.task
            entry = self._entry("correction", task, posted.input, posted.answer, correction=posted.correction)
            id = await asyncio.to_thread(self._store.add, entry)
        except FullError as error:
            raise RefusedError(FULL, f"{error.message}: {error.hint}", code="feedback_full") from error
        except EdgemlError as error:
            raise wrong(f"{error.message}: {error.hint}") from error
        return JSONResponse({"id": id}, 201)

    async def notice(self, row: Row, task: str, answer: Any) -> None:
        """Keep an answer of which the model is unsure; pictures and sounds are not. One that cannot be is given."""
        if "image" in row or "audio" in row:
            return
        entry = self._entry("low-confidence", task, row, answer, confidence=confidence_of(task, answer))
        try:
            await asyncio.to_thread(self._store.capture, entry)
        except EdgemlError as error:  # which repeats none of it
            logs.say(f"an answer of low confidence is not kept: {error.message}")

    def _entry(self, kind: Any, task: str, input: Row, answer: Any, **more: Any) -> Entry:
        manifest = self._service.manifest
        return Entry(
            kind=kind,
            task=task,
            input=input,
            answer=answer,
            model=manifest.name,
            variant_sha256=manifest.weights_sha256,
            **more,
        )
