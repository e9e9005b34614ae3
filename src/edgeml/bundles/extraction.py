"""Taking an archive apart that somebody else wrote: no name in it leaves its folder, and none of it fills the disk."""

from __future__ import annotations

import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from edgeml.errors import EdgemlError, disk_refusal
from edgeml.sources.contents import is_inside
from edgeml_runtime.bundle import MANIFEST
from edgeml_runtime.records import CHUNK_BYTES

_SPARE_BYTES = 64 << 20
_LARGEST_RATIO = 20  # weights hardly compress, and text does tenfold
_MOST_FILES = 100_000
_LONGEST_NAME = 1024
_LONGEST_PART_BYTES = 255  # of Linux' and other systems' disks
LARGEST_MANIFEST_BYTES = 64 << 20
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE)


class Stream(Protocol):
    """What a tar is read from."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


class Intake:
    """A folder that fills with the files of one archive; `limit_bytes` bounds them all together.

    Every method raises EdgemlError, naming the archive and the member, for what must not be in it.
    """

    def __init__(self, folder: Path, archive: str, limit_bytes: int) -> None:
        self.folder, self.archive, self.limit_bytes = folder, archive, limit_bytes
        self._left_bytes = limit_bytes
        self._files: set[str] = set()
        self._folders: set[str] = set()

    def add(self, name: str, content: IO[bytes]) -> Path:
        """Write one member's content under its name."""
        goal = self.folder / self.accept(name)
        goal.parent.mkdir(parents=True, exist_ok=True)
        with goal.open("xb") as file:
            while chunk := content.read(CHUNK_BYTES):
                self._left_bytes -= len(chunk)
                if self._left_bytes < 0:
                    raise self.refused(name, "it unpacks to more than such an archive may")
                file.write(chunk)
        return goal

    def accept(self, name: str) -> PurePosixPath:
        """A member's name as a path below the folder, once it is known to be safe there."""
        path = PurePosixPath(name)
        possible = name.isprintable() and len(name) <= _LONGEST_NAME
        possible = possible and all(len(part.encode()) <= _LONGEST_PART_BYTES for part in path.parts)
        if not is_inside(name) or not possible or path == PurePosixPath():
            raise self.refused(name, "its name would leave the folder, or is none")
        folded = str(path).casefold()  # some disks take `A` and `a` for one
        parents = {str(parent).casefold() for parent in path.parents} - {"."}
        if folded in self._files or folded in self._folders or parents & self._files:
            raise self.refused(name, "it stands there twice")
        self._files.add(folded)
        self._folders |= parents
        if len(self._files) > _MOST_FILES:
            raise self.refused(name, f"it is one of more than {_MOST_FILES} files")
        return path

    def refused(self, name: str, reason: str) -> EdgemlError:
        """The refusal of a member."""
        message = f"{self.archive} is refused: {name[:80]!r}: {reason}"
        return EdgemlError(message, hint="do not use this bundle; tell who gave it to you")


def limit_of(archive: Path) -> int:
    """How many bytes an archive may unpack to, by its own size."""
    return _SPARE_BYTES + _LARGEST_RATIO * archive.stat().st_size


def unpack_tar(stream: Stream, intake: Intake, *, keep: Callable[[str], bool] | None = None) -> None:
    """Every regular file of a tar that is read from `stream`, decompressed; links, devices and others are refused.

    `keep` says by its name whether a member is wanted; what is not is passed over.
    """
    try:
        with tarfile.open(fileobj=Bounded(stream, intake), mode="r|") as packed:
            for member in packed:
                if member.isdir() or (keep and not keep(member.name)):
                    continue
                content = packed.extractfile(member) if member.type in _REGULAR and member.sparse is None else None
                if content is None:
                    raise intake.refused(member.name, "it is a link, a device, or no plain file")
                intake.add(member.name, content)
            require_end(packed.fileobj, intake)
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and disk_refusal(error):
            raise
        raise EdgemlError(f"{intake.archive} is no complete archive", hint="copy it again") from error


def first_file(stream: Stream, archive: Path, wanted: Callable[[str], bool]) -> bytes | None:
    """The content of the first plain file of a tar whose name is `wanted`; None where there is none.

    Of one that is larger than any manifest, its beginning. Raises EdgemlError for what is no tar.
    """
    intake = Intake(archive.parent, archive.name, limit_of(archive))
    try:
        with tarfile.open(fileobj=Bounded(stream, intake), mode="r|") as packed:
            for member in packed:
                content = packed.extractfile(member) if member.type in _REGULAR and wanted(member.name) else None
                if content is not None:
                    return content.read(LARGEST_MANIFEST_BYTES)
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError) as error:
        raise EdgemlError(f"{archive} is no complete archive", hint="copy it again, or make it again") from error
    return None


def only_folder(folder: Path, archive: Path) -> Path:
    """The bundle's folder, where an archive holds that and nothing beside it."""
    found = sorted(folder.iterdir())
    if len(found) != 1 or not (found[0] / MANIFEST).is_file():
        names = ", ".join(path.name for path in found) or "nothing"
        hint = "do not use this bundle; tell who gave it to you"
        raise EdgemlError(f"{archive} holds no bundle alone, but {names}", hint=hint)
    return found[0]


def require_end(stream: Stream, intake: Intake) -> None:
    """Read on to a stream's own end, where a checksum may be: after an archive's last member there are zeros alone."""
    while chunk := stream.read(CHUNK_BYTES):
        if chunk.strip(b"\0"):
            raise intake.refused("its end", "something follows it")


class Bounded(io.RawIOBase):
    """A stream that ends in a refusal once it gave more than an archive's headers and contents may have."""

    def __init__(self, stream: Stream, intake: Intake) -> None:
        self._stream, self._intake, self._left_bytes = stream, intake, intake.limit_bytes + _SPARE_BYTES

    def read(self, size: int = -1) -> bytes:
        """As a file's."""
        found = self._stream.read(size)
        self._left_bytes -= len(found)
        if self._left_bytes < 0:
            raise self._intake.refused("its headers", "they unpack to more than such an archive may")
        return found
