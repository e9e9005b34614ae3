"""The feedback of a device that SSH reaches. The device's own side is `edgeml_runtime.feedback.device`."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.targets.ssh.connection import Connection
from edgeml_runtime.feedback.device import ANSWER


def find(connection: Connection, bundle: str | None, *, sudo: bool = False) -> str:
    """The one store there, of all bundles or of one; with `sudo`, as root sees it.

    Raises EdgemlError where there is none, or more than one.
    """
    found = _call(connection, "find", {"bundle": bundle}, sudo=sudo)[0]
    if len(found["files"]) == 1:
        return str(found["files"][0])
    if found["files"]:
        hint = f"name one with --bundle NAME or --file PATH: {', '.join(found['files'])}"
        raise EdgemlError(f"{connection.host} has {len(found['files'])} files of feedback", hint=hint)
    of = f" of {bundle}" if bundle else ""
    hint = "name it as the device's configuration does: --file PATH"
    if found["closed"]:
        hint = f"{', '.join(found['closed'])} is not yours to look into: add --sudo, or connect as root"
    raise EdgemlError(f"{connection.host} has no feedback{of} where edgeml looks for it", hint=hint)


def copy(connection: Connection, file: str, *, sudo: bool = False) -> bytes:
    """The content of the store as it was at one moment, however busy it is."""
    answer, content = _call(connection, "copy", {"file": file}, sudo=sudo)
    if len(content) != answer["size_bytes"]:
        hint = "run the same command again: nothing was removed there"
        raise EdgemlError(f"the feedback did not come whole from {connection.host}", hint=hint)
    return content


def forget(connection: Connection, file: str, ids: list[str], *, sudo: bool = False) -> int:
    """Remove items there; how many there still were."""
    return int(_call(connection, "forget", {"file": file, "ids": ids}, sudo=sudo)[0]["removed"])


def _call(connection: Connection, command: str, ask: dict[str, Any], *, sudo: bool) -> tuple[Any, bytes]:
    source = (files("edgeml_runtime") / "feedback" / "device.py").read_text(encoding="utf-8")
    script = f"exec {'sudo -n ' if sudo else ''}python3 -I -S -c {shlex.quote(source)} {command}"
    done = connection.run(script, input=json.dumps(ask).encode() + b"\n")
    _, mark, rest = done.out.partition(ANSWER)
    if done.code or not mark:
        last = (done.err.strip().splitlines() or [f"it ended with {done.code}"])[-1]
        hint = (
            f"try it there: ssh {connection.host} {'sudo -n ' if sudo else ''}python3 -V, which must be 3.11 or newer"
        )
        raise EdgemlError(f"cannot read the feedback on {connection.host}: {last}", hint=hint)
    line, _, content = rest.partition(b"\n")
    answer = json.loads(line)
    if "refused" in answer:
        hint = "it is its owner's alone: add --sudo, or connect as a user who may read and write it"
        raise EdgemlError(f"cannot use the feedback on {connection.host}: {answer['refused']}", hint=hint)
    return answer, content
