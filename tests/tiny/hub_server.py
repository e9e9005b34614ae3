"""A hub on this machine: as much of the protocol as the client speaks, with the failures a real one has.

Large files are redirected to a second host name, as a real hub sends its client to a file store.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from urllib.parse import unquote, urlsplit

_LARGE = (".safetensors", ".bin", ".gguf", ".onnx")


@dataclass
class Repo:
    """One model: its commits, and the names that point to them."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit, move the branch to it, and return its id."""
        named = b"".join(name.encode() + content for name, content in sorted(files.items()))
        commit = hashlib.sha1(named).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        return commit


@dataclass(frozen=True)
class Request:
    """What was asked and how many bytes of body were sent."""

    method: str
    path: str
    range: str | None
    token: str | None
    sent: int


class Hub(ThreadingHTTPServer):
    """`cuts` says after how many bytes the next transfers of a file break off; `lies` which other bytes to send.

    The files in `stuck` are sent by half: `half_sent` is set, and nothing more comes until `over` is.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.cuts: dict[str, list[int]] = {}
        self.lies: dict[str, bytes] = {}
        self.members: set[str] = set()
        self.stuck: set[str] = set()
        self.half_sent, self.over = Event(), Event()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def repo(self, id: str, files: dict[str, bytes], *, gated: bool = False) -> Repo:
        """A repository with one commit on `main`."""
        self.repos[id] = Repo(gated=gated)
        self.repos[id].commit(files)
        return self.repos[id]

    def asked(self, part: str) -> list[Request]:
        """The requests, in order, whose path contains `part`."""
        return [request for request in self.requests if part in request.path]

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what the tests are about."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub that answers until the block ends."""
    with Hub() as hub:
        Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield hub
        finally:
            hub.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        for pattern, answer in _ROUTES:
            if match := re.fullmatch(pattern, path):
                answer(self, *match.groups())
                return
        self._refuse(404, None)

    def _send(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None, name: str = "") -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        cut = self.server.cuts.get(name)
        part = body if self.command == "GET" else b""
        if cut and part:
            part = part[: cut.pop(0)]
        self._note(len(part))
        if part and name in self.server.stuck:
            self.wfile.write(part[: len(part) // 2])
            self.server.half_sent.set()
            self.server.over.wait()
            return
        self.wfile.write(part)
        if self.command == "GET" and len(part) < len(body):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _note(self, sent: int) -> None:
        wanted = self.headers
        request = Request(self.command, self.path, wanted.get("Range"), wanted.get("Authorization"), sent)
        self.server.requests.append(request)

    def _refuse(self, status: int, code: str | None) -> None:
        self._send(status, headers={"X-Error-Code": code} if code else {})

    def _find(self, id: str, revision: str | None) -> tuple[Repo, str] | None:
        repo = self.server.repos.get(id)
        if repo is None:
            self._refuse(401, "RepoNotFound")
            return None
        commit = repo.branches.get(revision or "main", revision or "main")
        if commit not in repo.commits:
            self._refuse(404, "RevisionNotFound")
            return None
        return repo, commit

    def _info(self, id: str, _: str | None, revision: str | None) -> None:
        if found := self._find(id, revision):
            repo, commit = found
            files = [_sibling(name, content) for name, content in repo.commits[commit].items()]
            info = {"id": id, "sha": commit, "pipeline_tag": "sentence-similarity", "siblings": files}
            self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _resolve(self, id: str, revision: str, name: str) -> None:
        found = self._find(id, revision)
        if found is None:
            return
        repo, commit = found
        token = self.headers.get("Authorization", "")
        if repo.gated and token not in self.server.members:
            self._refuse(403 if token else 401, "GatedRepo")
        elif name not in repo.commits[commit]:
            self._refuse(404, "EntryNotFound")
        else:
            self._file(name, repo.commits[commit][name], commit)

    def _file(self, name: str, content: bytes, commit: str) -> None:
        headers = {"X-Repo-Commit": commit, "ETag": f'"{git_id(content)}"'}
        if name.endswith(_LARGE):
            digest = hashlib.sha256(content).hexdigest()
            headers |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
            store = f"http://localhost:{self.server.server_port}/store/{commit}/{name}"
            self._send(302, headers={**headers, "Location": store})
        else:
            self._send(200, self.server.lies.get(name, content), headers, name)

    def _stored(self, commit: str, name: str) -> None:
        repo = next(repo for repo in self.server.repos.values() if commit in repo.commits)
        content = self.server.lies.get(name, repo.commits[commit][name])
        match = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if match is None:
            self._send(200, content, name=name)
            return
        start = int(match[1])
        span = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self._send(206, content[start:], {"Content-Range": span}, name)


_ROUTES = (
    (r"/api/models/([^/]+/[^/]+)(/revision/(.+))?", _Handler._info),
    (r"/store/([0-9a-f]+)/(.+)", _Handler._stored),
    (r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", _Handler._resolve),
)


def git_id(content: bytes) -> str:
    """What git calls a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _sibling(name: str, content: bytes) -> dict[str, object]:
    sibling: dict[str, object] = {"rfilename": name, "size": len(content), "blobId": git_id(content)}
    if name.endswith(_LARGE):
        sibling["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return sibling
