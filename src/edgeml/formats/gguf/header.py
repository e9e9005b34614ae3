"""The header of a GGUF file: what it says of itself, and where each tensor lies.

Reads no weights and needs no library. It is strict, so that what passes here is safe to hand to llama.cpp, and
bounded: counts and lengths are checked against the file's size before anything is kept.
Sources: ggml's `docs/gguf.md` (layout), `ggml.h` (type numbers), `ggml-common.h` (block sizes), `gguf.cpp` (limits);
llama.cpp as of llama-cpp-python 0.3.36.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from edgeml.errors import EdgemlError
from edgeml_runtime.types import Record

ALIGNMENT = 32
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_MAX_KEY_BYTES = 65535
_MAX_NAME_BYTES = 63
_MAX_DIMENSIONS = 4
_LEAST_PAIR_BYTES = 8 + 1 + 4 + 1
_LEAST_TENSOR_BYTES = 8 + 1 + 4 + 8 + 4 + 8
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "?", 10: "Q", 11: "q", 12: "d"}


class TensorType(NamedTuple):
    """How ggml stores numbers: `block` parameters in `size_bytes` bytes."""

    name: str
    block: int
    size_bytes: int

    @property
    def quantized(self) -> bool:
        """Whether several parameters share a scale."""
        return self.block > 1


TENSOR_TYPES = {
    number: TensorType(name, block, size_bytes)
    for number, name, block, size_bytes in (
        (0, "F32", 1, 4),
        (1, "F16", 1, 2),
        (2, "Q4_0", 32, 18),
        (3, "Q4_1", 32, 20),
        (6, "Q5_0", 32, 22),
        (7, "Q5_1", 32, 24),
        (8, "Q8_0", 32, 34),
        (9, "Q8_1", 32, 36),
        (10, "Q2_K", 256, 84),
        (11, "Q3_K", 256, 110),
        (12, "Q4_K", 256, 144),
        (13, "Q5_K", 256, 176),
        (14, "Q6_K", 256, 210),
        (15, "Q8_K", 256, 292),
        (16, "IQ2_XXS", 256, 66),
        (17, "IQ2_XS", 256, 74),
        (18, "IQ3_XXS", 256, 98),
        (19, "IQ1_S", 256, 50),
        (20, "IQ4_NL", 32, 18),
        (21, "IQ3_S", 256, 110),
        (22, "IQ2_S", 256, 82),
        (23, "IQ4_XS", 256, 136),
        (24, "I8", 1, 1),
        (25, "I16", 1, 2),
        (26, "I32", 1, 4),
        (27, "I64", 1, 8),
        (28, "F64", 1, 8),
        (29, "IQ1_M", 256, 56),
        (30, "BF16", 1, 2),
        (34, "TQ1_0", 256, 54),
        (35, "TQ2_0", 256, 66),
        (39, "MXFP4", 32, 17),
        (40, "NVFP4", 64, 36),
        (41, "Q1_0", 128, 18),
        (42, "Q2_0", 64, 18),
    )
}


class Tensor(Record, frozen=True, kw_only=True):
    """One tensor's place in the file. `shape` has ggml's order: the row length, which is what blocks divide, first."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int

    @property
    def columns(self) -> int:
        """Length of one row."""
        return self.shape[0]

    @property
    def parameters(self) -> int:
        """How many numbers the tensor holds."""
        return math.prod(self.shape)

    @property
    def size_bytes(self) -> int:
        """Bytes that the tensor takes in the file, padding apart."""
        return self.parameters // self.type.block * self.type.size_bytes


