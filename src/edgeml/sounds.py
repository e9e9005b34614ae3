"""Sounds as data: a file of rows that names them, or a folder of them with what is said in a text file beside each."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.types import Dataset
from edgeml_runtime.errors import EdgemlError as RuntimeRefusal
from edgeml_runtime.rows import content, located, read_rows, rename
from edgeml_runtime.types import Row

ENDING = ".wav"


def read_sounds(path: Path, *, columns: Mapping[str, str], limit: int | None = None) -> Dataset:
    """Rows with `file`, an absolute path, and `expected`, what is said, where that is known; `limit` keeps the first.

    A data file's paths are relative to its own folder. Of a folder, what is said in `one.wav` stands in `one.txt`. The
    digest covers texts and sounds. Raises EdgemlError naming the row and the file that is missing or cannot be read.
    """
    rows = _of_folder(path) if path.is_dir() else located(rename(read_rows(path), dict(columns), str(path)), path)
    rows, digest = rows[:limit], hashlib.sha256()
    for number, row in enumerate(rows, 1):
        digest.update(f"{row.get('expected')}\0".encode() + hashlib.sha256(_checked(row["file"], number)).digest())
    return Dataset(
        name=path.name, sha256=digest.hexdigest(), rows=tuple(rows), path=str(path.resolve()), columns=dict(columns)
    )


def _of_folder(folder: Path) -> list[Row]:
    found = sorted(path.resolve() for path in folder.iterdir() if path.suffix.lower() == ENDING and path.is_file())
    if not found:
        raise EdgemlError(f"there are no {ENDING} files in {folder}", hint="give a folder of them, or a file of rows")
    return [{"file": str(path), **_said(path.with_suffix(".txt"))} for path in found]


def _said(beside: Path) -> Row:
    if not beside.is_file():
        return {}
    try:
        return {"expected": beside.read_text(encoding="utf-8-sig").strip()}
    except (OSError, UnicodeDecodeError) as error:
        hint = f"convert it: iconv -t utf-8 {beside.name}"
        raise EdgemlError(f"{beside} cannot be read as UTF-8", hint=hint) from error


def _checked(file: str, number: int) -> bytes:
    """The content of a sound that can be read."""
    from edgeml_runtime.sound import read_wave

    try:
        found = content(file)
        read_wave(found)
    except RuntimeRefusal as error:
        raise EdgemlError(f"{file} (row {number}): {error.message}", hint=error.hint) from error
    return found
