"""Fusions of our own for an encoder's graph: attention as one operator, residual sums that integer products swallow.

A fusion expects a graph to be built as the exporter builds it. `fuse` believes one only after it has run the graph
with and without it, so a causal mask, relative positions or anything unforeseen costs speed, never correctness.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.formats.onnx.graph import keep, load, look_up, plain, replace, save, settings

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_TOLERANCE = 1e-4  # largest change of an output against the largest of all: float32 rounding is 20 times smaller
_SKIP_EPSILON = 1e-12  # ONNX Runtime's own where SkipLayerNormalization states none


class UnmatchedError(Exception):
    """The graph is built in another way than an edit expects; the edit is left out."""


def fuse(source: Path, scratch: Path, *, heads: int | None) -> Path:
    """A file in `scratch` with the graph of `source`, cleaned, and with as many fusions as keep its answers."""
    base, trial = scratch / "plain.onnx", scratch / "fused.onnx"
    save(plain(load(source)), base)
    for with_attention in (True, False):
        model = load(base)
        try:
            if with_attention:
                fuse_attention(model, heads)
        except UnmatchedError:
            continue
        split_skip_norms(model)
        look_up_tables(model)
        save(model, trial)
        if agree(base, trial):
            return trial
    return base


def fuse_attention(model: ModelProto, heads: int | None) -> None:
    """Each bidirectional self-attention becomes one `com.microsoft.Attention`, which quantizes to `QAttention`."""
    from onnx import TensorProto, helper

    graph = _Graph(model)
    mask = "attention_mask_int32"  # the kernel wants 32 bits; the graph's own input stays as users feed it
    cast = helper.make_node("Cast", ["attention_mask"], [mask], to=TensorProto.INT32)
    for index, softmax in enumerate([node for node in graph.nodes if node.op_type == "Softmax"]):
        _fuse_one(model, graph, softmax, name=f"attention_{index}", mask=mask, heads=heads)
    model.graph.node.insert(0, cast)
    keep(model, [item.name for item in model.graph.output])


def open_attention(model: ModelProto) -> None:
    """Each `Attention` becomes a product, its bias, and an attention without weights: two quantizers know no other."""
    from onnx import helper, numpy_helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "Attention" or node.domain != "com.microsoft":
            nodes.append(node)
            continue
        data, weight, bias, mask = node.input
        name = node.name
        parts = [f"{name}.query", f"{name}.key", f"{name}.value"]
        sizes = numpy_helper.from_array(np.full(3, _columns(model, weight) // 3, np.int64), f"{name}.sizes")
        model.graph.initializer.append(sizes)
        heads = settings(node)["num_heads"]
        nodes += [
            helper.make_node("MatMul", [data, weight], [f"{name}.product"], f"{name}.product"),
            helper.make_node("Add", [f"{name}.product", bias], [f"{name}.sum"], f"{name}.sum"),
            helper.make_node("Split", [f"{name}.sum", sizes.name], parts, f"{name}.split", axis=-1),
            helper.make_node(
                "MultiHeadAttention",
                [*parts, "", mask],
                list(node.output),
                name,
                domain="com.microsoft",
                num_heads=heads,
            ),
        ]
    replace(model.graph.node, nodes)


def look_up_tables(model: ModelProto) -> None:
    """A stored table that is normalised as a whole, as that of DeBERTa's distances, becomes rows of a lookup."""
    tables = {one.name for one in model.graph.initializer if len(one.dims) == 2}
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "LayerNormalization" and node.input[0] in tables:
            node.input[0] = look_up(model, index, node.input[0], node.output[0])


def split_skip_norms(model: ModelProto) -> None:
    """Each SkipLayerNormalization becomes bias, residual sum and norm.

    The bias then folds into the integer product before it, which is faster than the fused operator. The residual is
    a `Sum`, since ONNX Runtime would fuse an `Add` straight back.
    """
    from onnx import helper

    nodes = []
    for node in model.graph.node:
        if node.op_type != "SkipLayerNormalization":
            nodes.append(node)
            continue
        data, skip, gamma, beta, bias = [*node.input, "", ""][:5]
        output = node.output[0]
        total = "".join(node.output[3:]) or f"{output}_sum"  # where somebody else reads the sum, it has a name
        if bias:
            nodes.append(helper.make_node("Add", [data, bias], [f"{output}_biased"]))
            data = f"{output}_biased"
        nodes.append(helper.make_node("Sum", [data, skip], [total]))
        inputs = [name for name in (total, gamma, beta) if name]
        epsilon = settings(node).get("epsilon", _SKIP_EPSILON)
        nodes.append(helper.make_node("LayerNormalization", inputs, [output], axis=-1, epsilon=epsilon))
    replace(model.graph.node, nodes)


