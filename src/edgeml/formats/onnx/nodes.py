"""Which nodes of a graph a scheme may make small, under which names a user finds them, and how they are kept whole."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import load, save

if TYPE_CHECKING:
    from onnx import ModelProto

WEIGHTED = ("Attention", "Conv", "Gather", "Gemm", "MatMul")
_HINTED = 3


class Node(NamedTuple):
    """A node with a stored matrix. `names` are all that a pattern may fit: its own, its weights', its bias's."""

    name: str
    operator: str
    names: tuple[str, ...]
    reads: str
    writes: str


def weighted(model: ModelProto) -> list[Node]:
    """The nodes that hold a matrix of weights in floating point, in the graph's order."""
    from onnx import TensorProto

    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = defaultdict(list)
    for node in model.graph.node:
        for name in node.input:
            readers[name].append(node)
    found = []
    for node in model.graph.node:
        own = [name for name in node.input if name in stored]
        matrices = [one for one in own if len(stored[one].dims) > 1 and stored[one].data_type == TensorProto.FLOAT]
        if node.op_type not in WEIGHTED or not matrices or (node.op_type == "Gather" and node.input[0] not in matrices):
            continue
        beside = [name for reader in readers[node.output[0]] for name in reader.input if name in stored]
        names = tuple(dict.fromkeys((node.name, *own, *beside)))
        reads = next((name for name in node.input if name not in stored), "")
        found.append(Node(node.name, node.op_type, names, reads, node.output[0]))
    return found


def excluded(nodes: Sequence[Node], patterns: Sequence[str]) -> list[str]:
    """Names of the nodes that a pattern fits anywhere.

    Raises EdgemlError with the nearest names for a pattern that fits none, or that is no regular expression.
    """
    kept: list[str] = []
    for pattern in patterns:
        try:
            expression = re.compile(pattern)
        except re.error as error:
            hint = "write a regular expression, such as layer\\.0"
            raise EdgemlError(f"--exclude {pattern} cannot be read: {error}", hint=hint) from error
        fitting = [node.name for node in nodes if any(expression.search(name) for name in node.names)]
        if not fitting:
            known = list(dict.fromkeys(name for node in nodes for name in node.names))
            near = get_close_matches(pattern, known, n=_HINTED, cutoff=0.0)
            hint = f"the nearest are {', '.join(near)}" if near else "the scheme makes no node small"
            raise EdgemlError(f"--exclude {pattern} fits no node that the scheme makes small", hint=hint)
        kept += fitting
    return list(dict.fromkeys(kept))


def name_nodes(source: Path, target: Path) -> Path:
    """`target`, the graph with a name of its own for every node, so that each can be asked for."""
    model = load(source)
    counts: Counter[str] = Counter()
    for number, node in enumerate(model.graph.node):
        name = node.name or f"{node.op_type}_{number}"
        node.name = f"{name}_{counts[name]}" if counts[name] else name
        counts[name] += 1
    save(model, target)
    return target
