"""The user's data: a file of rows with a task's columns, or a plain text; read once, digested, checked."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from edgeml_runtime.rows import check_columns, read_rows, rename

from edgeml.errors import EdgemlError
from edgeml.types import Dataset
from edgeml_runtime.records import sha256
from edgeml_runtime.tasks import task_of


def read_dataset(path: Path, *, task: str, columns: Mapping[str, str], limit: int | None = None) -> Dataset:
    """The data of a task. `columns` maps the file's names to the task's; `limit` keeps the first rows."""
    if task == "perplexity":
        return Dataset(name=path.name, sha256=_digest(path), text=_plain_text(path))
    rows = rename(read_rows(path), dict(columns))
    check_columns(rows, task_of(task).COLUMNS, str(path))
    return Dataset(name=path.name, sha256=_digest(path), rows=tuple(rows[:limit]))


def parse_columns(texts: tuple[str, ...]) -> dict[str, str]:
    """`ours=theirs` pairs as a mapping from the file's column to the task's."""
    pairs = [text.partition("=") for text in texts]
    for text, (ours, equals, theirs) in zip(texts, pairs, strict=True):
        if not (ours and equals and theirs):
            raise EdgemlError(
                f"cannot read --columns {text!r}", hint="write ours=theirs, e.g. --columns category=label"
            )
    return {ours: theirs for ours, _, theirs in pairs}


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


def _digest(path: Path) -> str:
    return sha256(path)
