"""What a device needs of this machine, by digest: what it lacks, how long that takes, and the way it gets there.

A variant, the runtime, the wheels and the pictures of the data are a `Tree` each: a folder that the device makes of
files that it keeps by their sha256, so that nothing is sent twice. The device's own side is `edgeml_runtime.device`.
"""

from __future__ import annotations

import hashlib
import json
import shlex
import time
import zipfile
from collections.abc import Callable, Sequence
from importlib.resources import files
from os import urandom
from pathlib import Path
from typing import Any, NamedTuple

import edgeml_runtime
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets.ssh.connection import Connection, Done
from edgeml.targets.types import Probe, Profile
from edgeml_runtime.bundle import checksums
from edgeml_runtime.records import read_record, sha256
from edgeml_runtime.types import File, VariantManifest

STAYS = "~/.cache/edgeml/bench"
_ANSWER = b"\n@edgeml "
_WORTH_TIMING_BYTES = 4 << 20
_TRIALS_BYTES = (1 << 16, 1 << 19, 1 << 22)  # sent to see how fast the link is, until one takes long enough
_TRIAL_S = 0.5
_CHUNK_S = 3.0  # of sending between two words of progress
_CHUNK_BYTES = (1 << 18, 1 << 26)  # least and most
_NOISE_S = 0.1  # by which two empty trials differ at least: Python's start is in each
# What loads a package where a plain import does not: llama-cpp-python's own needs packages that we do without.
_LOADS = {"llama_cpp": "from edgeml_runtime.backends.gguf_model import library; library()"}
_SPARE_BYTES = 100_000_000  # for the answers, and for the device's own life


class Reached(NamedTuple):
    """A device that was probed, and is what it should be: where jobs run.

    `python` is the version there, such as `3.11`, that wheels are fetched for, by `wheels_for`: all those that run a
    format (`onnx`, `onnx-image`, `gguf`) on a profile and a Python version.
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


class Piece(NamedTuple):
    """One file to be on the device: a path here, or bytes."""

    content: Path | bytes
    size_bytes: int
    sha256: str

    def read(self, offset: int, count: int) -> bytes:
        """That many of its bytes."""
        if isinstance(self.content, bytes):
            return self.content[offset : offset + count]
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(count)


class Tree(NamedTuple):
    """A folder to be on the device, by relative path."""

    pieces: dict[str, Piece]

    @property
    def digest(self) -> str:
        """Names the folder by its content."""
        listed = (File(path=path, size_bytes=0, sha256=piece.sha256) for path, piece in self.pieces.items())
        return hashlib.sha256(checksums(listed).encode()).hexdigest()


class Needs(NamedTuple):
    """All that jobs need: the variants' and pictures' folders, the runtime, and the wheels of each format."""

    folders: dict[Path, Tree]
    pictures: Tree
    runtime: Tree
    wheels: dict[str, Tree]

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Every folder that is to be made."""
        return (*self.folders.values(), self.pictures, self.runtime, *self.wheels.values())


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
        return f"{contact}: {_megabytes(self.send_bytes)} to send{self._duration}; {stays}"

    @property
    def _duration(self) -> str:
        if self.rate_bytes_s is None:
            return ""
        lasts, rate = _duration(self.send_bytes / self.rate_bytes_s), _megabytes(self.rate_bytes_s)
        if self.is_rate_least:
            return f", less than {lasts} at more than {rate}/s"
        return f", about {lasts} at {rate}/s"


def needs(device: Reached, variants: Sequence[Path], pictures: Sequence[Path] = ()) -> Needs:
    """What runs those variants' folders on a device; wheels that are not here yet are fetched by `wheels_for`."""
    from edgeml.wheels import runtime_of

    manifests = {folder: read_record(folder / "variant.json", VariantManifest) for folder in variants}
    formats = dict.fromkeys(runtime_of(manifest) for manifest in manifests.values())
    return Needs(
        folders={folder: _variant_tree(folder, manifest) for folder, manifest in manifests.items()},
        pictures=_pictures_tree(pictures),
        runtime=runtime_tree(),
        wheels={
            format: _wheels_tree(device, device.wheels_for(device.profile, device.python, format)) for format in formats
        },
    )


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
        unpacked_bytes=sum(_unpacked_bytes(tree) for tree in unmade),
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
    _send(device, planned, progress)
    if planned.trees:
        call(device, "make", {"trees": {tree.digest: _links(tree) for tree in planned.trees}})
    return {format: _site(device, wanted, planned, tree, progress) for format, tree in wanted.wheels.items()}


