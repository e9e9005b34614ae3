"""Edits of an exported graph: what the exporter left over is dropped, and attention becomes one operator.

Each edit keeps the graph's answers; `fused_for_int8` checks that by running both graphs before it believes a fusion.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_TOLERANCE = 1e-4  # largest change of a hidden state by a fusion: float32 rounding is 20 times smaller (seen: 5e-6)
_EXTERNAL_BYTES = 1_500_000_000  # a protobuf ends at 2 GB; larger graphs keep their weights beside them


class UnmatchedError(Exception):
    """The graph is built in another way than an edit expects; the edit is left out."""


def load(path: Path) -> ModelProto:
    """The graph with its weights."""
    import onnx

    return onnx.load(path)


def save(model: ModelProto, path: Path) -> None:
    """Write the graph, with its weights beside it where they are too large for one file."""
    import onnx

    large = model.ByteSize() > _EXTERNAL_BYTES
    onnx.save_model(model, path, save_as_external_data=large, location=f"{path.name}.data" if large else None)


def plain(model: ModelProto, *, split_heads: bool = False) -> ModelProto:
    """The graph without traces of the machine that exported it, stale shapes, and outputs that nobody reads.

    `split_heads` gives a product that shares its weight with the embedding a copy of its own, so that both can be
    quantized.
    """
    outputs = [item.name for item in model.graph.output]
    _keep(model, outputs[:1] if outputs[0] == "last_hidden_state" else outputs)
    if split_heads:
        _untie(model)
    return model


def fused_for_int8(path: Path, *, heads: int) -> ModelProto:
    """The graph in `path` with fused attention and split skip-norms, or without them if its answers would change."""
    try:
        fused = _split_skip_norms(_fuse_attention(plain(load(path)), heads))
    except UnmatchedError:
        return plain(load(path))
    return fused if _agree(plain(load(path)), fused) else plain(load(path))


class _Graph:
    """Who makes and who reads each value."""

    def __init__(self, model: ModelProto) -> None:
        from onnx import numpy_helper

        self.nodes = model.graph.node
        self._made = {output: node for node in self.nodes for output in node.output}
        self._tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        self._readers = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self._readers[name].append(node)
        self._array = numpy_helper.to_array

    def maker(self, name: str) -> NodeProto:
        if name not in self._made:
            raise UnmatchedError(name)
        return self._made[name]

    def reader(self, name: str, *operators: str) -> NodeProto:
        found = [node for node in self._readers[name] if not operators or node.op_type in operators]
        if not found:
            raise UnmatchedError(name)
        return found[0]

    def weight(self, name: str) -> Any:
        if name not in self._tensors:
            raise UnmatchedError(name)
        return self._array(self._tensors[name])

    def data_input(self, node: NodeProto) -> str:
        """The input of a node that is computed, not stored."""
        found = [name for name in node.input if name and name not in self._tensors]
        if not found:
            raise UnmatchedError(node.name)
        return str(found[0])


def _fuse_attention(model: ModelProto, heads: int) -> ModelProto:
    """Each bidirectional self-attention as one `com.microsoft.Attention`, which quantizes to `QAttention`."""
    from onnx import TensorProto, helper

    graph = _Graph(model)
    mask = "attention_mask_int32"  # the kernel wants 32 bits; the graph's own input stays as users feed it
    cast = helper.make_node("Cast", ["attention_mask"], [mask], to=TensorProto.INT32)
    for index, softmax in enumerate([node for node in graph.nodes if node.op_type == "Softmax"]):
        _fuse_one(model, graph, softmax, name=f"attention_{index}", mask=mask, heads=heads)
    model.graph.node.insert(0, cast)
    _keep(model, [item.name for item in model.graph.output])
    return model


def _fuse_one(model: ModelProto, graph: _Graph, softmax: NodeProto, *, name: str, mask: str, heads: int) -> None:
    from onnx import helper, numpy_helper

    scores = _product_above(graph, softmax.input[0])
    weighted = graph.reader(softmax.output[0], "Where", "MatMul")
    if weighted.op_type == "Where":  # a guard for rows that are masked whole
        weighted = graph.reader(weighted.output[0], "MatMul")
    parts = [_projection(graph, value) for value in (scores.input[0], scores.input[1], weighted.input[1])]
    if len({part[0] for part in parts}) != 1:
        raise UnmatchedError(f"{name} attends to two inputs")
    joined = weighted
    while joined.op_type != "Reshape" or graph.reader(joined.output[0]).op_type != "MatMul":
        joined = graph.reader(joined.output[0])
    weight = np.ascontiguousarray(np.concatenate([part[1] for part in parts], axis=1))
    bias = np.concatenate([part[2] for part in parts])
    tensors = (numpy_helper.from_array(weight, f"{name}.weight"), numpy_helper.from_array(bias, f"{name}.bias"))
    model.graph.initializer.extend(tensors)
    inputs = [parts[0][0], f"{name}.weight", f"{name}.bias", mask]
    made = helper.make_node("Attention", inputs, list(joined.output), name, domain="com.microsoft", num_heads=heads)
    at = list(model.graph.node).index(joined)
    model.graph.node.remove(joined)
    model.graph.node.insert(at, made)


def _projection(graph: _Graph, name: str) -> tuple[str, Any, Any]:
    """Back from a head to what was projected: that input, the weight (width, width) and the bias (width)."""
    bias, span = None, None
    while (node := graph.maker(name)).op_type != "MatMul":
        if node.op_type == "Split":  # the exporter packs queries, keys and values into one product
            ends = np.cumsum(graph.weight(node.input[1]))
            part = list(node.output).index(name)
            span = slice(ends[part - 1] if part else 0, ends[part])
        data = graph.data_input(node)
        if node.op_type == "Add":
            bias = graph.weight(next(other for other in node.input if other != data))
        name = data
    weight = graph.weight(node.input[1])
    if bias is None:
        raise UnmatchedError("a projection without a bias")
    return node.input[0], weight[:, span] if span else weight, bias


def _product_above(graph: _Graph, name: str) -> NodeProto:
    while (node := graph.maker(name)).op_type != "MatMul":
        name = node.input[0]
    return node


def _split_skip_norms(model: ModelProto) -> ModelProto:
    """Each SkipLayerNormalization as bias, residual sum and norm.

    The bias then folds into the integer product before it, which is faster than the fused operator. The residual is
    a `Sum`, since ONNX Runtime would fuse an `Add` straight back.
    """
    from onnx import helper

    read = {name for node in model.graph.node for name in node.input}
    nodes = []
    for node in model.graph.node:
        if node.op_type != "SkipLayerNormalization":
            nodes.append(node)
            continue
        if read & set(node.output[1:]):
            raise UnmatchedError("the sum before a norm is read elsewhere")
        data, skip, gamma, beta, *bias = node.input
        if bias and bias[0]:
            nodes.append(helper.make_node("Add", [data, bias[0]], [f"{node.output[0]}_biased"]))
            data = f"{node.output[0]}_biased"
        epsilon = next(attribute.f for attribute in node.attribute if attribute.name == "epsilon")
        total = f"{node.output[0]}_sum"
        nodes.append(helper.make_node("Sum", [data, skip], [total]))
        norm = helper.make_node("LayerNormalization", [total, gamma, beta], [node.output[0]], axis=-1, epsilon=epsilon)
        nodes.append(norm)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def _untie(model: ModelProto) -> None:
    """A product by the transposed embedding as a plain product by a copy, which the quantizer knows."""
    from onnx import helper, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for index, node in enumerate(list(model.graph.node)):
        settings = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        plain_scale = (
            settings.get("alpha", 1.0) == 1.0 and not settings.get("transA") and not settings.get("transBatchB")
        )
        if (
            node.op_type != "FusedMatMul"
            or node.input[1] not in tensors
            or not settings.get("transB")
            or not plain_scale
        ):
            continue
        name = f"{node.input[1]}.transposed"
        array = numpy_helper.to_array(tensors[node.input[1]]).T
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        made = helper.make_node("MatMul", [node.input[0], name], list(node.output), node.name)
        model.graph.node.remove(node)
        model.graph.node.insert(index, made)


def _keep(model: ModelProto, outputs: list[str]) -> None:
    """Keep these outputs and what they need; drop stale shapes and the exporter's notes."""
    graph, needed, nodes = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= {name for name in node.input if name}
    _replace(graph.node, nodes[::-1])
    _replace(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed])
    _replace(graph.output, [item for item in graph.output if item.name in outputs])
    _replace(graph.value_info, [])
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _replace(field: Any, items: list[Any]) -> None:
    del field[:]
    field.extend(items)


def _agree(one: ModelProto, other: ModelProto) -> bool:
    """Whether two graphs give the same hidden states for rows of unequal length, on every token that is not padding."""
    import onnxruntime as ort

    ids = np.arange(30, dtype=np.int64).reshape(3, 10) + 10
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 2:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    answers = []
    for model in (one, other):
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = {item.name for item in session.get_inputs()}
        answers.append(session.run(None, {name: feed for name, feed in feeds.items() if name in names})[0][mask == 1])
    return bool(np.abs(answers[0] - answers[1]).max() < _TOLERANCE)
