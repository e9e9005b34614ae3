"""What a device lacks of what jobs need, how long bringing it takes, and the way it gets there."""

from __future__ import annotations

import time
from os import urandom
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets.ssh.calls import FULL, STAYS, Reached, busy, call, duration, megabytes, refusal
from edgeml.targets.ssh.needs import Needs, Piece, Tree, unpacked_bytes
from edgeml_runtime.errors import counted

_WORTH_TIMING_BYTES = 4 << 20
_TRIALS_BYTES = (1 << 16, 1 << 19, 1 << 22)  # sent to see how fast the link is, until one takes long enough
_TRIAL_S = 0.5
_CHUNK_S = 3.0  # of sending between two words of progress
_CHUNK_BYTES = (1 << 18, 1 << 26)  # least and most
_NOISE_S = 0.1  # by which two empty trials differ at least: Python's start is in each
# What loads a package where a plain import does not: llama-cpp-python's own needs packages that we do without.
_LOADS = {"llama_cpp": "from edgeml_runtime.backends.gguf_model import library; library()"}
_SPARE_BYTES = 100_000_000  # for the answers, and for the device's own life


class Plan(NamedTuple):
    """What a device lacks, and what bringing it there takes.

    `rate_bytes_s`, the network's, is absent where little is to be sent; the true one may be higher if `is_rate_least`.
    `came` are the bytes of each missing file that an earlier attempt brought, by its digest; `unpacked_bytes` are what
    the wheels become there. `sites` are where wheels were unpacked before. `holder` is whose job runs there now.
    """

    host: str
    is_first: bool
    trees: tuple[Tree, ...]
    missing: tuple[Piece, ...]
    came: dict[str, int]
    sites: dict[str, str]
    unpacked_bytes: int
    free_bytes: int
    holder: dict[str, Any] | None = None
    rate_bytes_s: float | None = None
    is_rate_least: bool = False

    @property
    def send_bytes(self) -> int:
        """What goes over the network."""
        return sum(piece.size_bytes - self.came[piece.sha256] for piece in self.missing)

    @property
    def sentence(self) -> str | None:
        """For the user, before it is sent; None where there is nothing to send."""
        if not self.missing:
            return None
        contact = f"first contact with {self.host}" if self.is_first else self.host
        stays = f"it stays in {STAYS} there until --clean"
        return f"{contact}: {megabytes(self.send_bytes)} to send{self._duration}; {stays}"

    @property
    def _duration(self) -> str:
        if self.rate_bytes_s is None:
            return ""
        lasts, rate = duration(self.send_bytes / self.rate_bytes_s), megabytes(self.rate_bytes_s)
        if self.is_rate_least:
            return f", less than {lasts} at more than {rate}/s"
        return f", about {lasts} at {rate}/s"


def plan(device: Reached, wanted: Needs) -> Plan:
    """What the device lacks of it. Raises EdgemlError where its disk has no room for it."""
    trees = {tree.digest: tree for tree in wanted.trees if tree.pieces}
    asked = {
        digest: {path: (piece.sha256, piece.size_bytes) for path, piece in tree.pieces.items()}
        for digest, tree in trees.items()
    }
    found = call(device, "look", {"trees": asked})
    pieces = {piece.sha256: piece for tree in trees.values() for piece in tree.pieces.values()}
    unmade = [tree for tree in wanted.wheels.values() if tree.digest not in found["sites"]]
    made = Plan(
        host=device.host,
        is_first=found["first"],
        trees=tuple(trees[digest] for digest in found["trees"]),
        missing=tuple(pieces[digest] for digest in found["files"]),
        came=found["files"],
        sites=found["sites"],
        unpacked_bytes=sum(unpacked_bytes(tree) for tree in unmade),
        free_bytes=found["free_bytes"],
        holder=found["busy"],
    )
    _require_room(made)
    is_timed = made.send_bytes >= _WORTH_TIMING_BYTES and made.holder is None
    return _timed(device, made) if is_timed else made


def bring(device: Reached, wanted: Needs, planned: Plan, *, progress: Progress) -> dict[str, str]:
    """Send what is missing and make the folders: where the packages of each format are on the device.

    What arrived before a connection broke is not sent again. Raises EdgemlError where a job runs there, which sending
    would slow, and where a full disk leaves no room; the file that it cut short is gone there.
    """
    if planned.holder and (planned.trees or len(planned.sites) < len(wanted.wheels)):
        raise busy(device.host, planned.holder)
    send(device, planned, progress)
    if planned.trees:
        call(device, "make", {"trees": {tree.digest: _links(tree) for tree in planned.trees}})
    return {format: _site(device, wanted, planned, tree, progress) for format, tree in wanted.wheels.items()}


