"""Rows of data files: JSONL, CSV, TSV or plain lines of text. Knows columns, not what a task does with them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.types import Row

LONGEST = 1_000_000  # characters of a text: a long book, whose tokens take 300 MB before they are cut or counted


def read_rows(path: Path) -> list[Row]:
    """Every row of a UTF-8 file, by its ending: `.jsonl`, `.csv`, `.tsv`; any other has one `text` a line.

    CSV is quoted as usual, TSV has no quoting; both begin with a header. Blank lines are skipped. Raises EdgemlError,
    with the line's number where there is one, for a file that is missing, empty, not UTF-8, or broken.
    """
    text = _read(path)
    rows = list(_READERS.get(path.suffix.lower(), _plain)(text, path))
    if not rows:
        raise EdgemlError(f"{path} holds no rows", hint="give a file with at least one row of data")
    return rows


def check_columns(rows: Sequence[Row], columns: Sequence[str], where: str) -> None:
    """Raise EdgemlError for the first row of `where` that lacks one of `columns`."""
    for number, row in enumerate(rows, 1):
        for column in columns:
            if column not in row:
                raise EdgemlError(
                    f"{where} has no column {column!r} in row {number}; present: {', '.join(map(repr, row))}",
                    hint=f"say which of your columns holds it: --columns YOURS={column}",
                )


def check_texts(rows: Sequence[Row], columns: Sequence[str], where: str) -> None:
    """Raise EdgemlError for the first row of `where` whose `columns` are missing, no text, blank, or endless."""
    check_columns(rows, columns, where)
    for number, row in enumerate(rows, 1):
        for column in columns:
            if not isinstance(row[column], str):
                raise EdgemlError(f"{column!r} in row {number} of {where} is no text", hint="write it in quotes")
            if not row[column].strip():
                raise EdgemlError(f"{column!r} in row {number} of {where} is blank", hint="fill it, or drop the row")
            if (count := len(row[column])) > LONGEST:
                problem = f"{column!r} in row {number} of {where} has {count} characters, and {LONGEST} are the most"
                raise EdgemlError(problem, hint="cut it into several rows: a model reads a small part of it")


def parse_columns(texts: Sequence[str]) -> dict[str, str]:
    """The mapping from a file's columns to a task's that `yours=task's`, written any number of times, stands for."""
    found: dict[str, str] = {}
    for text in texts:
        ours, separator, theirs = text.partition("=")
        if not (ours and separator and theirs):
            hint = "write your column, then the task's, such as --columns body=text"
            raise EdgemlError(f"cannot read --columns {text!r}", hint=hint)
        found[ours] = theirs
    return found


def rename(rows: Sequence[Row], mapping: Mapping[str, str], where: str = "the data") -> list[Row]:
    """The rows of `where` with the file's columns of `mapping` under the task's names; others stay as they are."""
    for ours in mapping:
        if not any(ours in row for row in rows):
            known = ", ".join(map(repr, dict.fromkeys(name for row in rows for name in row)))
            raise EdgemlError(
                f"{where} has no column {ours!r} to map", hint=f"--columns takes one of {known}, then the task's"
            )
    check_columns(rows, list(mapping), where)
    taken = {*mapping, *mapping.values()}
    return [
        {name: value for name, value in row.items() if name not in taken}
        | {theirs: row[ours] for ours, theirs in mapping.items()}
        for row in rows
    ]


def located(rows: Sequence[Row], path: Path) -> list[Row]:
    """The rows of the data file at `path` with their `file` made whole: a path is relative to that file's folder.

    Of a file of plain lines each line is a path. Raises EdgemlError for a row without a `file`.
    """
    named = [{"file": row["text"], **row} if row.keys() == {"text"} else row for row in rows]
    check_texts(named, ("file",), str(path))
    folder = path.parent.resolve()
    return [{**row, "file": str(folder / row["file"])} for row in named]


def content(file: str) -> bytes:
    """The bytes of a file that a row names; raises EdgemlError for one that cannot be read."""
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise EdgemlError(f"cannot read it: {error.strerror}", hint="check the path") from error


def _read(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        hint = f"convert it, such as: iconv -f WINDOWS-1252 -t UTF-8 {path.name}"
        raise EdgemlError(f"{path} is not UTF-8 (line {line})", hint=hint) from error


def _lines(text: str) -> Iterator[tuple[int, str]]:
    # Not str.splitlines: that also cuts at characters which belong to the text, such as U+2028 and form feeds.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.removesuffix("\r")


def _plain(text: str, path: Path) -> Iterator[Row]:  # noqa: ARG001 - one signature for all readers
    return ({"text": line} for _, line in _lines(text))


def _jsonl(text: str, path: Path) -> Iterator[Row]:
    for number, line in _lines(text):
        try:
            yield msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError) as error:
            hint = "write one JSON object a line"
            raise EdgemlError(f"line {number} of {path} is no JSON object: {error}", hint=hint) from error


def _tsv(text: str, path: Path) -> Iterator[Row]:
    return _table(((number, line.split("\t")) for number, line in _lines(text)), path)


def _csv(text: str, path: Path) -> Iterator[Row]:
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))  # else a cell of 128 KiB would be called no CSV
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        yield from _table(((reader.line_num, cells) for cells in reader if cells), path)
    except csv.Error as error:
        hint = 'write a quote inside a quoted cell twice: ""'
        raise EdgemlError(f"line {reader.line_num} of {path} is no CSV: {error}", hint=hint) from error


def _table(lines: Iterator[tuple[int, list[str]]], path: Path) -> Iterator[Row]:
    header = [name.strip() for name in next(lines, (0, []))[1]]
    twice = next((name for name in header if header.count(name) > 1), None)
    if twice is not None:
        raise EdgemlError(f"{path} has two columns {twice!r}", hint="give every column its own name")
    for number, cells in lines:
        if len(cells) != len(header):
            message = f"line {number} of {path} has {len(cells)} cells, its header has {len(header)}"
            raise EdgemlError(message, hint="quote cells that hold a separator, or write JSONL")
        yield dict(zip(header, cells, strict=True))


_READERS = {".jsonl": _jsonl, ".ndjson": _jsonl, ".json": _jsonl, ".csv": _csv, ".tsv": _tsv}
