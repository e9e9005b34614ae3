"""Pictures as data: a file of rows that names them, or a folder of them whose sub-folders are their labels."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.types import Dataset
from edgeml_runtime.errors import EdgemlError as RuntimeRefusal
from edgeml_runtime.rows import located, read_rows, rename
from edgeml_runtime.types import Row

ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_images(path: Path, *, columns: Mapping[str, str], limit: int | None = None) -> Dataset:
    """Rows with `file`, an absolute path, and a `label` where there is one; `limit` keeps the first of them.

    A data file's paths are relative to its own folder. A folder's pictures are labelled by the sub-folders that they
    lie in, and taken from each in turn; without sub-folders they have no label. The digest covers labels and pictures.
    Raises EdgemlError naming the row and the file that is missing or cannot be decoded.
    """
    rows = _of_folder(path) if path.is_dir() else located(rename(read_rows(path), dict(columns), str(path)), path)
    rows, digest = rows[:limit], hashlib.sha256()
    for number, row in enumerate(rows, 1):
        digest.update(f"{row.get('label')}\0".encode() + hashlib.sha256(_checked(row["file"], number)).digest())
    return Dataset(
        name=path.name, sha256=digest.hexdigest(), rows=tuple(rows), path=str(path.resolve()), columns=dict(columns)
    )


def _of_folder(folder: Path) -> list[Row]:
    beside, inside = _pictures(folder), {}
    for part in sorted(folder.iterdir()):
        if part.is_dir() and (found := _pictures(part)):
            inside[part.name] = found
    if not beside and not inside:
        raise EdgemlError(f"there are no pictures in {folder}", hint=f"known endings: {', '.join(ENDINGS)}")
    if beside and inside:
        problem = f"{folder} has pictures beside its sub-folders, so these have no label"
        raise EdgemlError(problem, hint="move them into a sub-folder each, or all into one folder")
    if not inside:
        return [{"file": str(path)} for path in beside]
    turns = sorted((turn, label, path) for label, paths in inside.items() for turn, path in enumerate(paths))
    return [{"file": str(path), "label": label} for _, label, path in turns]


def _pictures(folder: Path) -> list[Path]:
    paths = (path.resolve() for path in folder.iterdir() if path.suffix.lower() in ENDINGS)
    return sorted(path for path in paths if path.is_file())


def _checked(file: str, number: int) -> bytes:
    """The content of a picture that can be decoded."""
    try:
        from edgeml_runtime.pixels import decoded

        content = Path(file).read_bytes()
        decoded(content)
    except OSError as error:
        raise EdgemlError(f"cannot read {file} (row {number}): {error.strerror}", hint="check its path") from error
    except ModuleNotFoundError as error:
        raise EdgemlError("reading pictures needs the Python package pillow", hint="pip install pillow") from error
    except RuntimeRefusal as error:
        raise EdgemlError(f"{file} (row {number}): {error.message}", hint=error.hint) from error
    return content
