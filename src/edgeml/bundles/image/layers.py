"""Layers of an image: gzipped tars that follow from their files alone, sorted, owned by root, of one fixed time."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from edgeml_runtime.types import Record

_LEVEL = 6
_TYPES = {"file": tarfile.REGTYPE, "link": tarfile.SYMTYPE, "folder": tarfile.DIRTYPE}


class Layer(Record, frozen=True, kw_only=True):
    """A layer's blob: `digest` and `size_bytes` of the packed file, `diff_id` of the tar inside; both `sha256:...`."""

    digest: str
    diff_id: str
    size_bytes: int


class Entry(NamedTuple):
    """One file, link or folder of an image: `content` is a file to copy, bytes, or where a link leads."""

    name: str
    content: Path | bytes | str | None = None
    mode: int = 0o644
    owner: int = 0

    @property
    def kind(self) -> str:
        """What it is: file, link or folder."""
        if self.content is None:
            return "folder"
        return "link" if isinstance(self.content, str) else "file"


class Hashed(io.RawIOBase):
    """Passes on what is written, and knows its digest and size."""

    def __init__(self, goal: IO[bytes]) -> None:
        super().__init__()
        self._goal, self._digest, self.size_bytes = goal, hashlib.sha256(), 0

    def writable(self) -> bool:
        """Always."""
        return True

    def write(self, data: object) -> int:
        """Bytes to pass on."""
        view = memoryview(cast("bytes", data))
        self._digest.update(view)
        self._goal.write(view)
        self.size_bytes += view.nbytes
        return view.nbytes

    @property
    def digest(self) -> str:
        """Of all that was written, as OCI writes it."""
        return f"sha256:{self._digest.hexdigest()}"


def tar_digest(entries: Iterable[Entry]) -> str:
    """What `diff_id` the layer of these entries has; nothing is written."""
    with Path(os.devnull).open("wb") as nothing:
        plain = Hashed(nothing)
        _write(entries, plain)
    return plain.digest


def write_layer(entries: Iterable[Entry], blobs: Path) -> Layer:
    """The layer of these entries, as a blob in a folder of blobs; folders above them are added."""
    part = blobs / "layer.part"
    with part.open("wb") as raw:
        packed = Hashed(raw)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=packed, mtime=0) as zipped:
            plain = Hashed(cast("IO[bytes]", zipped))
            _write(entries, plain)
    os.replace(part, blobs / packed.digest.removeprefix("sha256:"))
    return Layer(digest=packed.digest, diff_id=plain.digest, size_bytes=packed.size_bytes)


def _write(entries: Iterable[Entry], goal: Hashed) -> None:
    with tarfile.open(fileobj=cast("IO[bytes]", goal), mode="w|", format=tarfile.PAX_FORMAT) as archive:
        for entry in _with_folders(entries):
            _add(archive, entry)


def _with_folders(entries: Iterable[Entry]) -> list[Entry]:
    named = {entry.name: entry for entry in entries}
    above = {str(folder) for name in named for folder in PurePosixPath(name).parents if str(folder) != "."}
    folders = [Entry(name=name, mode=0o755) for name in above - named.keys()]
    return sorted([*named.values(), *folders], key=lambda entry: entry.name.split("/"))


def _add(archive: tarfile.TarFile, entry: Entry) -> None:
    member = tarfile.TarInfo(entry.name)
    member.mode, member.mtime, member.type = entry.mode, 0, _TYPES[entry.kind]
    member.uid = member.gid = entry.owner
    if isinstance(entry.content, Path):
        member.size = entry.content.stat().st_size
        with entry.content.open("rb") as content:
            archive.addfile(member, content)
    elif isinstance(entry.content, bytes):
        member.size = len(entry.content)
        archive.addfile(member, io.BytesIO(entry.content))
    else:
        member.linkname = entry.content or ""
        archive.addfile(member)
