"""The user's data: a file of rows with a task's columns, or a plain text; read once, digested, checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.images import read_images
from edgeml.scores import as_text
from edgeml.sounds import read_sounds
from edgeml.types import Dataset
from edgeml_runtime.records import parse_json, sha256
from edgeml_runtime.rows import check_columns, read_rows, rename
from edgeml_runtime.tasks import ready, task_of
from edgeml_runtime.types import Row

MOST_SLICES = 50  # a column of more values is a name or a number: each of its slices would hold a row or two

# Measured when the user gives no data: short and long, plain and accented, as everyday lines are.
NEUTRAL_LINES = (
    "Invoice 4471 for March, payable within thirty days.",
    "Please move my appointment to Thursday afternoon.",
    "The pump in hall two stopped at 06:40 and restarted by itself.",
    "Rechnung über drei Bürostühle, Lieferung nächste Woche.",
    "Le colis est arrivé ce matin, mais la boîte était ouverte.",
    "Reset password",
    "Paid at the ticket machine, platform 4, single fare, no receipt printed.",
    "Which of the two sensors reports the higher humidity, and since when does it differ from the other one?",
    "Transfer of 1,250.00 to the landlord for the warehouse, reference RENT 07, booked on the first working day.",
    "El envío llegó tarde y falta una pieza; adjunto tres fotos del embalaje y el número de seguimiento.",
)
_ON_PLAIN_TEXT = (
    "feature-extraction",
    "text-classification",
    "text-generation",
    "text2text-generation",
    "token-classification",
)


def read_dataset(
    path: Path, *, task: str, columns: Mapping[str, str], limit: int | None = None, reference: Path | None = None
) -> Dataset:
    """The data of a task. `columns` maps the file's names to the task's; `limit` keeps the first rows.

    `reference` is a file of labelled rows among which `feature-extraction` seeks the nearest, instead of among the
    other rows. Raises EdgemlError for a file that cannot be read, lacks a column, or has too few rows for the task.
    """
    if reference is not None and task != "feature-extraction":
        raise EdgemlError(f"{task} seeks no nearest row, so it takes no reference", hint="leave --reference out")
    if task == "perplexity":
        return Dataset(name=path.name, text=_plain_text(path), sha256=sha256(path), path=str(path.resolve()))
    if task == "image-classification":
        return read_images(path, columns=columns, limit=limit)
    if task == "automatic-speech-recognition":
        return read_sounds(path, columns=columns, limit=limit)
    found = rename(read_rows(path), dict(columns))
    if task == "sentence-similarity":
        _require_pairs(found[0], path)
    rows = ready(task, found, str(path))
    return Dataset(
        name=path.name,
        sha256=sha256(path),
        rows=tuple(rows[:limit]) if reference else _enough(rows[:limit], task),
        path=str(path.resolve()),
        columns=dict(columns),
        reference_rows=_labelled(reference, columns) if reference else (),
        reference_sha256=sha256(reference) if reference else None,
    )


def choose_task(variant_task: str, path: Path | None, columns: Mapping[str, str]) -> str:
    """The task that a variant and the columns of the data suggest, where the user named none."""
    if variant_task != "sentence-similarity":
        return variant_task
    pairs = path is not None and "sentence1" in rename(read_rows(path), dict(columns))[0]
    return "sentence-similarity" if pairs else "feature-extraction"


def dataset_for(
    task: str, path: Path | None, columns: Mapping[str, str], *, limit: int | None, reference: Path | None = None
) -> Dataset:
    """The user's data, or without any a few neutral lines, which cost the same to run but can judge nothing."""
    if path is not None:
        return read_dataset(path, task=task, columns=columns, limit=limit, reference=reference)
    if reference is not None:
        raise EdgemlError("a reference is for data of yours, and none was given", hint="--data FILE")
    task_of(task)  # an unknown one is refused, before it is said to need data
    if task not in _ON_PLAIN_TEXT:
        named = {"image-classification": "pictures", "automatic-speech-recognition": "sounds"}.get(task)
        more = f" of rows that name {named}, or a FOLDER of them" if named else ""
        raise EdgemlError(f"{task} needs data", hint=f"--data FILE{more}")
    rows = _enough(ready(task, [{"text": line} for line in NEUTRAL_LINES[:limit]], "the neutral lines"), task)
    text = "\n".join(NEUTRAL_LINES).encode()
    return Dataset(name="neutral lines (no --data)", sha256=hashlib.sha256(text).hexdigest(), rows=rows)


def slice_values(dataset: Dataset, columns: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The value of each row in those columns, as text: what `--slice` asks for and a run keeps.

    Rows without a value are the slice `missing`. A column that `--columns` renamed is known by its name in the file,
    and by its new one. Raises EdgemlError for a column that no row has, and for one of more than MOST_SLICES values.
    """
    found = {}
    for column in columns:
        name = dataset.columns.get(column, column)
        if not any(name in row for row in dataset.rows):
            known = ", ".join(dict.fromkeys(name for row in dataset.rows for name in row)) or "none"
            raise EdgemlError(f"{dataset.name} has no column {column!r} to slice by", hint=f"its columns: {known}")
        found[column] = tuple(_slice(row.get(name)) for row in dataset.rows)
        require_few(column, found[column])
    return found


def require_few(column: str, values: Sequence[str]) -> None:
    """Raise EdgemlError for a column of more than MOST_SLICES values: no slice of it would tell anything."""
    count = len(set(values))
    if count > MOST_SLICES:
        raise EdgemlError(
            f"column {column!r} has {count} values, which is too many slices",
            hint=f"slice by a column of at most {MOST_SLICES} values, such as a language, a region or a group",
        )


def read_schema(path: Path | None) -> dict[str, Any] | None:
    """A JSON Schema from its file."""
    if path is None:
        return None
    try:
        found = parse_json(path.read_bytes())
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except ValueError as error:
        raise EdgemlError(f"{path} is not JSON: {error}", hint="give a JSON Schema") from error
    if not isinstance(found, dict):
        raise EdgemlError(f"{path} is no JSON Schema", hint="a schema is a JSON object")
    return found


def _labelled(path: Path, columns: Mapping[str, str]) -> tuple[Row, ...]:
    """The rows of a reference, whose columns are mapped as the data's are, as far as it has them."""
    found = read_rows(path)
    rows = rename(found, {ours: theirs for ours, theirs in columns.items() if ours in found[0]}, str(path))
    check_columns(rows, ("label",), str(path))
    return tuple(ready("feature-extraction", rows, str(path)))


def _slice(value: Any) -> str:
    return "missing" if value is None or value == "" else as_text(value)


def _enough(rows: list[Row], task: str) -> tuple[Row, ...]:
    if task == "feature-extraction" and len(rows) < 2:
        raise EdgemlError("a single text has no nearest other to be compared with", hint="give at least two rows")
    return tuple(rows)


def _require_pairs(row: Row, path: Path) -> None:
    if "text" in row and not {"sentence1", "sentence2"} & row.keys():
        raise EdgemlError(
            f"{path} holds single texts, and sentence-similarity compares two a row",
            hint="--task feature-extraction, or give columns sentence1 and sentence2",
        )


def _plain_text(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise EdgemlError(f"{path} is not UTF-8 text", hint=f"convert it: iconv -t utf-8 {path}") from error
    if not text.strip():
        raise EdgemlError(f"{path} is empty", hint="give a text of at least one chunk (512 tokens)")
    return text
