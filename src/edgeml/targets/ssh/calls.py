"""A device that is reached, and calls of its own side, `edgeml_runtime.device`, whose text travels with each."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.targets.ssh.connection import Connection, Done
from edgeml.targets.types import Probe, Profile

FULL = "No space left on device"  # strerror(ENOSPC)
STAYS = "~/.cache/edgeml/bench"
_ANSWER = b"\n@edgeml "


class Reached(NamedTuple):
    """A device that was probed, and is what it should be: where jobs run.

    `python` is the version there, such as `3.11`, that wheels are fetched for, by `wheels_for`: all those that run a
    format (`onnx`, `onnx-image`, `onnx-chat`, `gguf`) on a profile and a Python version.
    """

    connection: Connection
    probe: Probe
    profile: Profile
    python: str
    wheels_for: Callable[[Profile, str, str], Sequence[Path]]

    @property
    def host(self) -> str:
        """As the user named it."""
        return self.connection.host


def call(device: Reached, command: str, ask: dict[str, Any], content: bytes = b"") -> Any:
    """A command of `edgeml_runtime.device`, carried out there; its answer."""
    return ask_of(device.connection, f"python{device.python}", command, ask, content)


def ask_of(connection: Connection, python: str, command: str, ask: dict[str, Any], content: bytes = b"") -> Any:
    """The same, where the device's profile does not matter."""
    source = (files("edgeml_runtime") / "device.py").read_text(encoding="utf-8")
    found = f"p={python}; command -v $p >/dev/null || p=python3"
    line = json.dumps({**ask, "python": python}).encode() + b"\n"
    done = connection.run(f"{found}; exec $p -I -S -c {shlex.quote(source)} {command}", input=line + content)
    answer = _answer(done, connection.host)
    if "refused" in answer:
        raise refusal(connection.host, answer)
    return answer


def busy(host: str, holder: dict[str, Any]) -> EdgemlError:
    """Another job runs there, and the two would slow each other."""
    who, lasts = holder.get("who", "somebody"), duration(holder.get("for_s", 0.0))
    message = f"{host} has been measuring for {who} for {lasts}, and two at once would slow each other"
    return EdgemlError(message, hint=f"wait until that is done, or end it: ssh {host} pkill -f edgeml_runtime.worker")


def refusal(host: str, answer: dict[str, Any]) -> EdgemlError:
    if answer["full"]:
        return EdgemlError(f"the disk of {host} is full", hint=f"make room there: ssh {host} df -h")
    what = f"cannot use {answer['file']} on {host}: {answer['refused']}"
    return EdgemlError(what, hint=f"check who may write there: ssh {host}")


def megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 10e6 else f"{count / 1e6:.0f} MB"


def duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} minutes"


def _answer(done: Done, host: str) -> Any:
    _, mark, text = done.out.rpartition(_ANSWER)
    if done.code or not mark:
        raise RuntimeError(f"our own program failed on {host} with {done.code}:\n{done.err}")
    return json.loads(text)
