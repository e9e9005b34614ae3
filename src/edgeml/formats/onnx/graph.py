"""Reading, cleaning and writing an ONNX graph; each step keeps the graph's answers.

Knows nothing of how a graph was made. Fusions that may not fit are in `fuse`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

# Larger weights lie beside their graph. A protobuf ends at 2 GB, and far below that, memory is the reason: to write or
# parse one takes up to four times its size, and ONNX Runtime maps weights that lie beside it (measured with 646 MB of
# int8: loading peaks at 675 MiB instead of 952).
EXTERNAL_BYTES = 200_000_000
TABLE = ".table"  # ends the name of what is stored, but was computed: no parameter of the model's
MICROSOFT = "com.microsoft"  # the domain of ONNX Runtime's own operators
COPIED = ".copy"  # ends the name of a weight that is stored a second time, as it is or transposed


def load(path: Path, *, weights: bool = True) -> ModelProto:
    """The graph, with or without weights that lie beside it; raises EdgemlError for a file that is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
        if not _is_whole(model.graph):
            raise _incomplete(path)
        if weights and (beside := _beside(model)):
            _require(path, beside)
            onnx.load_external_data_for_model(model, str(path.parent))
    except (DecodeError, OSError, ValueError, onnx.checker.ValidationError) as error:  # also for weights beside it
        raise _incomplete(path) from error
    return model


def tensors(graph: GraphProto) -> Iterator[TensorProto]:
    """Every tensor that is stored in a graph, those of its constants, branches and bodies too."""
    for one in _graphs(graph):
        yield from one.initializer
        for node in one.node:
            yield from (part.t for part in node.attribute if node.op_type == "Constant" and part.HasField("t"))


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph, and its branches and bodies at any depth."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                if inner.node:
                    yield from _graphs(inner)


def _is_whole(graph: GraphProto) -> bool:
    """Whether it computes something, of tensors that can be, by names that are text: protobuf gives others as bytes."""
    stored = list(tensors(graph))
    known = stored[0].DataType.values() if stored else ()
    possible = all(one.data_type in known and min(one.dims, default=0) >= 0 for one in stored)
    names: list[object] = [entry for one in stored for part in one.external_data for entry in (part.key, part.value)]
    for inner in _graphs(graph):
        names += (one.name for one in (*inner.input, *inner.output))
        names += (name for one in inner.node for name in (one.name, one.op_type, one.domain, *one.input, *one.output))
    names += (one.name for one in stored)
    return bool(graph.node and graph.output) and possible and all(isinstance(name, str) for name in names)


def save(model: ModelProto, path: Path) -> None:
    """Write the graph, with its weights beside it where they are too large for one file."""
    import onnx

    beside = drop_weights(path)
    if sum(tensor.ByteSize() for tensor in model.graph.initializer) > EXTERNAL_BYTES:
        onnx.save_model(model, path, save_as_external_data=True, location=beside.name)
        _readable(beside, path)
    else:
        onnx.save_model(model, path)


def drop_weights(path: Path) -> Path:
    """Where the weights beside a graph are to lie, and lie no more: onnx would append to those of an earlier one."""
    beside = path.with_name(f"{path.name}.data")
    beside.unlink(missing_ok=True)
    return beside


def settle(made: Path, target: Path) -> None:
    """Give a graph that was made elsewhere on the same disk its place and name.

    Large weights beside it are renamed, not read: that would take as much memory as they have bytes. Nor do they get a
    second name: onnx refuses to read weights that have two.
    """
    import onnx

    model = load(made, weights=False)
    files = _beside(model)
    if len(files) != 1 or (source := made.with_name(files.pop())).stat().st_size <= EXTERNAL_BYTES:
        save(load(made), target)
        return
    goal = target.with_name(f"{target.name}.data")
    for tensor in tensors(model.graph):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = goal.name
    onnx.save_model(model, target)
    _readable(source, target)
    os.replace(source, goal)


def plain(model: ModelProto) -> ModelProto:
    """The graph without traces of the machine that exported it, stale shapes, and outputs that nobody reads."""
    outputs = [item.name for item in model.graph.output]
    keep(model, outputs[:1] if outputs[0] == "last_hidden_state" else outputs)
    return model


