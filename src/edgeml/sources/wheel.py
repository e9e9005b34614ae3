"""A wheel taken apart without installing it: nothing in it runs, and nothing leaves its folder.

Knows nothing of models; hands out members whose bytes agree with the wheel's own RECORD.
"""

from __future__ import annotations

import base64
import csv
import errno
import hashlib
import lzma
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import Parser
from pathlib import Path, PurePosixPath

from edgeml.errors import EdgemlError, why
from edgeml.sources.contents import is_inside
from edgeml_runtime.records import CHUNK_BYTES

_LARGEST_RATIO = 100  # weights hardly compress and text does tenfold; deflate's own limit is near 1000
_LARGEST_LICENCE_CHARS = 60  # some packages put the whole text where its name belongs
_CLASSIFIED = {"Apache Software License": "Apache-2.0", "MIT License": "MIT", "BSD License": "BSD"}
# What the standard library raises for a damaged zip, and for a RECORD in it that is no table.
BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    csv.Error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    IndexError,
)


class Wheel:
    """An open wheel whose member names are known to be safe."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self._members = {member.filename: member for member in archive.infolist() if not member.is_dir()}
        self._check_names()
        self._check_sizes()
        self.info = self._info_folder()
        self._digests = self._record()

    @property
    def names(self) -> tuple[str, ...]:
        """Every file that is not the wheel's own metadata."""
        return tuple(name for name in self._members if not name.startswith(f"{self.info}/"))

    @property
    def licence_files(self) -> tuple[str, ...]:
        """The licence texts that the wheel carries."""
        found = (name for name in self._members if name.startswith(f"{self.info}/"))
        return tuple(
            name for name in found if name.rpartition("/")[2].upper().startswith(("LICEN", "NOTICE", "COPYING"))
        )

    def size(self, name: str) -> int:
        """Bytes of a member once it is unpacked."""
        return self._members[name].file_size

    def licence(self) -> str | None:
        """The licence that the wheel's metadata states, if it states one in a few words."""
        metadata = Parser().parsestr(self._text(f"{self.info}/METADATA"), headersonly=True)
        stated = metadata.get("License-Expression") or metadata.get("License")
        return stated if stated and len(stated) <= _LARGEST_LICENCE_CHARS and "\n" not in stated else None

    def classified(self) -> str | None:
        """The licence that the metadata's classifiers name, where it states none in words of its own."""
        metadata = Parser().parsestr(self._text(f"{self.info}/METADATA"), headersonly=True)
        found = [value for value in metadata.get_all("Classifier", []) if value.startswith("License ::")]
        names = [_CLASSIFIED.get(name := value.rpartition(" :: ")[2], name) for value in found]
        return " AND ".join(dict.fromkeys(names)) or None

    def extract(self, name: str, goal: Path) -> None:
        """Write one member; raises EdgemlError when its bytes are not those that RECORD names."""
        goal.parent.mkdir(parents=True, exist_ok=True)
        digest = hashlib.sha256()
        with self._archive.open(name) as source, goal.open("xb") as target:
            while chunk := source.read(CHUNK_BYTES):
                digest.update(chunk)
                target.write(chunk)
        found = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        if self._digests.get(name) != f"sha256={found}":
            raise self._refused(f"{name} differs from the wheel's RECORD")

    def _check_names(self) -> None:
        for member in self._archive.infolist():
            if not is_inside(member.filename):
                raise self._refused(f"{member.filename!r} would leave its folder")
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise self._refused(f"{member.filename} is a link or a device")
        folded = [member.filename.casefold().rstrip("/") for member in self._archive.infolist()]
        if len(set(folded)) < len(folded):
            twice = Counter(folded).most_common(1)[0][0]
            raise self._refused(f"{twice} stands in it twice")
        folders = {str(parent) for name in self._members for parent in PurePosixPath(name.casefold()).parents}
        if both := next((name for name in self._members if name.casefold() in folders), None):
            raise self._refused(f"{both} is a file and a folder")

    def _check_sizes(self) -> None:
        unpacked = sum(member.file_size for member in self._members.values())
        if max((member.compress_size for member in self._members.values()), default=0) > self.path.stat().st_size:
            raise self._refused("a file in it is longer than it is itself")  # Python would make room for it at once
        if unpacked > _LARGEST_RATIO * self.path.stat().st_size:
            raise self._refused(f"it would unpack to {unpacked} bytes")

    def _info_folder(self) -> str:
        found = {name.partition("/")[0] for name in self._members if name.endswith(".dist-info/RECORD")}
        if len(found) != 1:
            raise self._refused(f"it has {len(found)} RECORD files")
        return found.pop()

    def _record(self) -> dict[str, str]:
        rows = csv.reader(self._text(f"{self.info}/RECORD").splitlines())
        return {row[0]: row[1] for row in rows if len(row) >= 2}

    def _text(self, name: str) -> str:
        if name not in self._members:
            raise self._refused(f"it has no {name}")
        return self._archive.read(name).decode()

    def _refused(self, reason: str) -> EdgemlError:
        return EdgemlError(
            f"{self.path.name} is refused: {reason}", hint="do not use this wheel; tell who published it"
        )


@contextmanager
def opened(path: Path) -> Iterator[Wheel]:
    """The wheel at a path; raises EdgemlError when it is broken or dangerous."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield Wheel(path, archive)
    except (*BROKEN_ZIP, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # which a zip's own wrong offsets are
            raise
        raise EdgemlError(f"{path.name} is a broken wheel: {why(error)}", hint="run it again") from error
