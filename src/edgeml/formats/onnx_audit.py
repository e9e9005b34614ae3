"""What an ONNX file really holds, read from its initializers."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml_runtime.types import Audit

if TYPE_CHECKING:
    from onnx import TensorProto

_INTEGERS = {"INT8", "UINT8", "INT4", "UINT4"}
_FLOATS = {"FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE"}
_BITS = {"INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8, "FLOAT16": 16, "BFLOAT16": 16, "FLOAT": 32, "DOUBLE": 64}


def audit(path: Path, scheme: str, *, source_quantized: str | None = None) -> Audit:
    """Parameters by element type, effective bits, and whether the scheme's label is earned.

    A weight is a constant of two or more dimensions; vectors (biases, norms, scales) stay in floating point in every
    scheme and are counted but not held against the label. The label `int8` is earned when every weight is an integer.
    """
    counts, floats = _count(path)
    parameters = sum(counts.values())
    quantized = sum(count for kind, count in counts.items() if kind in _INTEGERS)
    shortfalls = [f"{name} stayed in {kind}: {count / parameters:.0%} of parameters" for name, kind, count in floats]
    if source_quantized:
        shortfalls.append(f"its source was already {source_quantized}")
    missed = scheme != "fp32" and bool(floats)
    return Audit(
        parameters=parameters,
        bits_per_weight=sum(count * _BITS[kind] for kind, count in counts.items()) / parameters,
        tensor_types=dict(counts.most_common()),
        share_quantized=quantized / parameters,
        earned=not missed and not source_quantized,
        shortfalls=tuple(shortfalls) if missed or source_quantized else (),
    )


def interface(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the graph's inputs and outputs."""
    graph = _load(path).graph
    return tuple(item.name for item in graph.input), tuple(item.name for item in graph.output)


def _count(path: Path) -> tuple[Counter[str], list[tuple[str, str, int]]]:
    counts: Counter[str] = Counter()
    floats: list[tuple[str, str, int]] = []
    for tensor in _tensors(path):
        kind, count = _kind(tensor), prod(tensor.dims)
        if kind not in _INTEGERS | _FLOATS:
            continue  # shapes, axes and the like are 64-bit integers, not parameters
        counts[kind] += count
        if kind in _FLOATS and sum(size > 1 for size in tensor.dims) >= 2:
            floats.append((tensor.name, kind, count))
    if not counts:
        raise EdgemlError(f"{path.name} holds no parameters", hint="make it again from its source")
    return counts, floats


def _tensors(path: Path) -> list[TensorProto]:
    graph = _load(path).graph
    constants = [attribute.t for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
    return [*graph.initializer, *constants]


def _kind(tensor: TensorProto) -> str:
    from onnx import TensorProto as Proto

    return str(Proto.DataType.Name(tensor.data_type))


def _load(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise EdgemlError(f"{path} is no complete ONNX file", hint="download or make it again") from error
