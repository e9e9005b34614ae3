"""Strict, versioned JSON: what msgspec leaves open (a missing tag, a repeated key, NaN) is refused here."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_args

import msgspec

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.types import File, Record

T = TypeVar("T", bound=Record)
CHUNK_BYTES = 1 << 20
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def encode(record: Record) -> str:
    """One line of JSON; refuses numbers that JSON cannot hold."""
    _check_finite(msgspec.to_builtins(record), "$")
    return msgspec.json.encode(record).decode()


def decode(text: str | bytes, kind: type[T], *, where: str) -> T:
    """Read one record; `where` names its file in the error.

    Raises EdgemlError for broken JSON, a missing or foreign schema, an unknown or repeated key, a wrong type.
    """
    try:
        plain = parse_json(text, object_pairs_hook=_unique, parse_constant=_no_constant)
    except ValueError as error:
        raise EdgemlError(f"{where} is not valid JSON: {error}", hint="make it again, or restore it") from error
    return build(plain, kind, where=where)


def parse_json(text: str | bytes, **hooks: Any) -> Any:
    """What a JSON text holds; `hooks` are those of `json.loads`.

    Raises ValueError for all that is none, and for what would fail later: a text nested too deeply to be read, and half
    of a surrogate pair, which no file can hold.
    """
    if isinstance(text, bytes):
        text = text.decode(json.detect_encoding(text))
    try:
        plain = json.loads(text, **hooks)
        if _SURROGATE.search(text):
            json.dumps(plain, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    return plain


def build(plain: Any, kind: type[T], *, where: str) -> T:
    """Turn parsed JSON or YAML into a record, with errors that name the place and the nearest known key."""
    tag = kind.__struct_config__.tag
    if tag is not None and (not isinstance(plain, dict) or plain.get("schema") != tag):
        found = plain.get("schema") if isinstance(plain, dict) else None
        hint = "it was written by another version" if found else f"begin it with: schema: {tag}, or name another file"
        raise EdgemlError(f"{where} has schema {found!r}, expected {tag!r}", hint=hint)
    try:
        return msgspec.convert(plain, kind)
    except msgspec.ValidationError as error:
        raise EdgemlError(f"{where}: {error}", hint=_near_key(str(error), kind)) from error


def write_record(path: Path, record: Record) -> None:
    """Write indented JSON beside the goal and rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may write the same record now
    try:
        part.write_bytes(msgspec.json.format(encode(record).encode(), indent=2) + b"\n")
        os.replace(part, path)
    finally:  # on a full disk, a part is there
        part.unlink(missing_ok=True)


def read_record(path: Path, kind: type[T]) -> T:
    """Read one record from a file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    return decode(text, kind, where=str(path))


def sha256(path: Path, tick: Callable[[int], None] | None = None) -> str:
    """Hex digest of a file; `tick` is told the bytes of each chunk read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            if tick:
                tick(len(chunk))
    return digest.hexdigest()


def describe(
    folder: Path, *, tick: Callable[[int], None] | None = None, known: Iterable[File] = ()
) -> tuple[File, ...]:
    """Every regular file below `folder`, sorted by path, with size and digest; those `known` are not read again."""
    there = {file.path: file for file in known}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    named = ((path, path.relative_to(folder).as_posix()) for path in paths)
    return tuple(there.get(name) or describe_file(path, name, tick=tick) for path, name in named)


def describe_file(path: Path, name: str, *, tick: Callable[[int], None] | None = None) -> File:
    """One file's size and digest, under the name that its record will use."""
    return File(path=name, size_bytes=path.stat().st_size, sha256=sha256(path, tick))


def verify(folder: Path, files: tuple[File, ...], *, tick: Callable[[int], None] | None = None) -> None:
    """Raise EdgemlError naming the first file that is missing or whose bytes differ from its record."""
    for file in files:
        path = folder / file.path
        if not os.path.isfile(path):  # noqa: PTH113 - of a name that no disk takes, pathlib raises
            raise EdgemlError(f"{path} is missing", hint="fetch or make it again")
        if path.stat().st_size != file.size_bytes or sha256(path, tick) != file.sha256:
            raise EdgemlError(f"{path} is not the file that was recorded", hint="fetch or make it again")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _check_finite(value: Any, place: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{place} is {value}, which JSON cannot hold")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_finite(item, f"{place}.{key}")
    if isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            _check_finite(item, f"{place}[{index}]")


def _near_key(message: str, kind: type[Record]) -> str:
    known = sorted(_all_keys(kind))
    if "unknown field" not in message:
        return "compare it with the reference in docs/"
    unknown = message.split("`")[1]
    if unknown in known:
        return f"{unknown!r} belongs to another part of it: compare it with the reference in docs/"
    near = get_close_matches(unknown, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def _all_keys(kind: type[Record]) -> set[str]:
    keys: set[str] = set()
    for field in msgspec.structs.fields(kind):
        keys.add(field.encode_name)
        for part in _parts(field.type):
            if isinstance(part, type) and issubclass(part, Record):
                keys |= _all_keys(part)
    return keys


def _parts(kind: Any) -> list[Any]:
    """A type and those that it is made of, at any depth."""
    return [kind, *(part for one in get_args(kind) for part in _parts(one))]
