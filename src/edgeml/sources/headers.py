"""Whether a weight file is what its name says, from its first bytes and its size. Knows nothing of its meaning."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from math import prod
from pathlib import Path
from typing import Annotated, BinaryIO

import msgspec

from edgeml.errors import EdgemlError
from edgeml.sources.contents import INDEX
from edgeml_runtime.records import parse_json

# Bits of a number, by safetensors' name of its type.
SAFETENSORS_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip
_LARGEST_HEADER_BYTES = 100_000_000  # the limit that the safetensors library itself sets
_FOREIGN = {
    b"version https://git-lfs": ("a Git LFS pointer, not the file itself", "git lfs pull"),
    b"<!doctype": ("a web page", "fetch the file itself, not the page that shows it"),
    b"<html": ("a web page", "fetch the file itself, not the page that shows it"),
}
_AGAIN = "fetch or copy it again"
_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 62)]


class _Stored(msgspec.Struct, frozen=True):
    """What a safetensors header says of a tensor."""

    dtype: str
    shape: tuple[_Count, ...]
    data_offsets: tuple[_Count, _Count]


def check_weights(folder: Path, names: Iterable[str]) -> None:
    """Raise EdgemlError for the first weight file that is empty, cut short, or something else altogether."""
    checks = {".safetensors": _check_safetensors, ".gguf": _check_gguf, ".onnx": _check_onnx}
    for name in names:
        path = folder / name
        _check_not_foreign(path)
        if check := checks.get(path.suffix):
            check(path)


def check_shards(folder: Path, names: Collection[str]) -> None:
    """Raise EdgemlError for the first tensor that the index among a model's files promises and its shard lacks."""
    if INDEX not in names:
        return
    try:
        places = msgspec.convert(parse_json((folder / INDEX).read_bytes()).get("weight_map"), dict[str, str])
    except (ValueError, AttributeError) as error:
        raise EdgemlError(f"{folder / INDEX} is no index of shards: {error}", hint=_AGAIN) from error
    known = {shard: _header(folder / shard).keys() for shard in sorted(set(places.values()))}
    for tensor, shard in places.items():
        if tensor not in known[shard]:
            message = f"{folder / shard} lacks the tensor {tensor}, which {INDEX} promises"
            raise EdgemlError(message, hint="fetch or copy the whole model again: its files are of two versions")


def stored_numbers(path: Path) -> int:
    """How many numbers a safetensors file holds."""
    return sum(prod(one.shape) for one in _header(path).values())


def stored_tensors(path: Path) -> list[tuple[str, str, int, int]]:
    """Each tensor of a safetensors file that is known to be whole: its name and type, first byte, and bytes."""
    with path.open("rb") as file:
        start = 8 + _header_bytes(file, path)
    found = ((name, one.dtype, *one.data_offsets) for name, one in _header(path).items())
    return [(name, dtype, start + begin, end - begin) for name, dtype, begin, end in found]


def _check_not_foreign(path: Path) -> None:
    head = _head(path, 64).lower()
    if not head:
        raise EdgemlError(f"{path} is empty", hint=_AGAIN)
    for start, (what, hint) in _FOREIGN.items():
        if head.lstrip().startswith(start):
            raise EdgemlError(f"{path} is {what}", hint=hint)


def _check_safetensors(path: Path) -> None:
    """The file is a length of 8 bytes, a JSON header, and the tensors that it lists, without holes or overlaps."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = _header_bytes(file, path)
    expected = 8 + length + _data_bytes(_header(path), path)
    if expected != size:
        raise EdgemlError(f"{path} has {size} bytes where its header promises {expected}", hint=_AGAIN)


def _header(path: Path) -> dict[str, _Stored]:
    with path.open("rb") as file:
        return _stored(file.read(_header_bytes(file, path)), path)


def _header_bytes(file: BinaryIO, path: Path) -> int:
    size = path.stat().st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, _LARGEST_HEADER_BYTES):
        raise EdgemlError(f"{path} is no safetensors file, or is cut short", hint=_AGAIN)
    return length


def _stored(text: bytes, path: Path) -> dict[str, _Stored]:
    try:
        plain = parse_json(text)
        texts = plain.pop("__metadata__", {})
        msgspec.convert(texts, dict[str, str])
        return msgspec.convert(plain, dict[str, _Stored])
    except (ValueError, TypeError, AttributeError) as error:  # msgspec's is a ValueError
        raise EdgemlError(f"{path} has an unreadable safetensors header: {error}", hint=_AGAIN) from error


def _data_bytes(tensors: dict[str, _Stored], path: Path) -> int:
    """Where the last tensor ends, once each lies behind the one before and is as long as its type and shape say."""
    end = 0
    for name, one in sorted(tensors.items(), key=lambda item: item[1].data_offsets):
        if one.dtype not in SAFETENSORS_BITS:
            raise EdgemlError(f"{path} stores {name!r} as {one.dtype!r}, which is no type of it", hint=_AGAIN)
        begin, stop = one.data_offsets
        if begin != end or (stop - begin) * 8 != prod(one.shape) * SAFETENSORS_BITS[one.dtype]:
            what = f"{one.dtype} of shape {one.shape} at bytes {begin} to {stop}, after {end}"
            raise EdgemlError(f"{path} contradicts itself: {name!r} is {what}", hint=_AGAIN)
        end = stop
    return end


def _check_gguf(path: Path) -> None:
    head = _head(path, 24)
    if head[:4] != b"GGUF" or len(head) < 24:
        raise EdgemlError(f"{path} is no GGUF file, or is cut short", hint=_AGAIN)
    version = int.from_bytes(head[4:8], "little")
    if version not in (2, 3):
        raise EdgemlError(f"{path} has GGUF version {version}; edgeml reads 2 and 3", hint="convert it again")


def _check_onnx(path: Path) -> None:
    """The fields of a protobuf message follow each other to the end of the file, which a cut one does not reach."""
    # A ModelProto begins with its first field, ir_version, which the format demands.
    if _head(path, 1) != b"\x08":
        raise EdgemlError(f"{path} is no ONNX file", hint=_AGAIN)
    size = path.stat().st_size
    with path.open("rb") as file:
        while (place := file.tell()) < size:
            file.seek(_field_bytes(file, path), 1)
    if place != size:
        raise EdgemlError(f"{path} is cut short", hint=_AGAIN)


def _field_bytes(file: BinaryIO, path: Path) -> int:
    """Bytes of the field whose key is next, as protobuf's wire types have it: 0 varint, 1 and 5 fixed, 2 length."""
    kind = _varint(file, path) & 7
    if kind == 0:
        _varint(file, path)
        return 0
    if kind == 2:
        return _varint(file, path)
    if kind not in (1, 5):
        raise EdgemlError(f"{path} is no ONNX file, or is damaged", hint=_AGAIN)
    return 8 if kind == 1 else 4


def _varint(file: BinaryIO, path: Path) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise EdgemlError(f"{path} is cut short", hint=_AGAIN)
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            break
    return value


def _head(path: Path, count: int) -> bytes:
    with path.open("rb") as file:
        return file.read(count)
