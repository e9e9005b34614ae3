"""Fetches from a hub in a process of its own: the hub's client reads its environment once, when it is imported.

As a script, answers each line of JSON on stdin with one on stdout.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.sources import Consent, Fetched
from edgeml.sources.hub import Place, fetch
from edgeml.types import ModelRef
from edgeml_runtime.types import File


class Child:
    """A process that fetches; `seen` holds the progress of the last fetch."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.seen: list[list[Any]] = []

    def fetch(self, ref: str, **options: Any) -> Fetched:
        """What the child fetched; its EdgemlError or its KeyboardInterrupt is raised here."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"ref": ref, **options}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        self.seen = answer["seen"]
        if "interrupted" in answer:
            raise KeyboardInterrupt
        if "message" in answer:
            raise EdgemlError(answer["message"], hint=answer["hint"])
        return _fetched(answer)


@contextmanager
def child(**environment: str) -> Iterator[Child]:
    """A child with no setting of the hub's client but those given."""
    plain = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    command = [sys.executable, __file__]
    settings = plain | environment
    with subprocess.Popen(command, env=settings, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Child(process)


def _fetched(answer: dict[str, Any]) -> Fetched:
    plain = {key: answer[key] for key in ("format", "licence", "task")}
    files = tuple(File(path=path, size_bytes=size, sha256=digest) for path, size, digest in answer["files"])
    return Fetched(ref=ModelRef.parse(answer["ref"]), path=Path(answer["path"]), files=files, **plain)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    os.environ["EDGEML_CACHE"] = request["edgeml_cache"]
    place = Place(endpoint=request.get("endpoint"), cache=Path(request["cache"]) if "cache" in request else None)
    consent = Consent(pickle=request.get("pickle", False), remote_code=request.get("remote_code", False))
    seen: list[tuple[str, int, int]] = []

    def watch(step: str, done: int, total: int) -> None:
        seen.append((step, done, total))
        if done > request.get("interrupt_after", done):
            raise KeyboardInterrupt

    try:
        found = fetch(ModelRef.parse(request["ref"]), consent=consent, progress=watch, place=place)
    except EdgemlError as error:
        return {"message": error.message, "hint": error.hint, "seen": seen}
    except KeyboardInterrupt:
        return {"interrupted": True, "seen": seen}
    files = [(file.path, file.size_bytes, file.sha256) for file in found.files]
    plain = {"format": found.format, "licence": found.licence, "task": found.task}
    return {"ref": str(found.ref), "path": str(found.path), "files": files, "seen": seen, **plain}


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)  # noqa: T201 - this is how it answers
