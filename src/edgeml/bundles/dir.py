"""A bundle as a plain folder, to be copied with any tool."""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, SITE, SUMS, Bundle, check_files
from edgeml_runtime.records import read_record

SUFFIX = ""
SIGNATURE = "model.sig"  # of the whole folder, and so in no list of its files


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
    return all(_content(made / name) == _content(present / name) for name in (SUMS, SIGNATURE))


def unpack(path: Path, folder: Path) -> Path:
    """A copy of every file but what a run left; a link or a device among them is refused."""
    goal = folder / path.resolve().name
    for source in sorted(path.rglob("*")):
        name = source.relative_to(path)
        if was_left(name) or (source.is_dir() and not source.is_symlink()):
            continue
        if source.is_symlink() or not source.is_file():
            hint = "do not use this bundle; tell who gave it to you"
            raise EdgemlError(f"{source} is a link, a device, or no plain file", hint=hint)
        (goal / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, goal / name)
    return goal


def was_left(name: Path) -> bool:
    """Whether a file or folder of that name, in a bundle comes from a run: unpacked wheels, compiled code."""
    return name.parts[0].startswith(SITE) or "__pycache__" in name.parts


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def mode(path: Path) -> int:
    """Permissions of a file or folder in a bundle: all may read, and only the maker's script may be run."""
    return 0o755 if path.is_dir() or path.suffix == ".sh" else 0o644
