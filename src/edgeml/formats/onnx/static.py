"""Static int8: weights as signed bytes with a scale for each column, and activations in ranges that inputs have shown.

Written as QuantizeLinear and DequantizeLinear around operators in floating point (QDQ), which ONNX Runtime fuses into
its integer kernels: its operators for integers (QOperator) are up to 17 times slower for convolutions with signed
activations.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.formats.onnx.graph import EXTERNAL_BYTES, drop_weights, load
from edgeml.formats.onnx.int8 import INTEGERS
from edgeml.formats.onnx.nodes import WEIGHTED, weighted
from edgeml.formats.onnx.ranges import Range

if TYPE_CHECKING:
    from onnx import ModelProto

# What stays in integers from one convolution to the next; nets without one have integers around products alone.
CHAINED = (
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Gemm", "GlobalAveragePool", "MatMul", "MaxPool", "Mul", "Relu",
)  # fmt: skip
_PRODUCTS = ("Gather", "Gemm", "MatMul")
_SETTINGS = {
    "MatMulConstBOnly": True,
    "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"],  # their sums go on in floating point
    "DefaultTensorType": 1,  # floating point, in a graph that carries no types
}


def operators(model: ModelProto) -> tuple[str, ...]:
    """The operators that are made small in that graph."""
    return CHAINED if any(node.op_type == "Conv" for node in model.graph.node) else _PRODUCTS


def activations(path: Path) -> list[str]:
    """The values of the graph whose ranges are needed."""
    model = load(path, weights=False)
    stored = {tensor.name for tensor in model.graph.initializer}
    small = operators(model)
    nodes = {node.name for node in weighted(model)}
    names = []
    for node in model.graph.node:
        if node.op_type in small and (node.op_type not in WEIGHTED or node.name in nodes):
            names += [name for name in (*node.input, *node.output) if name and name not in stored]
    return list(dict.fromkeys(names))


def write_static(
    source: Path,
    target: Path,
    kernels: str,
    ranges: Mapping[str, Range],
    *,
    kept: Sequence[str] = (),
    only: Sequence[str] = (),
) -> Path:
    """`target`, with the nodes of `source` in integers but for those `kept`, or with `only` these.

    The nodes need names (`nodes.name_nodes`). A range of (0, 0) gets the scale 1.
    """
    import numpy as np
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.quantize import update_opset_version

    model = update_opset_version(load(source), QuantType.QInt8)
    _tell_types(model, ranges)
    floats = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    quantizer = QDQQuantizer(
        model,
        per_channel=True,  # with one scale for all, a depthwise convolution loses its quiet channels
        reduce_range=INTEGERS[kernels].reduce_range,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8 if INTEGERS[kernels].unsigned else QuantType.QInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, floats),
        nodes_to_quantize=list(only),
        nodes_to_exclude=[*kept, *_bare(model)],
        op_types_to_quantize=list(operators(model)),
        extra_options=dict(_SETTINGS),
    )
    quantizer.quantize_model()
    size = sum(tensor.ByteSize() for tensor in quantizer.model.model.graph.initializer)
    drop_weights(target)
    quantizer.model.save_model_to_file(str(target), size > EXTERNAL_BYTES)
    return target


def _bare(model: ModelProto) -> list[str]:
    """Names of nodes whose operator may hold a matrix, and which hold none: no range of theirs is known."""
    nodes = {node.name for node in weighted(model)}
    return [node.name for node in model.graph.node if node.op_type in WEIGHTED and node.name not in nodes]


def _tell_types(model: ModelProto, names: Iterable[str]) -> None:
    """The quantizer leaves alone what it does not know to be floating point, and the graph carries no types."""
    from onnx import TensorProto, helper

    known = {item.name for item in (*model.graph.input, *model.graph.output)}
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in known]
    model.graph.value_info.extend(infos)