def agree(one: Path, other: Path) -> bool:
    """Whether two graphs give the same first output for rows of unequal length, on every token that is not padding."""
    import onnxruntime as ort

    from edgeml_runtime.backends.onnx import library_errors

    ids = np.arange(30, dtype=np.int64).reshape(3, 10) % 15 + 2  # words that every vocabulary has
    mask = np.ones_like(ids)
    mask[1, 7:] = 0
    mask[2, 2:] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    answers = []
    try:
        for path in (one, other):
            session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            names = [item.name for item in session.get_inputs() if item.name in feeds]
            answer = session.run(None, {name: feeds[name] for name in names})[0]
            answers.append(answer[mask == 1] if answer.ndim == 3 else answer)
    except library_errors():
        return False
    return bool(np.abs(answers[0] - answers[1]).max() < _TOLERANCE * max(1.0, np.abs(answers[0]).max()))


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

    def split(self, node: NodeProto) -> tuple[str, Any]:
        """The one input of a node that is computed, and the array of the one that is stored."""
        computed = [name for name in node.input if name not in self._tensors]
        stored = [name for name in node.input if name in self._tensors]
        if len(computed) != 1 or len(stored) != 1:
            raise UnmatchedError(node.name)
        return computed[0], self._array(self._tensors[stored[0]])


def _fuse_one(model: ModelProto, graph: _Graph, softmax: NodeProto, *, name: str, mask: str, heads: int | None) -> None:
    from onnx import helper, numpy_helper

    scores = _product_above(graph, softmax.input[0])
    weighted = graph.reader(softmax.output[0], "Where", "MatMul")
    if weighted.op_type == "Where":  # a guard for rows that are masked whole
        weighted = graph.reader(weighted.output[0], "MatMul")
    parts = [_projection(graph, value) for value in (scores.input[0], scores.input[1], weighted.input[1])]
    inputs = {part[0] for part in parts}
    if len(inputs) != 1 or len({part[1].shape for part in parts}) != 1:
        raise UnmatchedError(f"{name} attends to two inputs, or with heads of two kinds")
    joined = weighted
    while joined.op_type != "Reshape" or graph.reader(joined.output[0]).op_type != "MatMul":
        joined = graph.reader(joined.output[0])
    weight = np.ascontiguousarray(np.concatenate([part[1] for part in parts], axis=1))
    bias = np.concatenate([part[2] for part in parts])
    stored = {f"{name}.weight": weight, f"{name}.bias": bias}
    model.graph.initializer.extend(numpy_helper.from_array(array, key) for key, array in stored.items())
    reads = [*inputs, *stored, mask]
    made = helper.make_node("Attention", reads, list(joined.output), name, domain="com.microsoft", num_heads=heads)
    at = list(model.graph.node).index(joined)
    model.graph.node.remove(joined)
    model.graph.node.insert(at, made)


def _columns(model: ModelProto, weight: str) -> int:
    return int(next(tensor.dims[1] for tensor in model.graph.initializer if tensor.name == weight))


def _projection(graph: _Graph, name: str) -> tuple[str, Any, Any]:
    """Back from a head to what was projected: that input, the weight (width, width) and the bias (width)."""
    bias, span = None, slice(None)
    while (node := graph.maker(name)).op_type != "MatMul":
        data = node.input[0]
        if node.op_type == "Split":  # the exporter packs queries, keys and values into one product
            data, sizes = graph.split(node)
            ends = np.cumsum(sizes)
            part = list(node.output).index(name)
            span = slice(ends[part - 1] if part else 0, ends[part])
        elif node.op_type == "Add":
            data, bias = graph.split(node)
        name = data
    data, weight = graph.split(node)
    if bias is None or bias.shape != weight[:, span].shape[1:]:
        raise UnmatchedError("a projection without a bias")
    return data, weight[:, span], bias


def _product_above(graph: _Graph, name: str) -> NodeProto:
    while (node := graph.maker(name)).op_type != "MatMul":
        if not node.input:
            raise UnmatchedError(name)
        name = node.input[0]
    return node
