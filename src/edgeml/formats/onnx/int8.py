"""Dynamic int8: weights as signed bytes with one scale a column, activations measured anew for each input."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from edgeml.formats.onnx.graph import drop_weights


class Integers(NamedTuple):
    """How integers suit a CPU family: whether weights keep to 7 bits, and whether static activations are unsigned."""

    reduce_range: bool
    unsigned: bool


# By the CPU family that will run them. The x86 product of unsigned by signed bytes before VNNI adds two of them in 16
# bits and saturates (VPMADDUBSW), which 7-bit weights cannot reach. VNNI and ARM add in 32 bits. x86 has no product of
# two signed bytes, ARM has. Source: ONNX Runtime documentation, "Quantize ONNX models", data type selection.
INTEGERS = {
    "x86-64-avx2": Integers(reduce_range=True, unsigned=True),
    "x86-64-vnni": Integers(reduce_range=False, unsigned=True),
    "arm64": Integers(reduce_range=False, unsigned=False),
    "arm64-dotprod": Integers(reduce_range=False, unsigned=False),
}


def misfit(built_for: str | None, kernels: str) -> str | None:
    """What weights that were made for other integer kernels cost on these; None where they would be made alike."""
    if built_for is None or INTEGERS[built_for].reduce_range == INTEGERS[kernels].reduce_range:
        return None
    if INTEGERS[kernels].reduce_range:
        return "sums of its 8-bit weights may overflow and change answers"
    return "its weights have 7 bits where 8 would do"


def write_int8(source: Path, target: Path, kernels: str, *, kept: Sequence[str] = (), only: Sequence[str] = ()) -> Path:
    """`target`, with every product and lookup of the graph in `source` that ONNX Runtime has an integer kernel for.

    Nodes of the names `kept` stay as they are, and with `only`, all others do. The weights are written beside it, since
    a protobuf may be too small for them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    drop_weights(target)
    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=INTEGERS[kernels].reduce_range,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(only),
        nodes_to_exclude=list(kept),
        use_external_data_format=True,
        # The graph carries no shapes (stale ones mislead the quantizer), so it must be told what a tensor holds.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return target
