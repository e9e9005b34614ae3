"""A maker of a text encoder whose products are dynamic int8: one scale for all activations of a batch."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from edgeml.store import load_variant
from edgeml.types import Variant
from edgeml_runtime.records import describe, write_record
from tiny.variants import onnx_variant

OUTLIER = "z"  # its vector is so long that beside it, all others round to nearly nothing


def int8_variant(folder: Path) -> Variant:
    """The encoder of `onnx_variant` as the quantizer of ONNX Runtime writes one; texts with a `z` have an outlier."""
    from onnx import helper, load_model, numpy_helper, save_model

    variant = onnx_variant(folder, name="tiny/onnx-int8")
    model = load_model(folder / "model.onnx")
    table, mix = (numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer)
    table[4 + ord(OUTLIER) - ord("a")] = 400.0
    scale = np.float32(np.abs(mix).max() / 127)
    stored = {"table": table, "mix": np.round(mix / scale).astype(np.int8), "scale": np.array(scale, np.float32)}
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["letters"]),
        helper.make_node("DynamicQuantizeLinear", ["letters"], ["bytes", "step", "zero"]),
        helper.make_node("MatMulInteger", ["bytes", "mix", "zero"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["products"], to=1),
        helper.make_node("Mul", ["step", "scale"], ["steps"]),
        helper.make_node("Mul", ["products", "steps"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["last_hidden_state"]),
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "tiny", model.graph.input, model.graph.output, tensors)
    save_model(helper.make_model(graph, opset_imports=model.opset_import, ir_version=8), folder / "model.onnx")
    files = tuple(file for file in describe(folder) if file.path != "variant.json")
    write_record(folder / "variant.json", msgspec.structs.replace(variant.manifest, files=files))
    return load_variant(folder)
