"""Whether a model's weights are numbers: one that is not spoils every answer, and a quantizer hides where it was.

Reads a file in pieces, so that its size does not matter. Numbers of 8 bits or fewer, and blocks of GGUF that are
quantized already, are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import read_header
from edgeml.sources.headers import stored_tensors

_PIECE_BYTES = 16 << 20
# IEEE 754: a number whose exponent is all ones is infinite, or with a fraction none at all (NaN).
_EXPONENTS = {"F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80), "F32": ("<u4", 0x7F800000), "F64": ("<u8", 0x7FF << 52)}
_ONNX = {"FLOAT16": "F16", "BFLOAT16": "BF16", "FLOAT": "F32", "DOUBLE": "F64"}


class Stretch(NamedTuple):
    """Where a tensor's numbers lie in a file, and how each is written."""

    name: str
    type: str
    begin: int
    size_bytes: int


def check_finite(paths: Iterable[Path], *, tick: Callable[[int], None]) -> None:
    """Raise EdgemlError for the first tensor of weight files that holds NaN, or an infinite number.

    `tick` is told the bytes of each piece. In an ONNX graph a table of zeros and minus infinity is a mask.
    """
    for path in paths:
        if path.suffix == ".onnx":
            _check_graph(path, tick)
        elif path.suffix in (".safetensors", ".gguf"):
            for one in _stretches(path):
                if one.type in _EXPONENTS:
                    _check(one, path, tick)


def _stretches(path: Path) -> Iterator[Stretch]:
    if path.suffix == ".gguf":
        for tensor in read_header(path).tensors:
            yield Stretch(tensor.name, tensor.type.name, tensor.offset, tensor.size_bytes)
    else:
        for name, type, begin, size_bytes in stored_tensors(path):
            yield Stretch(name, type, begin, size_bytes)


def _check(one: Stretch, path: Path, tick: Callable[[int], None], *, mask: bool = False) -> None:
    kind, exponent = _EXPONENTS[one.type]
    with path.open("rb") as file:
        file.seek(one.begin)
        left = one.size_bytes
        while left > 0 and (piece := file.read(min(left, _PIECE_BYTES))):
            left -= len(piece)
            tick(len(piece))
            numbers = np.frombuffer(piece[: len(piece) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
            bad = (numbers & exponent) == exponent
            if bad.any() and not (mask and _is_mask(numbers, exponent)):
                raise _refusal(one.name, path)


def _is_mask(numbers: np.ndarray, exponent: int) -> bool:
    """Whether there is nothing but zero and minus infinity."""
    minus = exponent | 1 << (numbers.dtype.itemsize * 8 - 1)
    return bool(np.isin(numbers, [0, minus]).all())


def _check_graph(path: Path, tick: Callable[[int], None]) -> None:
    from onnx import TensorProto, numpy_helper
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    from edgeml.formats.onnx.graph import load, tensors

    for tensor in tensors(load(path, weights=False).graph):
        type = _ONNX.get(TensorProto.DataType.Name(tensor.data_type))
        if type is None:
            continue
        if uses_external_data(tensor):
            where = ExternalDataInfo(tensor)
            begin, beside = where.offset or 0, path.parent / where.location
            size_bytes = where.length or beside.stat().st_size - begin
            _check(Stretch(tensor.name, type, begin, size_bytes), beside, tick, mask=True)
            continue
        array = numpy_helper.to_array(tensor).astype(np.float64 if type == "F64" else np.float32, copy=False)
        tick(array.nbytes)
        if not np.isfinite(array).all() and not np.isin(array, [0, -np.inf]).all():
            raise _refusal(tensor.name, path)


def _refusal(name: str, path: Path) -> EdgemlError:
    message = f"{name!r} in {path.name} holds NaN or an infinite number, so the model's answers are none"
    return EdgemlError(message, hint="get the weights again, or save them in a type that holds them (bf16, f32)")
