"""Dynamic int8: weights as signed bytes with one scale a column, activations measured anew for each input."""

from __future__ import annotations

from pathlib import Path

# Whether weights keep to 7 bits, by the CPU family that will run them. The x86 product of unsigned by signed bytes
# before VNNI adds two of them in 16 bits and saturates (VPMADDUBSW), which 7-bit weights cannot reach. VNNI and ARM
# add in 32 bits. Source: ONNX Runtime documentation, "Quantize ONNX models", data type selection.
REDUCE_RANGE = {
    "x86-64-avx2": True,
    "x86-64-vnni": False,
    "arm64": False,
    "arm64-dotprod": False,
}


def misfit(built_for: str | None, kernels: str) -> str | None:
    """What weights that were made for other integer kernels cost on these; None where they would be made alike."""
    if built_for is None or REDUCE_RANGE[built_for] == REDUCE_RANGE[kernels]:
        return None
    if REDUCE_RANGE[kernels]:
        return "sums of its 8-bit weights may overflow and change answers"
    return "its weights have 7 bits where 8 would do"


def write_int8(source: Path, target: Path, kernels: str) -> Path:
    """`target`, with every product and lookup of the graph in `source` that ONNX Runtime has an integer kernel for.

    The weights are written beside it, since a protobuf may be too small for them.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source,
        target,
        per_channel=True,
        reduce_range=REDUCE_RANGE[kernels],
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
        # The graph carries no shapes (stale ones mislead the quantizer), so it must be told what a tensor holds.
        extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
    )
    return target
