"""Files of installed versions: found by their digest, proven, placed without a copy, written so that they last."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

FULL = (errno.ENOSPC, errno.EDQUOT)


class Intact:
    """Whether a file has the bytes of a digest and a size; each is read once."""

    def __init__(self) -> None:
        self._digests: dict[tuple[int, int, int, int], str] = {}

    def __call__(self, path: Path, digest: str, size_bytes: int) -> bool:
        if not path.is_file():
            return False
        found = path.stat()
        if found.st_size != size_bytes:
            return False
        key = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
        if key not in self._digests:
            self._digests[key] = _sha256(path)
        return self._digests[key] == digest


def kept(root: Path) -> dict[str, list[Path]]:
    """Where files of installed versions lie, by digest: of this installation and of its neighbours."""
    found: dict[str, list[Path]] = {}
    for folder in dict.fromkeys([*root.glob("versions/*"), *root.parent.glob("*/versions/*")]):
        if not (folder / "SHA256SUMS").is_file():  # some other program's, or a version that is half removed
            continue
        listed = {name: digest for digest, _, name in (line.partition("  ") for line in sums(folder))}
        unlisted = [path.name for path in folder.iterdir() if path.is_file() and path.name not in listed]
        listed |= {name: _sha256(folder / name) for name in unlisted}  # the list itself, and the signature
        for name, digest in listed.items():
            found.setdefault(digest, []).append(folder / name)
    return found


def sums(folder: Path) -> list[str]:
    """The lines of a version's SHA256SUMS."""
    return (text_of(folder / "SHA256SUMS") or "").splitlines()


def place(source: Path, path: Path) -> None:
    """The same file under another name, which it takes from one instant to the next."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.unlink(missing_ok=True)
    linked(source, part)
    os.replace(part, path)


def linked(source: Any, goal: Any) -> None:
    """Link a file, or copy it where that cannot be."""
    try:
        os.link(source, goal)
    except OSError as error:
        if error.errno in FULL:
            raise
        shutil.copyfile(source, goal)  # another disk, or one that knows no links


def write(path: Path, text: str) -> None:
    """Replace a file's text from one instant to the next, on the disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    on_disk(path.parent)


def on_disk(folder: Path) -> None:
    """Names in a folder that changed stay so whatever happens to the power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def json_of(path: Path) -> Any:
    """What a file of JSON holds; an empty object where there is none."""
    return json.loads(text_of(path) or "{}")


def text_of(path: Path) -> str | None:
    """A file's text; None where there is none."""
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
