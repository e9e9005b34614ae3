"""Who may ask: whoever shows the token where there is one, and on loopback whoever means this machine by name."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from edgeml_runtime.server.refusals import RefusedError
from edgeml_runtime.server.settings import Settings, is_loopback

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

OPEN = ("/health", "/ready")  # what watches a service needs no token, and these tell nothing


class Gate:
    """Lets a request through, or refuses it.

    A web page may make a browser connect to this machine under a name of its own (DNS rebinding): the name in `Host`
    gives it away. Without CORS, and as bodies must be `application/json`, a page cannot send one under our name either.
    """

    def __init__(self, app: ASGIApp, settings: Settings, token: str | None) -> None:
        self._app = app
        self._token = token.encode() if token else None
        self._by_name = settings.is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it with its refusal."""
        refusal = self._refusal(scope) if scope["type"] == "http" else None
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            await refused(refusal)(scope, receive, send)

    def _refusal(self, scope: Scope) -> RefusedError | None:
        headers = Headers(scope=scope)
        if self._by_name and not is_loopback(_name(headers.get("host", ""))):
            return RefusedError(403, "this endpoint is reached as localhost or 127.0.0.1", code="host")
        if self._token is None or scope["path"] in OPEN:
            return None
        kind, _, shown = headers.get("authorization", "").partition(" ")
        if kind.lower() == "bearer" and hmac.compare_digest(shown.strip().encode("latin-1", "replace"), self._token):
            return None
        message = "show the token: Authorization: Bearer ..."
        return RefusedError(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})


def refused(error: RefusedError) -> JSONResponse:
    """The response that refuses."""
    return JSONResponse(error.shape(), error.status, headers=error.headers)


def _name(host: str) -> str:
    """The name or address in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0][1:]
    return host.rpartition(":")[0] if ":" in host else host
