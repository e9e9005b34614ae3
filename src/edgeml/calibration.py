"""The inputs that a scheme is calibrated with: the user's own, read once and digested; no label is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats import Calibration
from edgeml.images import read_images
from edgeml_runtime.records import sha256
from edgeml_runtime.rows import read_rows, rename
from edgeml_runtime.tasks import ready
from edgeml_runtime.types import Row

_TEXTS = ("text", "sentence1", "sentence2")


def read_calibration(path: Path, *, task: str, columns: Mapping[str, str]) -> Calibration:
    """The inputs in a file, or in a folder of pictures, as models of that task read them.

    A plain text file's lines are texts. Of rows, `text` is read, or both sentences, or `tokens` for models of words;
    `columns` maps the file's names to those. Rows without an input are left out. Raises EdgemlError for a file without
    any, for an input that is no text, and for a file that cannot be read.
    """
    if task == "image-classification":
        found = read_images(path, columns=columns)
        files = tuple(str(row["file"]) for row in found.rows)
        return Calibration(name=path.name, sha256=found.sha256, images=files)
    if task == "automatic-speech-recognition":
        raise EdgemlError("a model that hears takes no calibration inputs yet", hint="leave --calibration out")
    rows = rename(read_rows(path), dict(columns), str(path))
    if task == "token-classification":
        words = tuple(tuple(row["tokens"]) for row in ready(task, rows, str(path)))
        return Calibration(name=path.name, sha256=sha256(path), words=words)
    return Calibration(name=path.name, sha256=sha256(path), texts=_texts(rows, path))


def _texts(rows: Sequence[Row], path: Path) -> tuple[str, ...]:
    names = [name for name in _TEXTS if name in rows[0]]
    if not names:
        hint = f"name yours, one of {', '.join(rows[0])}: --columns YOURS=text"
        raise EdgemlError(f"{path} has no column text to calibrate with", hint=hint)
    for number, row in enumerate(rows, 1):
        for name in names:
            if not isinstance(row.get(name), str | None):
                raise EdgemlError(f"{name!r} in row {number} of {path} is no text", hint="write it in quotes")
    found = tuple(row[name] for row in rows for name in names if (row.get(name) or "").strip())
    if not found:
        raise EdgemlError(f"{path} holds no text to calibrate with", hint="give lines like those the model will read")
    return found
