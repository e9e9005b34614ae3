"""Versions of a bundle on a device. The device's own side is `edgeml_runtime.deployment.installer`."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.targets.ssh.calls import refusal
from edgeml.targets.ssh.connection import Connection

_ANSWER = b"\n@edgeml "  # as edgeml_runtime.device has it, which cannot be imported where there is no fcntl
# Each after those that it imports; the last is the program. They come on stdin: some servers take no long command.
_TEXTS = ("device", "deployment.files", "deployment.service", "deployment.installer")
_LOADER = (
    "import json, sys, types\n"
    "*parts, (_, program) = json.loads(sys.stdin.buffer.readline())\n"
    "for name, text in parts:\n"
    "    sys.modules[name] = part = types.ModuleType(name)\n"
    "    exec(text, part.__dict__)\n"
    "exec(program)\n"
)


def call(connection: Connection, python: str, command: str, ask: dict[str, Any]) -> Any:
    """A command of the installer, carried out on the device by a Python there (`3.11`); its answer.

    Raises EdgemlError where a disk is full or may not be written, and where another deployment runs.
    """
    texts = [(f"edgeml_runtime.{name}", _text(name)) for name in _TEXTS]
    lines = "".join(json.dumps(line) + "\n" for line in (texts, ask))
    done = connection.run(f"exec python{python} -I -S -c '{_LOADER}' {command}", input=lines.encode())
    _, mark, text = done.out.rpartition(_ANSWER)
    if done.code or not mark:
        raise RuntimeError(f"our own program failed on {connection.host} with {done.code}:\n{done.err}")
    answer = json.loads(text)
    if "refused" in answer:
        raise refusal(connection.host, answer)
    if "busy" in answer:
        who = answer["busy"].get("who", "somebody")
        raise EdgemlError(f"{who} is deploying to {connection.host} now", hint="wait until that is done")
    return answer


def _text(name: str) -> str:
    return (files("edgeml_runtime") / f"{name.replace('.', '/')}.py").read_text(encoding="utf-8")