def keep(model: ModelProto, outputs: list[str]) -> None:
    """Keep these outputs and what they need; drop stale shapes and the exporter's notes."""
    graph, needed, nodes = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            nodes.append(node)
            needed |= set(_reads(node))
    replace(graph.node, nodes[::-1])
    for index in reversed([place for place, one in enumerate(graph.initializer) if one.name not in needed]):
        del graph.initializer[index]  # in place: to extend a field by messages copies all their weights
    replace(graph.output, [item for item in graph.output if item.name in outputs])
    replace(graph.value_info, [])
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def split_heads(model: ModelProto) -> ModelProto:
    """A product by a stored matrix that turns or scales it becomes a plain one, which the quantizer knows.

    A matrix that is turned, as an embedding that is the head too, is copied for it; the scale follows as a product.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes: list[NodeProto] = []
    for node in model.graph.node:
        if node.op_type != "FusedMatMul" or node.input[1] not in tensors or not sets_only(node, "alpha", "transB"):
            nodes.append(node)
            continue
        fused, name = settings(node), node.input[1]
        if fused.get("transB"):
            array = np.ascontiguousarray(numpy_helper.to_array(tensors[name]).T)
            name += COPIED
            model.graph.initializer.append(numpy_helper.from_array(array, name))
        nodes += _scaled_product(model, node, name, fused.get("alpha", 1.0))
    replace(model.graph.node, nodes)
    return model


def _scaled_product(model: ModelProto, node: NodeProto, matrix: str, alpha: float) -> list[NodeProto]:
    from onnx import helper, numpy_helper

    output = node.output[0]
    if alpha == 1:
        return [helper.make_node("MatMul", [node.input[0], matrix], [output], node.name)]
    plain_output, scale = f"{output}.plain", f"{output}.scale{TABLE}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(alpha, np.float32), scale))
    return [
        helper.make_node("MatMul", [node.input[0], matrix], [plain_output], node.name),
        helper.make_node("Mul", [plain_output, scale], [output]),
    ]


def rename(model: ModelProto, names: dict[str, str]) -> None:
    """Give stored tensors other names, wherever they are read."""
    for tensor in model.graph.initializer:
        tensor.name = names.get(tensor.name, tensor.name)
    for node in model.graph.node:
        replace(node.input, [names.get(name, name) for name in node.input])


def settings(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name."""
    from onnx import helper

    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def sets_only(node: NodeProto, *names: str) -> bool:
    """Whether none of a node's other attributes says anything."""
    return not any(value for name, value in settings(node).items() if name not in names)


def look_up(model: ModelProto, index: int, table: str, name: str) -> str:
    """What a lookup of all rows of a stored table gives, put before a node: quantizers make integers of its table."""
    from onnx import helper, numpy_helper

    rows = next(one.dims[0] for one in model.graph.initializer if one.name == table)
    places, found = f"{name}.places", f"{name}.table"
    model.graph.initializer.append(numpy_helper.from_array(np.arange(rows, dtype=np.int64), places))
    model.graph.node.insert(index, helper.make_node("Gather", [table, places], [found]))
    return found


def replace(field: Any, items: list[Any]) -> None:
    """Give a repeated field other items."""
    del field[:]
    field.extend(items)


def _reads(node: NodeProto) -> Iterator[str]:
    """Names that a node reads, by its branches and bodies too."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from _graph_reads(graph)


def _graph_reads(graph: GraphProto) -> Iterator[str]:
    yield from (item.name for item in graph.output)
    for node in graph.node:
        yield from _reads(node)


def _readable(beside: Path, graph: Path) -> None:
    """Whoever may read the graph may read its weights: the library lets their owner alone."""
    if beside.exists():
        beside.chmod(graph.stat().st_mode & 0o777)


def _beside(model: ModelProto) -> set[str]:
    """Names of the files, relative to the graph's folder, that hold weights of it."""
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    return {ExternalDataInfo(one).location for one in tensors(model.graph) if uses_external_data(one)}


def _require(path: Path, beside: set[str]) -> None:
    for name in sorted(beside):
        if not path.with_name(name).is_file():
            message = f"{path} keeps its weights in {name}, which is not beside it"
            raise EdgemlError(message, hint=f"put {name} there, or download or make the model again")


def _incomplete(path: Path) -> EdgemlError:
    return EdgemlError(f"{path} is no complete ONNX file", hint="download or make it again")
