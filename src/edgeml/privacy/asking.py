"""Marked requests to the endpoint: those that are answered, those that are refused, and those that are no requests."""

from __future__ import annotations

import base64
import http.client
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial
from typing import Any
from urllib.parse import quote

from edgeml.privacy.rows import row_of
from edgeml.privacy.types import Canary
from edgeml_runtime.types import VariantManifest

Answer = tuple[int, str]
_JSON = {"content-type": "application/json"}
_TEXT = {"content-type": "text/plain"}
_HTTP = "HTTP/1.1\r\nhost: localhost\r\n"
_START_S = 300.0
_ANSWER_S = 120.0
REQUESTS = (
    "/v1/predict",
    "/v1/embeddings",
    "/v1/chat/completions",
    "/v1/chat/completions, streamed",
    "/v1/completions",
    "a client that leaves in the middle of a stream",
    "a body that is no JSON",
    "a body of another shape",
    "another model's name",
    "a prompt that is too long",
    "a body that is too large",
    "a body of another type",
    "a picture that is none",
    "marks in headers",
    "marks in a query",
    "marks in a path",
    "marks for a method",
    "no HTTP at all",
    "feedback that is off",
)


class Endpoint:
    """The endpoint at a port of this machine. `connections` counts all that were begun, by any of its kind."""

    connections = 0

    def __init__(self, port: int) -> None:
        self._port = port

    def wait(self, child: subprocess.Popen[str]) -> bool:
        """Whether it became ready, rather than end."""
        until = time.monotonic() + _START_S
        while child.poll() is None and time.monotonic() < until:
            if self._ask("GET", "/ready")[0] == 200:
                return True
            time.sleep(0.1)
        return False

    def metrics(self) -> bytes:
        """What it counts."""
        return self._ask("GET", "/metrics")[1].encode()

    def feedback(self, plain: Any) -> Answer:
        """The answer to feedback."""
        return self._post("/v1/feedback", plain)

    def predict(self, rows: list[Any]) -> Answer:
        """The answer to rows."""
        return self._post("/v1/predict", {"rows": rows})

    def requests(
        self, manifest: VariantManifest, canaries: Mapping[str, Canary]
    ) -> Iterator[tuple[str, Callable[[], Answer]]]:
        """Each of REQUESTS with what sends it."""
        for step in REQUESTS:
            yield step, partial(self._request, step, manifest, canaries[step])

    def _request(self, step: str, manifest: VariantManifest, canary: Canary) -> Answer:
        ways = (self._answered, self._refused, self._strange)
        return next(found for way in ways if (found := way(step, manifest, canary)) is not None)

    def _answered(self, step: str, manifest: VariantManifest, canary: Canary) -> Answer | None:
        text, chat = canary.text, {"messages": [{"role": "user", "content": canary.text}], "user": canary.words}
        row = row_of(manifest.task, canary) or {"image": base64.b64encode(text.encode()).decode()}
        plain: dict[str, tuple[str, Any]] = {
            "/v1/predict": ("/v1/predict", {"rows": [row]}),
            "/v1/embeddings": ("/v1/embeddings", {"input": [text, *canary.tokens]}),
            "/v1/chat/completions": ("/v1/chat/completions", chat),
            "/v1/chat/completions, streamed": ("/v1/chat/completions", chat | {"stream": True}),
            "/v1/completions": ("/v1/completions", {"prompt": text}),
            "feedback that is off": ("/v1/feedback", {"input": row, "answer": text, "correction": text}),
        }
        if step not in plain:
            return None
        found = self._post(*plain[step])
        if found[0] == 400 and step in ("/v1/predict", "/v1/embeddings"):  # too long for a model that reads little
            short = {"rows": [row_of(manifest.task, canary, short=True)]} if "pre" in step else {"input": canary.words}
            return self._post(step, short)
        return found

    def _refused(self, step: str, manifest: VariantManifest, canary: Canary) -> Answer | None:  # noqa: ARG002
        text = canary.text
        plain: dict[str, tuple[str, Any]] = {
            "a body that is no JSON": ("/v1/predict", f'{{"rows": [{{"text": "{text}"}}], {text}'.encode()),
            "a body of another shape": ("/v1/predict", {"rows": text, canary.words: text, "task": text}),
            "another model's name": ("/v1/predict", {"rows": [{"text": text}], "model": text}),
            "a prompt that is too long": ("/v1/completions", {"prompt": f"{text} " * 500}),
            "a body that is too large": ("/v1/predict", {"rows": [{"text": f"{text} " * 1000}]}),
            "a picture that is none": ("/v1/predict", {"rows": [{"image": base64.b64encode(text.encode()).decode()}]}),
        }
        return self._post(*plain[step]) if step in plain else None

    def _strange(self, step: str, manifest: VariantManifest, canary: Canary) -> Answer | None:  # noqa: ARG002
        text, percent = canary.text, quote(canary.text)
        shown = {"authorization": f"Bearer {canary.words}", "user-agent": percent, "cookie": canary.words}
        shown |= {canary.words: canary.card}
        ways: dict[str, Callable[[], Answer]] = {
            "a body of another type": lambda: self._ask("POST", "/v1/predict", text.encode(), _TEXT),
            "marks in headers": lambda: self._post("/v1/predict", {"rows": [{"text": text}]}, shown),
            "marks in a query": lambda: self._post(f"/v1/predict?text={percent}", {"rows": []}),
            "marks in a path": lambda: self._ask("GET", f"/v1/{percent}"),
            "marks for a method": lambda: self._raw(f"{canary.words.upper()} /{canary.words} {_HTTP}\r\n".encode()),
            "no HTTP at all": lambda: self._raw(f"{text}\r\n{text}\r\n\r\n".encode()),
            "a client that leaves in the middle of a stream": lambda: self._leaving(text),
        }
        return ways[step]() if step in ways else None

    def _leaving(self, text: str) -> Answer:
        body = json.dumps({"messages": [{"role": "user", "content": text}], "stream": True}).encode()
        head = f"POST /v1/chat/completions {_HTTP}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        return self._raw(head.encode() + body, most=32)

    def _post(self, path: str, plain: Any, headers: Mapping[str, str] | None = None) -> Answer:
        content = plain if isinstance(plain, bytes) else json.dumps(plain).encode()
        return self._ask("POST", path, content, {**_JSON, **(headers or {})})

    def _ask(self, method: str, path: str, content: bytes = b"", headers: Mapping[str, str] | None = None) -> Answer:
        Endpoint.connections += 1
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_S)) as connection:
            try:
                connection.request(method, path, content or None, dict(headers or {}))
                response = connection.getresponse()
                return response.status, response.read().decode("utf-8", "replace")
            except (OSError, http.client.HTTPException):
                return 0, ""

    def _raw(self, content: bytes, most: int = 65536) -> Answer:
        """What comes back for some bytes, at most so much of it; then the connection is cut."""
        Endpoint.connections += 1
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
                connection.sendall(content)
                said = connection.recv(most).decode("latin-1")
        except OSError:
            return 0, ""
        words = said.split(" ", 2)
        return (int(words[1]) if len(words) > 1 and words[1].isdigit() else 0), said
