"""Reads a request's body: so much, so fast, and JSON of the shape that its route takes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from edgeml_runtime.server.refusals import RefusedError, wrong
from edgeml_runtime.types import Record

if TYPE_CHECKING:
    from starlette.requests import Request

    from edgeml_runtime.server.settings import Settings

T = TypeVar("T", bound=Record)
DEEPEST = 64  # brackets within brackets; a JSON Schema of an answer has some twenty
_READ_ON = 8  # times the limit that are read and thrown away, so that a client which writes first sees the refusal
_CLOSE = {"connection": "close"}


async def body(request: Request, settings: Settings) -> bytes:
    """All of a request's body; raises the refusal of one that is too large, too slow, or no JSON by its type."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RefusedError(415, "send JSON: Content-Type: application/json", headers=_CLOSE)
    try:
        async with asyncio.timeout(settings.read_timeout_s):
            return await _read(request, settings.request_bytes)
    except TimeoutError as error:
        message = f"the body took longer than {settings.read_timeout_s:g} s"
        raise RefusedError(408, message, code="slow", headers=_CLOSE) from error


def parsed(content: bytes, kind: type[T]) -> T:
    """The JSON in a body; raises the refusal of what is no JSON, or has another shape, with the place."""
    try:
        plain = msgspec.json.decode(content)
        _require_flat(plain)
    except UnicodeDecodeError as error:
        raise wrong(f"the body is not UTF-8, from byte {error.start} on") from error
    except RecursionError as error:
        raise _deep() from error
    except msgspec.DecodeError as error:
        raise wrong(f"the body is not JSON: {error}") from error
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        message, _, place = str(error).partition(" - at `$")
        raise wrong(message, place.removeprefix(".").removesuffix("`") or None) from error


async def _read(request: Request, limit: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit * _READ_ON:
        raise _large(limit)
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > limit * _READ_ON:
            break
        if size <= limit:
            parts.append(part)
    if size > limit:
        raise _large(limit)
    return b"".join(parts)


def _require_flat(plain: Any) -> None:
    """Raise the refusal of JSON that is nested too deep for whatever walks through it later."""
    level = [plain]
    for _ in range(DEEPEST):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list))
            for inner in (one.values() if isinstance(one, dict) else one)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _deep()


def _deep() -> RefusedError:
    return wrong(f"the JSON is nested deeper than {DEEPEST}")


def _large(limit: int) -> RefusedError:
    return RefusedError(413, f"the body has more than {limit} bytes", code="too_large", headers=_CLOSE)
