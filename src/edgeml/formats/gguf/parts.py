"""A model in one GGUF file, or in several that `llama-gguf-split` made of it, seen as one.

llama.cpp finds the parts by their names, `NAME-00001-of-00003.gguf` (`llama_split_path` in `llama.cpp`), so that the
first stands for all. Reads headers alone.
"""

from __future__ import annotations

import re
from pathlib import Path

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import Header, read_header

_NAME = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
_FETCH = "fetch or copy all parts into one folder, under their own names"


def read_model(path: Path) -> Header:
    """The header of a whole model: where `path` is the first of several parts, the tensors of all of them.

    Offsets are those within a tensor's own part. Raises EdgemlError for a part that is missing, or not of this model.
    """
    first = read_header(path, arrays=("general.tags",))
    count = first.metadata.get("split.count", 1)
    if count <= 1:
        return first
    found = _NAME.fullmatch(path.name)
    if not found or int(found[2]) != 1 or int(found[3]) != count or first.metadata.get("split.no"):
        raise EdgemlError(f"{path} is only a part of a model, and not its first", hint=_FETCH)
    headers = [first, *(_part(path.with_name(part_name(found[1], place, count)), place) for place in range(1, count))]
    tensors = tuple(tensor for header in headers for tensor in header.tensors)
    promised = first.metadata.get("split.tensors.count", len(tensors))
    if len({tensor.name for tensor in tensors}) != len(tensors) or len(tensors) != promised:
        message = f"the parts of {path.name} do not belong together: {len(tensors)} tensors, {promised} promised"
        raise EdgemlError(message, hint=_FETCH)
    return replace(first, tensors=tensors, size_bytes=sum(header.size_bytes for header in headers))


def part_name(stem: str, place: int, count: int) -> str:
    """The file name of a part; `place` counts from 0."""
    return f"{stem}-{place + 1:05}-of-{count:05}.gguf"


def _part(path: Path, place: int) -> Header:
    if not path.is_file():
        raise EdgemlError(f"a part of the model is missing: {path}", hint=_FETCH)
    header = read_header(path)
    if header.metadata.get("split.no") != place:
        raise EdgemlError(f"{path} is another part than its name says", hint=_FETCH)
    return header