def remote_folder(device: Reached, tree: Tree) -> str:
    """Where a tree is on the device."""
    return f"{device.probe.home}/{STAYS.removeprefix('~/')}/trees/{tree.digest}"


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
        raise _refusal(connection.host, answer)
    return answer


def busy(host: str, holder: dict[str, Any]) -> EdgemlError:
    """Another job runs there, and the two would slow each other."""
    who, lasts = holder.get("who", "somebody"), _duration(holder.get("for_s", 0.0))
    message = f"{host} has been measuring for {who} for {lasts}, and two at once would slow each other"
    return EdgemlError(message, hint=f"wait until that is done, or end it: ssh {host} pkill -f edgeml_runtime.worker")


def runtime_tree() -> Tree:
    """Our own runtime, as a bundle carries it."""
    root = Path(edgeml_runtime.__path__[0])
    paths = sorted([*root.rglob("*.py"), root / "py.typed"])
    return Tree({f"edgeml_runtime/{path.relative_to(root).as_posix()}": _piece(path) for path in paths})


def _variant_tree(folder: Path, manifest: VariantManifest) -> Tree:
    own = {file.path: Piece(folder / file.path, file.size_bytes, file.sha256) for file in manifest.files}
    return Tree({**own, "variant.json": _piece(folder / "variant.json")})


def _pictures_tree(pictures: Sequence[Path]) -> Tree:
    """Each under its number, since names and contents may be equal; with its ending, by which some tell what it is."""
    endings = (path.suffix if path.suffix[1:].isalnum() else "" for path in pictures)
    return Tree(
        {f"{n:06}{ending}": _piece(path) for n, (path, ending) in enumerate(zip(pictures, endings, strict=True))}
    )


def _wheels_tree(device: Reached, wheels: Sequence[Path]) -> Tree:
    """Wheels with the manifest of a bundle that has nothing else, so that they are unpacked as a bundle's are."""
    pieces = {f"wheels/{path.name}": _piece(path) for path in wheels}
    listed = [{"path": path, "sha256": piece.sha256} for path, piece in pieces.items()]
    manifest = {"machine": device.probe.machine, "python": [device.python], "files": listed}
    content = json.dumps(manifest).encode()
    return Tree({**pieces, "bundle.json": Piece(content, len(content), hashlib.sha256(content).hexdigest())})


def _piece(path: Path) -> Piece:
    try:
        return Piece(path, path.stat().st_size, sha256(path))
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error


def _unpacked_bytes(tree: Tree) -> int:
    total = 0
    for piece in tree.pieces.values():
        if isinstance(piece.content, Path):
            with zipfile.ZipFile(piece.content) as wheel:
                total += sum(member.file_size for member in wheel.infolist())
    return total


def _require_room(planned: Plan) -> None:
    needed = planned.send_bytes + planned.unpacked_bytes
    if needed and needed + _SPARE_BYTES > planned.free_bytes:
        raise EdgemlError(
            f"{planned.host} has {_megabytes(planned.free_bytes)} free, and {_megabytes(needed)} are needed "
            f"beside {_megabytes(_SPARE_BYTES)} to spare",
            hint="make room there, or remove what earlier benches left: --clean",
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


def _send(device: Reached, planned: Plan, progress: Progress) -> None:
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
            message = f"{len(answer['damaged'])} files did not arrive on {device.host} as they were sent"
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
    if "No space left on device" in answer["said"]:
        return _refusal(device.host, {"full": True})
    if "package" not in answer:
        refusal = next((line.removeprefix("error: ") for line in words if line.startswith("error: ")), "no reason")
        return EdgemlError(f"the runtime does not fit {device.host}: {refusal}", hint="edgeml doctor --host shows it")
    last = words[-1] if words else f"it ended with {answer['failed']}"
    return EdgemlError(
        f"{answer['package']} does not run on {device.host}: {last}", hint="its processor or system is not what it fits"
    )


def _answer(done: Done, host: str) -> Any:
    _, mark, text = done.out.rpartition(_ANSWER)
    if done.code or not mark:
        raise RuntimeError(f"our own program failed on {host} with {done.code}:\n{done.err}")
    return json.loads(text)


def _refusal(host: str, answer: dict[str, Any]) -> EdgemlError:
    if answer["full"]:
        return EdgemlError(f"the disk of {host} is full", hint=f"make room there: ssh {host} df -h")
    what = f"cannot use {answer['file']} on {host}: {answer['refused']}"
    return EdgemlError(what, hint=f"check who may write there: ssh {host}")


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f} MB" if count < 10e6 else f"{count / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(round(seconds), 1)} s"
    return f"{round(seconds / 60)} minutes"
