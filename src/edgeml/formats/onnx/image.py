"""Classifiers of pictures: their export, and what makes a transformer's graph one that the quantizer knows whole.

Each edit keeps the graph's answers.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.formats.onnx.export import exporter_settings, load_model
from edgeml.formats.onnx.graph import replace, settings
from edgeml.preprocessing import read_pixels

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto


def export_image(source: Path, folder: Path) -> None:
    """Write `model.onnx`: `pixel_values` (batch, 3, height, width) to `logits` (batch, labels), for any batch."""
    import torch
    from torch.export import Dim
    from transformers import AutoModelForImageClassification
    from transformers.exporters import OnnxExporter

    recipe = read_pixels(source)
    sample = {"pixel_values": torch.zeros(2, 3, recipe.height, recipe.width)}
    model = load_model(AutoModelForImageClassification, source)
    free = exporter_settings(dynamic_shapes={"pixel_values": {0: Dim.AUTO}})
    OnnxExporter().export(model, sample, free).save_pretrained(str(folder))


def products_of_patches(model: ModelProto) -> None:
    """A convolution that cuts its picture into patches side by side becomes a plain product.

    ONNX Runtime quantizes that one well, and convolutions badly: with weights as signed bytes it is several times
    slower than in floating point.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {item.name: [axis.dim_value for axis in item.type.tensor_type.shape.dim] for item in model.graph.input}
    for node in [node for node in model.graph.node if node.op_type == "Conv"]:
        weight = tensors.get(node.input[1])
        if weight is None or not _cuts_patches(node, weight, shapes.get(node.input[0])):
            continue
        made, stored = _product(node, numpy_helper.to_array(weight), shapes[node.input[0]])
        at = list(model.graph.node).index(node)
        replace(model.graph.node, [*model.graph.node[:at], *made, *model.graph.node[at + 1 :]])
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
        model.graph.initializer.remove(weight)


def lookups_of_positions(model: ModelProto) -> None:
    """A stored row of vectors that is added to every picture's becomes a lookup, as positions are in text models."""
    from onnx import helper, numpy_helper

    for tensor in list(model.graph.initializer):
        if len(tensor.dims) != 3 or tensor.dims[0] != 1 or min(tensor.dims[1:]) < 2:
            continue
        places, name = np.arange(tensor.dims[1], dtype=np.int64)[None], tensor.name
        table = numpy_helper.from_array(numpy_helper.to_array(tensor)[0], f"{name}.lookup")
        model.graph.initializer.remove(tensor)
        model.graph.initializer.extend([table, numpy_helper.from_array(places, f"{name}.places")])
        model.graph.node.insert(0, helper.make_node("Gather", [table.name, f"{name}.places"], [name]))


def _cuts_patches(node: NodeProto, weight: TensorProto, shape: list[int] | None) -> bool:
    """Whether the patches lie side by side and cover the whole of a picture whose size is fixed."""
    own, sides = settings(node), list(weight.dims[2:])
    if shape is None or len(shape) != 4 or not all(shape[1:]) or len(sides) != 2:
        return False
    plain = own.get("group", 1) == 1 and not any(own.get("pads", ())) and set(own.get("dilations", (1,))) == {1}
    side_by_side = own.get("auto_pad", b"NOTSET") in (b"NOTSET", b"VALID") and list(own.get("strides", ())) == sides
    return plain and side_by_side and shape[2] % sides[0] == shape[3] % sides[1] == 0


def _product(node: NodeProto, weight: Any, shape: list[int]) -> tuple[list[NodeProto], dict[str, Any]]:
    from onnx import helper

    (made, channels, high, wide), name = weight.shape, node.output[0]
    rows, columns = shape[2] // high, shape[3] // wide
    stored = {
        f"{name}.cut": np.array([0, channels, rows, high, columns, wide]),  # 0 keeps the batch as it is
        f"{name}.patches": np.array([0, rows * columns, channels * high * wide]),
        f"{node.input[1]}.product": np.ascontiguousarray(weight.reshape(made, -1).T),
        f"{name}.grid": np.array([0, made, rows, columns]),
    }
    cut, patches, product, grid = stored
    bias = node.input[2] if len(node.input) > 2 else ""
    summed = f"{name}_summed" if bias else f"{name}_product"
    return [
        helper.make_node("Reshape", [node.input[0], cut], [f"{name}_cut"]),
        helper.make_node("Transpose", [f"{name}_cut"], [f"{name}_turned"], perm=[0, 2, 4, 1, 3, 5]),
        helper.make_node("Reshape", [f"{name}_turned", patches], [f"{name}_patches"]),
        helper.make_node("MatMul", [f"{name}_patches", product], [f"{name}_product"]),
        *([helper.make_node("Add", [f"{name}_product", bias], [summed])] if bias else []),
        helper.make_node("Transpose", [summed], [f"{name}_back"], perm=[0, 2, 1]),
        helper.make_node("Reshape", [f"{name}_back", grid], [name]),
    ], stored
