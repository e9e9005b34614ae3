"""A bundle as a plain folder, to be copied with any tool."""

from __future__ import annotations

from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, SUMS, check_files
from edgeml_runtime.records import read_record
from edgeml_runtime.types import Bundle

SUFFIX = ""


def seal(folder: Path) -> Path:
    """The folder itself, with the modes that it has for everybody."""
    for path in (folder, *folder.rglob("*")):
        path.chmod(mode(path))
    return folder


def read(path: Path) -> Bundle:
    """The manifest of a bundle's folder."""
    return read_record(path / MANIFEST, Bundle)


def same(made: Path, present: Path) -> bool:
    """Whether the checksums are equal and still hold. What a run added beside them, such as unpacked wheels, stays."""
    try:
        check_files(present)
    except EdgemlError:
        return False
    return (made / SUMS).read_bytes() == (present / SUMS).read_bytes()


def mode(path: Path) -> int:
    """Permissions of a file or folder in a bundle: all may read, and only the maker's script may be run."""
    return 0o755 if path.is_dir() or path.suffix == ".sh" else 0o644