class Header(Record, frozen=True, kw_only=True):
    """What stands before the weights. `metadata` holds single values, and those arrays that were asked for."""

    version: int
    metadata: dict[str, Any]
    tensors: tuple[Tensor, ...]
    size_bytes: int

    @property
    def architecture(self) -> str | None:
        """llama.cpp's name of the model's family, such as `llama` or `bert`."""
        return self.metadata.get("general.architecture")

    def own(self, key: str) -> Any:
        """The value of the architecture's own `key`, such as `context_length`, or None."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read_header(path: Path, *, arrays: Collection[str] = ()) -> Header:
    """The header of a GGUF file; `arrays` names the metadata arrays to keep, the others are stepped over.

    Raises EdgemlError when the file is no GGUF, is cut off (naming the expected and the real size), or contradicts
    itself.
    """
    try:
        with path.open("rb") as file:
            return _Reader(path, file).header(arrays)
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error


class _Reader:
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self.file = file
        self.position = 0  # counted here: asking the file costs a system call, and a vocabulary has 100000 strings
        self.size_bytes = os.fstat(file.fileno()).st_size

    def header(self, arrays: Collection[str]) -> Header:
        if self.size_bytes < len(_MAGIC) or self.bytes(len(_MAGIC)) != _MAGIC:
            raise EdgemlError(f"{self.path} is not a GGUF file", hint="give a .gguf file or a safetensors folder")
        version = self.number("I")
        if version not in _VERSIONS:
            raise self.broken(f"has GGUF version {version}; edgeml reads {_VERSIONS[0]} and {_VERSIONS[1]}")
        tensors, pairs = self.number("Q"), self.number("Q")
        self.fits(pairs * _LEAST_PAIR_BYTES + tensors * _LEAST_TENSOR_BYTES)
        metadata = self.metadata(pairs, arrays)
        return Header(
            version=version, metadata=metadata, tensors=self.tensors(tensors, metadata), size_bytes=self.size_bytes
        )

    def metadata(self, count: int, arrays: Collection[str]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for _ in range(count):
            key = self.text(_MAX_KEY_BYTES)
            if not key or key in found:
                raise self.broken(f"has the metadata key {key!r} twice" if key else "has a metadata key without a name")
            found[key] = self.value(self.number("I"), key, keep=key in arrays)
        return {key: value for key, value in found.items() if value is not None}

    def value(self, type: int, key: str, *, keep: bool) -> Any:
        if type == _STRING:
            return self.text(self.size_bytes)
        if type == _ARRAY:
            return self.array(self.number("I"), self.number("Q"), key, keep=keep)
        if type not in _SCALARS:
            raise self.broken(f"has metadata {key!r} of unknown type {type}")
        return self.number(_SCALARS[type])

    def array(self, type: int, count: int, key: str, *, keep: bool) -> list[Any] | None:
        if type == _STRING:
            self.fits(count * 8)
            if keep:
                return [self.text(self.size_bytes) for _ in range(count)]
            for _ in range(count):
                self.skip(int.from_bytes(self.bytes(8), "little"))
            return None
        if type not in _SCALARS:
            raise self.broken(f"has metadata {key!r} of unknown type {type}")
        code = _SCALARS[type]
        if keep:
            return list(struct.unpack(f"<{count}{code}", self.bytes(count * struct.calcsize(code))))
        self.skip(count * struct.calcsize(code))
        return None

    def tensors(self, count: int, metadata: dict[str, Any]) -> tuple[Tensor, ...]:
        infos = [self.tensor() for _ in range(count)]
        if len({info.name for info in infos}) != count:
            raise self.broken("names a tensor twice")
        alignment = metadata.get("general.alignment", ALIGNMENT)
        if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
            raise self.broken(f"has alignment {alignment}, which is no power of two")
        start = _padded(self.position, alignment)
        return self.placed(infos, start, alignment)

    def placed(self, infos: list[Tensor], start: int, alignment: int) -> tuple[Tensor, ...]:
        """Check that the tensors follow one another without holes, as ggml requires, and end inside the file."""
        expected, end = 0, 0  # a file without tensors may end before its data would start
        for info in infos:
            if info.offset != expected:
                raise self.broken(f"has tensor {info.name!r} at offset {info.offset}, expected {expected}")
            end = start + expected + info.size_bytes
            expected += _padded(info.size_bytes, alignment)
        if end > self.size_bytes:
            message = f"{self.path} is cut off: it has {self.size_bytes} bytes, its header promises {end}"
            raise EdgemlError(message, hint="download or make it again")
        return tuple(
            Tensor(name=info.name, shape=info.shape, type=info.type, offset=start + info.offset) for info in infos
        )

    def tensor(self) -> Tensor:
        name = self.text(_MAX_NAME_BYTES)
        dimensions = self.number("I")
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise self.broken(f"has tensor {name!r} with {dimensions} dimensions")
        shape = tuple(self.number("Q") for _ in range(dimensions))
        number = self.number("I")
        if number not in TENSOR_TYPES:
            raise self.broken(f"has tensor {name!r} of ggml type {number}, which edgeml doesn't know")
        type = TENSOR_TYPES[number]
        if 0 in shape or math.prod(shape) >= 1 << 63 or shape[0] % type.block:
            raise self.broken(f"has tensor {name!r} of shape {shape}, which {type.name} cannot store")
        return Tensor(name=name, shape=shape, type=type, offset=self.number("Q"))

    def text(self, limit: int) -> str:
        length = self.number("Q")
        self.fits(length)
        if length > limit:
            raise self.broken(f"has a name of {length} bytes, more than {limit}")
        return self.bytes(length).decode("utf-8", errors="replace")

    def number(self, code: str) -> Any:
        return struct.unpack("<" + code, self.bytes(struct.calcsize(code)))[0]

    def bytes(self, count: int) -> bytes:
        self.fits(count)
        self.position += count
        return self.file.read(count)

    def skip(self, count: int) -> None:
        self.fits(count)
        self.position += count
        self.file.seek(count, os.SEEK_CUR)

    def fits(self, count: int) -> None:
        if count > self.size_bytes - self.position:
            message = f"{self.path} is cut off: it has {self.size_bytes} bytes and ends inside its header"
            raise EdgemlError(message, hint="download or make it again")

    def broken(self, what: str) -> EdgemlError:
        return EdgemlError(f"{self.path} {what}", hint="download or make it again")


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) // alignment * alignment
