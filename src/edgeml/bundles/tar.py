"""A bundle as one `.tar.gz` holding one folder. Depends on the files' bytes alone: not on owner, time or machine."""

from __future__ import annotations

import filecmp
import gzip
import tarfile
from pathlib import Path

from edgeml.bundles.dir import mode
from edgeml.bundles.extraction import Intake, first_file, limit_of, only_folder, unpack_tar
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, Bundle
from edgeml_runtime.records import decode, sha256

SUFFIX = ".tar.gz"
_YEAR_2000 = 946684800


def seal(folder: Path) -> Path:
    """The archive of a folder, beside it."""
    goal = folder.with_name(folder.name + SUFFIX)
    with (
        goal.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            with path.open("rb") as content:
                archive.addfile(_entry(path, path.relative_to(folder.parent).as_posix()), content)
    return goal


def read(path: Path) -> Bundle:
    """The manifest inside an archive."""
    try:
        with gzip.open(path) as stream:
            content = first_file(stream, path, lambda name: name.endswith(f"/{MANIFEST}"))
    except OSError as error:
        raise EdgemlError(f"{path} is no complete archive", hint="edgeml package --force makes it again") from error
    if content is not None:
        return decode(content, Bundle, where=f"{path.name}/{MANIFEST}")
    raise EdgemlError(f"{path} holds no {MANIFEST}", hint="move it elsewhere: it is no bundle")


def same(made: Path, present: Path) -> bool:
    """Whether the two archives are equal."""
    return present.is_file() and filecmp.cmp(made, present, shallow=False)


def unpack(path: Path, folder: Path) -> Path:
    """The one folder that the archive holds."""
    intake = Intake(folder, path.name, limit_of(path))
    with gzip.open(path) as stream:
        unpack_tar(stream, intake)
    return only_folder(folder, path)


def _entry(path: Path, name: str) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.size = path.stat().st_size
    entry.mode = mode(path)
    # A time that follows from the contents: with one fixed time, rsync and Python's compiled files would take a
    # changed file of the same size for the old one.
    entry.mtime = _YEAR_2000 + int(sha256(path)[:6], 16)
    return entry