def _require_room(planned: Plan) -> None:
    needed = planned.send_bytes + planned.unpacked_bytes
    if needed and needed + _SPARE_BYTES > planned.free_bytes:
        raise EdgemlError(
            f"{planned.host} has {megabytes(planned.free_bytes)} free, and {megabytes(needed)} are needed "
            f"beside {megabytes(_SPARE_BYTES)} to spare",
            hint=f"make room there: ssh {planned.host} df -h; what earlier benches and attempts brought goes by: "
            f"ssh {planned.host} rm -rf {STAYS.removeprefix('~/')}",  # ~ would be the home here
        )


def _timed(device: Reached, planned: Plan) -> Plan:
    """The plan with the link's rate: larger and larger trials, less the time of an empty one.

    Where the largest takes no longer than two empty ones differ, that difference bounds the rate from below.
    """
    empty_s = sorted(_trial_s(device, 0) for _ in range(2))
    noise_s = max(2 * (empty_s[1] - empty_s[0]), _NOISE_S)
    for size in _TRIALS_BYTES:
        taken_s = _trial_s(device, size) - empty_s[0]
        if taken_s > max(_TRIAL_S, noise_s):
            break
    return planned._replace(rate_bytes_s=size / max(taken_s, noise_s), is_rate_least=taken_s < noise_s)


def _trial_s(device: Reached, size: int) -> float:
    started = time.perf_counter()
    call(device, "sink", {}, urandom(size))  # which no link compresses
    return time.perf_counter() - started


def send(device: Reached, planned: Plan, progress: Progress) -> None:
    """Send what a plan misses; the files lie there by their digest. What arrived before is not sent again."""
    step, total, sent = f"send to {device.host}", planned.send_bytes, 0
    rate = planned.rate_bytes_s or _CHUNK_BYTES[0] / _CHUNK_S
    left = [(piece, planned.came[piece.sha256]) for piece in planned.missing]
    while left:
        progress(step, sent, total)
        chunk = _chunk(left, int(min(max(rate * _CHUNK_S, _CHUNK_BYTES[0]), _CHUNK_BYTES[1])))
        content = b"".join(piece.read(offset, count) for piece, offset, count in chunk)
        started = time.perf_counter()
        answer = call(device, "receive", {"pieces": [_asked(*one) for one in chunk]}, content)
        if answer["damaged"]:
            message = f"{counted(len(answer['damaged']), 'file')} did not arrive on {device.host} as sent"
            raise EdgemlError(message, hint="run the same command again: they are sent anew")
        rate = len(content) / max(time.perf_counter() - started, 1e-3)
        sent += len(content)
    progress(step, total, total) if total else None


def _chunk(left: list[tuple[Piece, int]], size: int) -> list[tuple[Piece, int, int]]:
    """Takes as much from what is left: of each piece from where, and how many bytes."""
    taken: list[tuple[Piece, int, int]] = []
    while left and size > 0:
        piece, offset = left.pop(0)
        count = min(size, piece.size_bytes - offset)
        taken.append((piece, offset, count))
        size -= count
        if offset + count < piece.size_bytes:
            left.insert(0, (piece, offset + count))
    return taken


def _asked(piece: Piece, offset: int, count: int) -> dict[str, Any]:
    return {"sha256": piece.sha256, "size_bytes": piece.size_bytes, "offset": offset, "count": count}


def _links(tree: Tree) -> dict[str, str]:
    return {path: piece.sha256 for path, piece in tree.pieces.items()}


def _site(device: Reached, wanted: Needs, planned: Plan, tree: Tree, progress: Progress) -> str:
    if site := planned.sites.get(tree.digest):
        return site
    progress(f"unpack on {device.host} (once)", 0, 1)
    answer = call(device, "unpack", {"tree": tree.digest, "runtime": wanted.runtime.digest, "loads": _LOADS})
    progress(f"unpack on {device.host} (once)", 1, 1)
    if "site" not in answer:
        raise _unfit(device, answer)
    return str(answer["site"])


def _unfit(device: Reached, answer: dict[str, Any]) -> EdgemlError:
    """Its Python takes no such wheels, or its processor cannot run what is in one."""
    words = [line.strip() for line in answer["said"].splitlines() if line.strip()]
    if FULL in answer["said"]:
        return refusal(device.host, {"full": True})
    if "package" not in answer:
        why = next((line.removeprefix("error: ") for line in words if line.startswith("error: ")), "it gave no reason")
        return EdgemlError(f"the runtime does not fit {device.host}: {why}", hint="install a newer system there")
    last = words[-1] if words else f"it ended with {answer['failed']}"
    return EdgemlError(
        f"{answer['package']} does not run on {device.host}: {last}", hint="its processor or system is not what it fits"
    )
