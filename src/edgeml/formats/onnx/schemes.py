"""What each ONNX scheme is made of: the ways in which its graph can be written, and which inputs that needs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats import CalibrationMethod
from edgeml.formats.onnx.choice import Candidate, Made, Work, decide, repeat, rounded
from edgeml.formats.onnx.collect import collect
from edgeml.formats.onnx.fuse import open_attention
from edgeml.formats.onnx.graph import load, save
from edgeml.formats.onnx.half import write_half
from edgeml.formats.onnx.int4 import OPERATORS, PACKINGS, Packing, block_size, products_of_gemms, write_int4
from edgeml.formats.onnx.int8 import write_int8
from edgeml.formats.onnx.judge import Judge
from edgeml.formats.onnx.nodes import excluded, name_nodes, weighted
from edgeml.formats.onnx.ranges import METHODS, range_of
from edgeml.formats.onnx.static import activations, operators, write_static

STATIC = "static, "
DYNAMIC = "dynamic"
_BYTES_FAST = (
    "x86-64-avx2",
    "x86-64-vnni",
    "arm64-dotprod",
)  # have int4 kernels that multiply bytes (MLAS, sqnbitgemm)


def make(work: Work) -> Made:
    """The graph in its scheme, the way that was chosen for it, and what was measured to choose it."""
    return _MAKERS[work.order.scheme](work)


def _full(work: Work) -> Made:
    return Made(work.whole, {})


def _half(work: Work) -> Made:
    clipped = 0

    def write(target: Path, kept: Sequence[str], only: Sequence[str]) -> Path:  # noqa: ARG001 - it has no parts
        nonlocal clipped
        clipped = write_half(work.whole, target)
        return target

    ways = [Candidate("half precision", write)]
    made = repeat(work, ways) or decide(work, ways)
    if not any(made.settings["agreement"].values()):
        message = "half precision cannot hold what this model computes: its answers are no finite numbers"
        raise EdgemlError(message, hint="use onnx:int8 or onnx:fp32")
    return Made(made.path, made.settings | ({"clipped": clipped} if clipped else {}))


def _dynamic(work: Work) -> Made:
    """As integers are made without calibration inputs: nothing is measured unless the user asked for something."""
    wishes, source = work.order.wishes, work.small
    if not work.order.calibration:
        work.say(0, 1, "make it small")
    if not (work.order.calibration or wishes.exclude or work.settled):
        return Made(write_int8(source, work.scratch / "int8.onnx", work.order.kernels), {})
    way = _dynamic_way(work)
    if not work.order.calibration:
        path = way.write(work.scratch / "int8.onnx", work.settled.get("excluded", way.kept), ())
        return Made(path, {"chosen": DYNAMIC, "excluded": list(way.kept)})
    return repeat(work, [way]) or decide(work, [way])


def _static(work: Work) -> Made:
    """The ranges of the method that agrees best: they make no difference to the time."""
    ways = _static_ways(work)
    if again := repeat(work, ways):
        return again
    best, others = _best(work, ways)
    made = decide(work, [best])
    why = "of three methods, it agrees with fp32 best" if others else made.settings["why"]
    return Made(made.path, made.settings | {"why": why, "agreement": others | made.settings["agreement"]})


def _int8(work: Work) -> Made:
    """Dynamic without calibration inputs; with them, whichever of dynamic and the best static the rule takes."""
    if not work.order.calibration:
        return _dynamic(work)
    if convolves(work.small):
        return _static(work)
    ways, dynamic = _static_ways(work), _dynamic_way(work)
    if again := repeat(work, [*ways, dynamic]):
        return again
    best, others = _best(work, ways)
    made = decide(work, [dynamic, best])
    return Made(made.path, made.settings | {"agreement": others | made.settings["agreement"]})


def _best(work: Work, ways: Sequence[Candidate]) -> tuple[Candidate, dict[str, float]]:
    """The way that agrees with fp32 best, and how well each of the others does."""
    if len(ways) == 1:
        return ways[0], {}
    judge = Judge(work.whole, work.inputs()[1], work.order.kind)
    agreement, tick = {}, work.counting("compare the methods", len(ways) * len(judge.inputs.lengths))
    for one in ways:
        path = one.write(work.scratch / "tried.onnx", one.kept, ())
        agreement[one.name] = rounded(judge.agreement(path, tick=tick))
    best = max(ways, key=lambda one: agreement[one.name])
    return best, {name: value for name, value in agreement.items() if name != best.name}


def _int4(work: Work) -> Made:
    source = _open(work.small, work.scratch / "int4-source.onnx", gemms=True)
    block = block_size(work.order.wishes.block_size)
    nodes = [node for node in weighted(load(source)) if node.operator in OPERATORS]
    kept = tuple(excluded(nodes, work.order.wishes.exclude))

    def way(packing: Packing) -> Candidate:
        def write(target: Path, kept: Sequence[str], only: Sequence[str]) -> Path:
            return write_int4(source, target, block=block, packing=packing, kept=kept, only=only)

        rank = int((packing.level == 4) != (work.order.kernels in _BYTES_FAST))
        return Candidate(packing.name, write, tuple(node.name for node in nodes), kept, rank)

    ways = [way(packing) for packing in PACKINGS]
    made = repeat(work, ways) or decide(work, ways)
    return Made(made.path, made.settings | {"block_size": block})


def _dynamic_way(work: Work) -> Candidate:
    source = name_nodes(work.small, work.scratch / "dynamic-source.onnx")
    nodes = weighted(load(source))
    known = {node.name for node in nodes if node.operator == "Gemm"}

    def both(names: Sequence[str]) -> list[str]:
        """A Gemm becomes a product of another name before it is made small."""
        return [*names, *(f"{name}_MatMul" for name in names if name in known)]

    def write(target: Path, kept: Sequence[str], only: Sequence[str]) -> Path:
        return write_int8(source, target, work.order.kernels, kept=both(kept), only=both(only))

    kept = tuple(excluded(nodes, work.order.wishes.exclude))
    return Candidate(DYNAMIC, write, tuple(node.name for node in nodes), kept, rank=0)


def _static_ways(work: Work) -> list[Candidate]:
    order = work.order
    assert order.calibration
    source = _open(work.small, work.scratch / "static-source.onnx")
    model = load(source)
    nodes = [node for node in weighted(model) if node.operator in operators(model)]
    del model
    kept = tuple(excluded(nodes, order.wishes.exclude))
    names = tuple(node.name for node in nodes)
    inputs = work.inputs()[0]

    def told(done: int, total: int) -> None:
        work.say(done, total, "find ranges")

    limit_bytes = order.wishes.memory_bytes
    counted = collect(source, activations(source), inputs, limit_bytes=limit_bytes, scratch=work.scratch, tick=told)

    def way(method: CalibrationMethod) -> Candidate:
        ranges = {name: range_of(found, method) for name, found in counted.items()}

        def write(target: Path, kept: Sequence[str], only: Sequence[str]) -> Path:
            return write_static(source, target, order.kernels, ranges, kept=kept, only=only)

        return Candidate(f"{STATIC}{method}", write, names, kept, rank=1)

    asked = order.wishes.calibration_method
    return [way(method) for method in ((asked,) if asked else METHODS)]


def _open(source: Path, target: Path, *, gemms: bool = False) -> Path:
    """The graph with every matrix in an operator that the quantizer knows, and a name for every node."""
    model = load(source)
    open_attention(model)
    if gemms:
        products_of_gemms(model)
    save(model, target)
    return name_nodes(target, target)


def convolves(path: Path) -> bool:
    """Whether the graph is one of a convolutional net."""
    return any(node.op_type == "Conv" for node in load(path, weights=False).graph.node)


_MAKERS: dict[str, Callable[[Work], Made]] = {
    "fp32": _full,
    "fp16": _half,
    "int8": _int8,
    "int8-dynamic": _dynamic,
    "int8-static": _static,
    "int4": _int4,
}
