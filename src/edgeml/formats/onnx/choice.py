"""Which of several ways to write a scheme is taken: each is made, compared with fp32, and timed in turn with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.inputs import Reader, judged_on, open_inputs, parts
from edgeml.formats.onnx.judge import Judge, Say
from edgeml.formats.onnx.order import Order
from edgeml_runtime.session import Kind

MARGIN = 0.001  # of agreement, within which the faster one is taken
SAME = 0.05  # of the time, within which the one that agrees better is taken
_DIGITS = 6
_ALIKE: tuple[Kind, ...] = ("encoder", "classifier", "tagger")  # one graph for every scheme
Write = Callable[
    [Path, Sequence[str], Sequence[str]], Path
]  # to there, with these nodes kept, or these alone made small


@dataclass(frozen=True)
class Work:
    """One graph to make. `shape` writes it in fp32, with `small=True` as a quantizer knows it whole.

    `reads` is the graph that reads a text, where this one writes the answer. Files are written into `scratch`.
    """

    order: Order
    file: str
    shape: Callable[..., Path]
    scratch: Path
    say: Say
    reads: Work | None = None

    @cached_property
    def whole(self) -> Path:
        """The graph in fp32, as that scheme has it."""
        return self.shape(small=False)

    @cached_property
    def small(self) -> Path:
        """The graph in fp32, with the edits that let a quantizer know it whole."""
        return self.whole if self.order.kind in _ALIKE else self.shape(small=True)

    @property
    def settled(self) -> dict[str, Any]:
        """The settings of the conversion that is repeated; empty where this is a first one."""
        found: dict[str, Any] = self.order.settled.get(self.file, self.order.settled)
        return found

    def counting(self, step: str, total: int) -> Callable[[], None]:
        """What is to be called for each of so many units of a step: it says how many are done."""
        done = count(1)
        self.say(0, total, step)
        return lambda: self.say(next(done), total, step)

    def inputs(self) -> tuple[Reader, Reader]:
        """Those that set ranges, and those that judge; where none were given, neutral ones are both."""
        found = open_inputs(self.order, self.whole, encoder=self.reads.whole if self.reads else None)
        return parts(found) if self.order.calibration else (found, found)


class Candidate(NamedTuple):
    """A way to write the scheme. `nodes` are those that it makes small, `kept` those of them that the user excluded.

    `rank` decides between equals where no time can: the lowest first.
    """

    name: str
    write: Write
    nodes: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    rank: int = 0


class Made(NamedTuple):
    """The graph that was taken, and what was measured and decided."""

    path: Path
    settings: dict[str, Any]


def repeat(work: Work, candidates: Sequence[Candidate]) -> Made | None:
    """The graph as an earlier conversion settled it, with nothing measured anew; None for a first one."""
    settled = work.settled
    if not settled:
        return None
    for one in candidates:
        if one.name == settled.get("chosen"):
            return Made(one.write(work.scratch / "again.onnx", settled.get("excluded", ()), ()), settled)
    raise EdgemlError(f"{settled.get('chosen')} is no way to make it again", hint="use the edgeml that made it")


def decide(work: Work, candidates: Sequence[Candidate]) -> Made:
    """Make every candidate, judge it, and take one by the rule; `settings` say what each one had.

    The rule: of those whose agreement is within 0.001 of the best, the fastest on this machine if it is the target,
    those within 5 % of its time being as fast; of these the one that agrees best. On another machine, times decide
    nothing, and of those within 0.001 the one is taken that the library's documentation favours.
    """
    judge = Judge(work.whole, work.inputs()[1], work.order.kind)
    built: dict[str, Path] = {}
    agreement: dict[str, float] = {}
    tick = work.counting("compare with fp32", len(candidates) * len(judge.inputs.lengths))
    for number, one in enumerate(candidates):
        built[one.name] = one.write(work.scratch / f"candidate-{number}.onnx", one.kept, ())
        agreement[one.name] = rounded(judge.agreement(built[one.name], tick=tick))
    times_ms = judge.times_ms({"fp32": work.whole, **built}, work.say)
    taken, why = choose(candidates, agreement, times_ms if work.order.here else {})
    path, kept = built[taken.name], {"excluded": list(taken.kept)} if taken.kept else {}
    wanted = work.order.wishes.min_agreement
    if wanted is not None and agreement[taken.name] < wanted:
        path, kept = _spared(work, taken, judge, agreement, times_ms)
    return Made(path, _settings(work, taken, judge, agreement, times_ms) | {"why": why, **kept})


def _spared(
    work: Work, taken: Candidate, judge: Judge, agreement: dict[str, float], times_ms: dict[str, float]
) -> tuple[Path, dict[str, Any]]:
    """The graph with the most harmful nodes kept whole, and which; its agreement and time replace those before."""
    from edgeml.formats.onnx.sensitivity import spare

    wanted = work.order.wishes.min_agreement
    assert wanted is not None
    path, excluded, after = spare(work, taken, judge, wanted)
    before, agreement[taken.name] = agreement[taken.name], rounded(after)
    times_ms |= judge.times_ms({"fp32": work.whole, taken.name: path}, work.say)
    return path, {"excluded": excluded, "agreement_before": before}


def _settings(
    work: Work, taken: Candidate, judge: Judge, agreement: dict[str, float], times_ms: dict[str, float]
) -> dict[str, Any]:
    return {
        "chosen": taken.name,
        "agreement": agreement,
        "judged_on": judged_on(work.order, len(judge.inputs.lengths)),
        "times_ms": times_ms,
        "timed": "on this machine" + ("" if work.order.here else ", which is not the target: they decided nothing"),
        "share_of_fp32_time": round(times_ms[taken.name] / times_ms["fp32"], 3),
    }


def rounded(agreement: float) -> float:
    """An agreement as settings keep it."""
    return round(agreement, _DIGITS)


def choose(
    candidates: Sequence[Candidate], agreement: Mapping[str, float], times_ms: Mapping[str, float]
) -> tuple[Candidate, str]:
    """The candidate that the rule of `decide` takes, and why; without times, none decide."""
    best = max(agreement[one.name] for one in candidates)
    near = [one for one in candidates if agreement[one.name] >= best - MARGIN]
    if len(candidates) == 1:
        return near[0], "it is the only way"
    if len(near) == 1:
        return near[0], "no other agrees with fp32 so well"
    if not times_ms:
        least = min(one.rank for one in near)
        taken = max((one for one in near if one.rank == least), key=lambda one: agreement[one.name])
        return taken, f"within {MARGIN} of the best agreement, and favoured for the target"
    quickest = min(times_ms[one.name] for one in near)
    fast = [one for one in near if times_ms[one.name] <= quickest * (1 + SAME)]
    taken = max(fast, key=lambda one: (agreement[one.name], -one.rank))
    return taken, f"within {MARGIN} of the best agreement, and as fast as any such"
