"""The feedback of a device that SSH reaches. The device's own side is `edgeml_runtime.feedback.device`."""

from __future__ import annotations

import json
import shlex
from importlib.resources import files
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.targets.ssh.connection import Connection
from edgeml_runtime.feedback.device import ANSWER


def find(connection: Connection, bundle: str | None) -> str:
    """The one store there, of all bundles or of one. Raises EdgemlError where there is none, or more than one."""
    found = _call(connection, "find", {"bundle": bundle})[0]["files"]
    if len(found) == 1:
        return str(found[0])
    if not found:
        of = f" of {bundle}" if bundle else ""
        hint = "name it as the device's configuration does: --file PATH"
        raise EdgemlError(f"{connection.host} has no feedback{of} where edgeml looks for it", hint=hint)
    hint = f"name one with --bundle NAME or --file PATH: {', '.join(found)}"
    raise EdgemlError(f"{connection.host} has {len(found)} files of feedback", hint=hint)


def copy(connection: Connection, file: str) -> bytes:
    """The content of the store as it was at one moment, however busy it is."""
    answer, content = _call(connection, "copy", {"file": file})
    if len(content) != answer["size_bytes"]:
        hint = "run the same command again: nothing was removed there"
        raise EdgemlError(f"the feedback did not come whole from {connection.host}", hint=hint)
    return content


def forget(connection: Connection, file: str, ids: list[str]) -> int:
    """Remove items there; how many there still were."""
    return int(_call(connection, "forget", {"file": file, "ids": ids})[0]["removed"])


def _call(connection: Connection, command: str, ask: dict[str, Any]) -> tuple[Any, bytes]:
    source = (files("edgeml_runtime") / "feedback" / "device.py").read_text(encoding="utf-8")
    script = f"exec python3 -I -S -c {shlex.quote(source)} {command}"
    done = connection.run(script, input=json.dumps(ask).encode() + b"\n")
    _, mark, rest = done.out.partition(ANSWER)
    if done.code or not mark:
        last = (done.err.strip().splitlines() or [f"it ended with {done.code}"])[-1]
        hint = f"it needs Python 3.11 or newer there: ssh {connection.host} python3 -V"
        raise EdgemlError(f"cannot read the feedback on {connection.host}: {last}", hint=hint)
    line, _, content = rest.partition(b"\n")
    answer = json.loads(line)
    if "refused" in answer:
        hint = "connect as a user who may read and write it, such as root or the endpoint's own"
        raise EdgemlError(f"cannot use the feedback on {connection.host}: {answer['refused']}", hint=hint)
    return answer, content
