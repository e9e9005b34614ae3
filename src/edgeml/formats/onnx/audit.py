"""What an ONNX file really holds, read from its stored tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import COPIED, TABLE, load, settings, tensors
from edgeml_runtime.session import Kind
from edgeml_runtime.types import Audit, Record

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_BITS = {
    "INT4": 4, "UINT4": 4, "INT8": 8, "UINT8": 8, "FLOAT16": 16, "BFLOAT16": 16, "INT32": 32, "FLOAT": 32, "DOUBLE": 64,
}  # fmt: skip
_INTEGERS = {"INT4", "UINT4", "INT8", "UINT8"}
_FULL = {"FLOAT", "DOUBLE"}
_ALLOWED = {"fp32": _FULL, "fp16": {"FLOAT16"}, "int4": {"INT4", "UINT4"}}  # of weights, by scheme
_QUANTIZED = "_quantized"  # ends the name that ONNX Runtime's quantizer gives to a weight
_COMPANIONS = ("_scale", "_zero_point")  # end the names of what it needs to be read
ENCODER_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
DECODER_INPUTS = ("input_ids", "attention_mask", "position_ids")
_CACHE = "input.past_key_values."
_AXES: dict[Kind, tuple[tuple[str, ...], str]] = {  # of the first output, and its usual name
    "encoder": (("batch", "tokens", "width"), "last_hidden_state"),
    "classifier": (("batch", "labels"), "logits"),
    "tagger": (("batch", "tokens", "labels"), "logits"),
    "image": (("batch", "labels"), "logits"),
    "decoder": (("batch", "tokens", "width"), "logits"),
}


class _Stored(Record, frozen=True, kw_only=True):
    """A stored tensor of numbers. A companion is a scale or zero point, a weight stored a second time, or computed."""

    name: str
    kind: str
    count: int
    bits: int
    matrix: bool
    companion: bool


def audit(paths: Path | Sequence[Path], scheme: str) -> Audit:
    """Parameters by element type, effective bits, and whether the scheme's label is earned, of all files together.

    `bits_per_weight` are all stored bits over the model's parameters. Scales, zero points, and the second copy of a
    weight that two operators share are bits, but no parameters. A weight is a tensor of two or more dimensions;
    vectors (biases, norms) are not held against the label. `int8` is earned when every weight is an integer, `int4`
    when every one has 4 bits, wherever they are packed, `fp16` when every one is a half float, `fp32` a full one.
    """
    files = [paths] if isinstance(paths, Path) else paths
    stored = [one for path in files for one in _stored(load(path, weights=False))]
    counts: Counter[str] = Counter()
    for one in stored:
        counts[one.kind] += 0 if one.companion else one.count
    parameters = counts.total()
    if not parameters:
        raise EdgemlError(f"{files[0].name} holds no parameters", hint="make it again from its source")
    allowed = _ALLOWED.get(scheme, _INTEGERS)
    missed = [one for one in stored if one.matrix and one.kind not in allowed]
    return Audit(
        parameters=parameters,
        bits_per_weight=sum(one.bits for one in stored) / parameters,
        tensor_types={kind: count for kind, count in counts.most_common() if count},
        share_quantized=sum(counts[kind] for kind in _INTEGERS) / parameters,
        earned=not missed,
        shortfalls=tuple(
            f"{one.name} stayed in {one.kind}: {one.count / parameters:.0%} of parameters" for one in missed
        ),
    )


def source_type(path: Path) -> str | None:
    """The integer type, such as `INT8`, that most of a file's parameters are stored in; None for a full one."""
    found = audit(path, "fp32")
    return next(iter(found.tensor_types)) if found.share_quantized > 0.5 else None


def interface(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of the graph's inputs and outputs."""
    graph = load(path, weights=False).graph
    return tuple(item.name for item in graph.input), tuple(item.name for item in graph.output)


def check_interface(path: Path, *, kind: Kind, labels: int = 0) -> None:
    """Raise EdgemlError when the runtime cannot feed or read the graph: other inputs than ours, or another output.

    `labels` are those that a classifier's or tagger's configuration names.
    """
    from onnx import TensorProto

    graph = load(path, weights=False).graph
    stored = {tensor.name for tensor in graph.initializer}
    inputs = [item for item in graph.input if item.name not in stored]
    decoder = kind == "decoder"
    known = DECODER_INPUTS if decoder else ENCODER_INPUTS
    strange = [
        item.name for item in inputs if item.name not in known and not (decoder and item.name.startswith(_CACHE))
    ]
    strange += [
        item.name for item in inputs if item.name in known and item.type.tensor_type.elem_type != TensorProto.INT64
    ]
    if strange or "input_ids" not in {item.name for item in inputs}:
        message = f"{path} takes {', '.join(strange) or 'no input_ids'}, which edgeml does not feed"
        raise EdgemlError(message, hint=f"export it with 64-bit inputs {', '.join(known)}")
    _check_output(path, graph.output[0], kind, labels)


def _check_output(path: Path, output: ValueInfoProto, kind: Kind, labels: int) -> None:
    axes, wanted = _AXES[kind]
    shape = output.type.tensor_type.shape.dim
    if len(shape) not in (0, len(axes)):
        axes_text = f"{', '.join(axes[:-1])} and {axes[-1]}"
        message = f"{path} gives {output.name} of {len(shape)} axes, where {axes_text} are needed"
        raise EdgemlError(message, hint=f"export it with {wanted} as its first output")
    width = shape[-1].dim_value if shape else 0
    if axes[-1] == "labels" and width and width != labels:
        message = f"{path} gives {width} logits, but its config.json names {labels} labels"
        raise EdgemlError(message, hint="put the config.json that belongs to the graph beside it")


def _stored(model: ModelProto) -> list[_Stored]:
    from onnx import TensorProto

    graph = model.graph
    stored = [(one.name, TensorProto.DataType.Name(one.data_type), one.dims) for one in tensors(graph)]
    names, beside, packed = {name for name, _, _ in stored}, _scales(model), _packed(model)
    biases = {node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    found = []
    for name, kind, dims in stored:
        if kind not in _BITS or (kind == "INT32" and name not in biases):
            continue  # shapes, axes and the like
        own, count = packed.get(name, (kind, prod(dims)))
        found.append(
            _Stored(
                name=name,
                kind=own,
                count=count,
                bits=prod(dims) * _BITS[kind],
                matrix=TABLE not in name and name not in beside and sum(size > 1 for size in dims) >= 2,
                companion=COPIED in name or TABLE in name or name in beside or _is_companion(name, names),
            )
        )
    return found


def _scales(model: ModelProto) -> set[str]:
    """Names of the scales and zero points that an operator reads its integers with."""
    found: set[str] = set()
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            found |= set(node.input[1:3])
        elif node.op_type in ("MatMulNBits", "GatherBlockQuantized"):
            found |= set(node.input[2:4])
    return found


def _packed(model: ModelProto) -> dict[str, tuple[str, int]]:
    """The type and number of the weights that are packed into bytes, by the name of those bytes."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "MatMulNBits":
            own = settings(node)
            unsigned = len(node.input) > 3 and node.input[3]  # else 8 stands for 0
            kind = f"{'U' if unsigned else ''}INT{own['bits']}"
            found[node.input[1]] = (kind, own["K"] * own["N"])
    return found


def _is_companion(name: str, names: set[str]) -> bool:
    return any(name.endswith(end) and name.removesuffix(end) + _QUANTIZED in names for end in _COMPANIONS)
