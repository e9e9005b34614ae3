"""The files of a deb, rpm or apk, read by the standard library: no tool of those systems is needed to check one.

Layouts: deb(5); the RPM manual's package format (lead, signature, header, payload); cpio(5), "newc"; and Alpine's
apk v2, which is gzipped tar archives in a row.
"""

from __future__ import annotations

import gzip
import io
import re
import struct
import zlib
from pathlib import Path
from typing import IO, cast

from edgeml.bundles.extraction import Bounded, Intake, limit_of, require_end, unpack_tar
from edgeml.errors import EdgemlError, disk_refusal, why

_LEAD, _HEADER = b"\xed\xab\xee\xdb", b"\x8e\xad\xe8"
# dpkg takes them in this order, of several data members the first, however it is packed, and ignores what follows.
_MEMBERS = ("debian-binary", "control.tar.gz", "data.tar.gz")
_LONGEST_NAME = 4096  # Linux' own, of a path
_FILE, _FOLDER, _KIND = 0o100000, 0o040000, 0o170000


def extract(package: Path, folder: Path) -> None:
    """Write a package's files below `folder`, those that its steps are left out.

    Raises EdgemlError for a package that is damaged, or holds anything but plain files that stay in the folder.
    """
    intake = Intake(folder, package.name, limit_of(package))
    read = {".deb": _read_deb, ".rpm": _read_rpm, ".apk": _read_apk}[package.suffix]
    try:
        with package.open("rb") as stream:
            read(stream, intake)
    except (zlib.error, EOFError, ValueError, struct.error, OSError) as error:
        if isinstance(error, OSError) and disk_refusal(error):
            raise
        raise EdgemlError(f"{package.name} is no complete package: {why(error)}", hint="copy it again") from error


def _read_deb(stream: IO[bytes], intake: Intake) -> None:
    if stream.read(8) != b"!<arch>\n":
        raise ValueError("it does not begin as one")
    for wanted in _MEMBERS:
        name, size = _member(stream)
        piece = _Piece(stream, size)
        if name != wanted or (name == "debian-binary" and piece.read(size) != b"2.0\n"):
            raise intake.refused(name, f"only {', '.join(_MEMBERS)} belong in it, in this order")
        if name == "data.tar.gz":
            unpack_tar(gzip.open(piece), intake)  # noqa: SIM115 - it has no file of its own
        stream.seek(piece.left + size % 2, io.SEEK_CUR)
    if stream.read(1):
        raise intake.refused("its end", "something follows it")


def _member(stream: IO[bytes]) -> tuple[str, int]:
    """The name and the size of an ar archive's next member."""
    header = stream.read(60)
    if len(header) < 60 or header[58:] != b"`\n":
        raise EOFError("it is cut off, or damaged")
    return header[:16].decode("ascii").rstrip(" ").removesuffix("/"), _count(header[48:58], 10)


def _read_apk(stream: IO[bytes], intake: Intake) -> None:
    # .PKGINFO and the scripts stand before the data, under names of the top that begin with a dot.
    unpack_tar(gzip.open(stream), intake, keep=lambda name: not re.match(r"\.[A-Z][A-Z]+$|\.(pre|post)-", name))  # noqa: SIM115


def _read_rpm(stream: IO[bytes], intake: Intake) -> None:
    if stream.read(96)[:4] != _LEAD:
        raise ValueError("it does not begin as one")
    _skip_header(stream)
    stream.seek(-stream.tell() % 8, io.SEEK_CUR)  # the signature is padded
    _skip_header(stream)
    with gzip.open(stream) as packed:
        payload = cast("IO[bytes]", Bounded(packed, intake))
        while _read_cpio_member(payload, intake):
            pass
        require_end(payload, intake)


def _read_cpio_member(payload: IO[bytes], intake: Intake) -> bool:
    """Take one member in; whether another may follow."""
    header = payload.read(110)
    if header[:6] != b"070701" or len(header) < 110:
        raise ValueError("its payload is no cpio archive")
    fields = [_count(header[6 + 8 * index : 14 + 8 * index], 16) for index in range(13)]
    mode, links, size, length = fields[1], fields[4], fields[6], fields[11]
    if length > _LONGEST_NAME:
        raise ValueError("a name in it is too long")
    name = payload.read(length + -(110 + length) % 4)[: length - 1].decode().removeprefix("./").lstrip("/")
    if name == "TRAILER!!!":
        return False
    if mode & _KIND == _FILE and links == 1:
        intake.add(name, cast("IO[bytes]", _Piece(payload, size)))
        payload.read(-size % 4)
    elif mode & _KIND != _FOLDER or size:
        raise intake.refused(name, "it is a link, a device, or no plain file")
    return True


def _count(digits: bytes, base: int) -> int:
    """A number in a header. Python would take a sign, too: a negative size leads back, or reads all at once."""
    if not re.fullmatch(rb"[0-9A-Fa-f]+ *", digits):
        raise ValueError("a number in it is none")
    return int(digits, base)


def _skip_header(stream: IO[bytes]) -> None:
    magic, _, entries, size = struct.unpack(">4s4sII", stream.read(16))
    if not magic.startswith(_HEADER):
        raise ValueError("its header is damaged")
    stream.seek(16 * entries + size, io.SEEK_CUR)


class _Piece(io.RawIOBase):
    """The next bytes of a stream, and no more of it; `left` counts those that nobody read."""

    def __init__(self, stream: IO[bytes], size: int) -> None:
        self._stream, self.left = stream, size

    def readable(self) -> bool:
        """Yes."""
        return True

    def read(self, size: int = -1) -> bytes:
        """As a file's; a stream that ends too early is refused."""
        wanted = self.left if size < 0 else min(size, self.left)
        found = self._stream.read(wanted)
        if len(found) < wanted:
            raise EOFError("it is cut off")
        self.left -= len(found)
        return found
