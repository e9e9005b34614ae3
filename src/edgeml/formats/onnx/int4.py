"""int4: products and lookups whose weights are packed in 4 bits, a scale and a zero point for each block of a column.

Activations stay as they are, or are rounded to bytes in the kernel (`level` 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import EXTERNAL_BYTES, drop_weights, load, settings
from edgeml.formats.onnx.nodes import weighted

if TYPE_CHECKING:
    from onnx import ModelProto

BLOCKS = (16, 32, 64, 128, 256)
BLOCK = 32  # as llama.cpp's Q4_0 and the default of ONNX Runtime GenAI's builder
OPERATORS = ("Gather", "MatMul")


class Packing(NamedTuple):
    """How int4 is computed: with a zero point a block or around 0, and in which precision.

    `level` is ONNX Runtime's accuracy level: 0 sums in fp32, 4 rounds activations to bytes first. Source: ONNX
    Runtime, docs/ContribOperators.md, com.microsoft.MatMulNBits.
    """

    symmetric: bool
    level: int

    @property
    def name(self) -> str:
        """For a person and for the settings: `asymmetric, level 4`."""
        return f"{'symmetric' if self.symmetric else 'asymmetric'}, level {self.level}"


PACKINGS = tuple(Packing(symmetric, level) for symmetric in (False, True) for level in (0, 4))


def block_size(asked: int | None) -> int:
    """The block size, 32 where none is asked for; raises EdgemlError for one that no kernel has."""
    if asked is not None and asked not in BLOCKS:
        sizes = f"{', '.join(map(str, BLOCKS[:-1]))} or {BLOCKS[-1]}"
        raise EdgemlError(f"--block-size {asked} is none that int4 kernels have", hint=f"use {sizes}")
    return asked or BLOCK


def write_int4(
    source: Path, target: Path, *, block: int, packing: Packing, kept: Sequence[str] = (), only: Sequence[str] = ()
) -> Path:
    """`target`, with the nodes of `source` in 4 bits but for those `kept`, or with `only` these.

    Nodes need names. A column whose length is no multiple of the block ends in a shorter one.
    """
    import logging

    from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer

    model = load(source)
    small = {node.name for node in weighted(model) if node.operator in OPERATORS}
    keep = (set(kept) | (small - set(only) if only else set())) | _others(model, small)
    logging.disable()  # a line a node
    try:
        quantizer = MatMulNBitsQuantizer(
            model,
            bits=4,
            block_size=block,
            is_symmetric=packing.symmetric,
            accuracy_level=packing.level,
            nodes_to_exclude=sorted(keep),
            op_types_to_quantize=OPERATORS,
            quant_axes=(("MatMul", 0), ("Gather", 1)),
        )
        quantizer.process()
    finally:
        logging.disable(logging.NOTSET)
    size = sum(tensor.ByteSize() for tensor in quantizer.model.model.graph.initializer)
    drop_weights(target)
    quantizer.model.save_model_to_file(str(target), size > EXTERNAL_BYTES)
    return target


def products_of_gemms(model: ModelProto) -> None:
    """A `Gemm` of a stored matrix becomes a product and a sum, which is what int4 kernels are for."""
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Gemm"]:
        own = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 0} | settings(node)
        if node.input[1] not in tensors or (own["alpha"], own["beta"], own["transA"]) != (1.0, 1.0, 0):
            continue
        at = list(model.graph.node).index(node)
        weight = node.input[1]
        if own["transB"]:
            weight += ".product"
            array = np.ascontiguousarray(numpy_helper.to_array(tensors[node.input[1]]).T)
            model.graph.initializer.append(numpy_helper.from_array(array, weight))
        bias = "".join(node.input[2:])
        product = f"{node.output[0]}_product" if bias else node.output[0]
        model.graph.node.remove(node)
        made = [helper.make_node("MatMul", [node.input[0], weight], [product], node.name)]
        if bias:
            made.append(helper.make_node("Add", [product, bias], list(node.output), f"{node.name}_sum"))
        for place, one in enumerate(made):
            model.graph.node.insert(at + place, one)
    read = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)


def _others(model: ModelProto, small: set[str]) -> set[str]:
    """Nodes of these operators that hold no matrix of weights: the quantizer would stumble over some."""
    return {node.name for node in model.graph.node if node.op_type in OPERATORS and node.name not in small}
