"""What a device is: one call runs a small script on it, which needs Python 3 there and nothing else."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.targets.ssh import failures
from edgeml.targets.ssh.connection import Connection
from edgeml.targets.types import Probe
from edgeml_runtime.meters.state import throttle_bits
from edgeml_runtime.records import build, parse_json

_NO_PYTHON = 127
_OFF_S = 60.0
_LITTLE_DISK_BYTES = 500_000_000  # ONNX Runtime and what it needs take some 130 MB there, installed
# -I: neither the folder nor the environment there may change what the script imports.
_SCRIPT = f"LC_ALL=C; export LC_ALL; command -v python3 > /dev/null || exit {_NO_PYTHON}; exec python3 -I -"


def probe(connection: Connection, *, timeout_s: float = 120.0) -> Probe:
    """The device's own facts.

    Raises EdgemlError where it has no Python 3, or one that cannot run the script.
    """
    script = (files("edgeml_runtime") / "facts.py").read_bytes()
    done = connection.run(_SCRIPT, input=script, timeout_s=timeout_s)
    if done.code == _NO_PYTHON:
        hint = "install it there (Debian, Raspberry Pi OS: sudo apt install python3), then try again"
        raise EdgemlError(f"{connection.host} has no python3", hint=hint)
    if done.code:
        said = failures.last_line(done.err)
        hint = f"edgeml needs Python 3.7 or newer there to look around: ssh {connection.host} python3 --version"
        raise EdgemlError(f"the python3 of {connection.host} did not work: {said}", hint=hint)
    return read(done.out, where=f"what {connection.host} says of itself")


def concerns(found: Probe, now_s: float) -> list[str]:
    """What a person should know of a device before they measure on it; `now_s` is this machine's clock."""
    texts = []
    if found.emulator:
        texts.append(f"{found.emulator} emulates its processor: what runs there is never called measured")
    if current := [name for name in found.throttled or () if not name.startswith("had_")]:
        texts.append(f"the board throttles now ({', '.join(current)}): look at its supply and its cooling")
    if found.disk_free_bytes is not None and found.disk_free_bytes < _LITTLE_DISK_BYTES:
        texts.append(f"it has {found.disk_free_bytes / 1e6:.0f} MB of free disk, which is little for a model")
    if found.unix_time_s is not None and abs(off_s := found.unix_time_s - now_s) > _OFF_S:
        way = "ahead of" if off_s > 0 else "behind"
        texts.append(f"its clock is {abs(off_s):.0f} s {way} this machine's")
    return texts


def read(told: bytes, *, where: str) -> Probe:
    """The facts that the script printed, with the firmware's bits by their names."""
    try:
        plain: dict[str, Any] = dict(parse_json(told))
    except (ValueError, TypeError) as error:
        raise EdgemlError(f"{where} cannot be read", hint="its python3 prints more than it is asked for") from error
    bits = plain.pop("throttled", None)
    known = isinstance(bits, str) and re.search(r"(^|=)(0x)?[0-9a-fA-F]+$", bits)
    plain["throttled"] = throttle_bits(bits) if known else None
    return build({"schema": "edgeml.probe/1", **plain}, Probe, where=where)
