"""Which nodes cost a small graph most of its agreement with fp32, and how few must stay whole until it is enough."""

from __future__ import annotations

from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.choice import Candidate, Work
from edgeml.formats.onnx.judge import Judge


def spare(work: Work, way: Candidate, judge: Judge, wanted: float) -> tuple[Path, list[str], float]:
    """The graph that agrees so well as `wanted`, the fewest of the most harmful nodes that stay whole, its agreement.

    Each node's harm is what is lost on 8 inputs when it alone is made small: as many graphs are made, opened and run as
    there are nodes. Then about twice the logarithm of their number, to find how many must stay. Raises EdgemlError
    where all would have to.
    """
    others = [name for name in way.nodes if name not in way.kept]
    order = _by_harm(work, way, judge, others)
    target = work.scratch / "spared.onnx"
    tick = work.counting("find how many must stay whole", 2 * len(order).bit_length() * len(judge.inputs.lengths))

    def agreement(count: int) -> float:
        return judge.agreement(way.write(target, [*way.kept, *order[:count]], ()), tick=tick)

    enough = 1
    while enough < len(order) and agreement(enough) < wanted:
        enough *= 2
    low, high = enough // 2, min(enough, len(order))
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if agreement(middle) >= wanted else (middle, high)
    if high >= len(order):
        message = f"{way.name} agrees with fp32 by {wanted} only where nothing is made small"
        raise EdgemlError(message, hint="ask for less with --min-agreement, or use another scheme")
    after = agreement(high)
    return target, [*way.kept, *order[:high]], after


def _by_harm(work: Work, way: Candidate, judge: Judge, names: list[str]) -> list[str]:
    harm = {}
    for number, name in enumerate(names):
        work.say(number, len(names), "find the nodes that cost most")
        alone = way.write(work.scratch / "alone.onnx", (), (name,))
        harm[name] = 1 - judge.agreement(alone, quick=True)
    return sorted(names, key=lambda name: -harm[name])
