"""How long a device would take, in seconds with a range, from the laws of the class that it belongs to."""

from __future__ import annotations

import math
from typing import NamedTuple

from edgeml.targets.estimated.bytes import Graph, Streams
from edgeml.targets.estimated.laws import Law, law, thread_exponent
from edgeml.targets.estimated.points import PointMetric
from edgeml.targets.types import Profile

ALL_CORES = 4  # of every Raspberry Pi that a law is fitted on
BEST_THREADS = 2  # at most; more are slower where a Pi 5 writes
_NEAREST = "pi5"  # the one board with published times of ONNX Runtime


class Unpublished(Exception):  # noqa: N818 - not an error: what is not known is said
    """Nobody published what an estimate would rest on. `hint` says how the figure could be had."""

    def __init__(self, reason: str, hint: str) -> None:
        super().__init__(reason)
        self.hint = hint


class Machine(NamedTuple):
    """A device, and how it is used: by how many threads, and with its GPU or not; both left out as is best."""

    profile: Profile
    threads: int | None = None
    gpu: bool | None = None

    @property
    def is_apple(self) -> bool:
        """Whether rates are relative to a chip's bandwidth."""
        return self.profile.name == "apple-silicon"

    @property
    def engine(self) -> str:
        """What computes; llama.cpp's build for macOS takes the GPU unless told otherwise."""
        return "CPU" if self.gpu is False else "GPU"

    @property
    def title(self) -> str:
        """What a reader calls it."""
        chip = self.profile.chosen_chip
        return f"{self.profile.title} ({chip})" if chip else self.profile.title


class Span(NamedTuple):
    """A quantity with its bounds, how it was calculated, and the sources that it rests on, by name."""

    value: float
    low: float
    high: float
    method: str
    sources: frozenset[str]

    def times(self, factor: float) -> Span:
        """The quantity so many times, its bounds with it."""
        return self._replace(value=self.value * factor, low=self.low * factor, high=self.high * factor)

    def plus(self, other: Span) -> Span:
        """Both together; the bounds add up, as if both missed in the same direction."""
        return Span(
            self.value + other.value,
            self.low + other.low,
            self.high + other.high,
            f"{self.method}; {other.method}",
            self.sources | other.sources,
        )

    def per(self, amount: float) -> Span:
        """`amount` over the quantity, such as tokens over seconds: the bounds change places."""
        return self._replace(value=amount / self.value, low=amount / self.high, high=amount / self.low)


def decode(streams: Streams, machine: Machine, *, depth: float) -> Span:
    """Seconds of one token when `depth` tokens stand before it."""
    found, scale = _law("decode_rate", _decode_class(machine), machine), _scale(machine)
    read = streams.decode_bytes(depth)
    layers = " and a time for each layer" if found.layer_s else ""
    what = f"{read / 1e6:.1f} MB streamed a token, at {found.rate * scale / 1e9:.1f} GB/s{layers}"
    return _span(found, read / scale, streams.layers, what)


def prefill(streams: Streams, machine: Machine, *, tokens: int, causal: bool) -> Span:
    """Seconds of reading so many tokens at once: those of the multiply-adds, and not less than those of the bytes."""
    apple = machine.is_apple
    kind = machine.engine if apple else f"{streams.kernels} kernels"
    found = _law("prefill_rate", f"{machine.profile.name}, {kind}", machine)
    scale = _scale(machine) if apple else _slower(machine)
    operations = streams.prompt_operations(tokens, causal=causal) + streams.head_operations
    span = _span(found, operations / scale, 0, _multiplied(operations, found.rate * scale), per=tokens)
    return _at_least(span, streams.bytes_per_token, machine, layers=streams.layers)


def graph_time(graph: Graph, scheme: str, machine: Machine) -> Span:
    """Seconds of one run of an ONNX graph whose weights are stored as `scheme` says."""
    found, scale = _law("latency", f"{_NEAREST}, {scheme}", machine), _slower(machine)
    if not graph.operations:
        raise Unpublished("its graph has no products by weights, whose time could be told", _measure(machine))
    what = f"{_multiplied(graph.operations, found.rate * scale)}, as convolutional networks have"
    span = _span(found, graph.operations / scale, 0, what)
    if machine.profile.name != _NEAREST:
        span = _elsewhere(span, found, _law("slowdown", machine.profile.name, machine))
    return _at_least(span, graph.weight_bytes, machine._replace(gpu=False), layers=0)


def watts(machine: Machine) -> Span:
    """What the busy device draws at the wall, from the least to the most that was published."""
    fact, idle = machine.profile.busy_w, machine.profile.idle_w
    low = fact.low if fact and fact.low is not None else idle.value if idle else None
    if fact is None or low is None:
        raise Unpublished(f"no power at the wall is published of the busy {machine.title}", _measure(machine))
    high = fact.high or fact.value
    value = fact.value if fact.low is not None else math.sqrt(low * high)
    return Span(value, low, high, f"{low:g} to {high:g} W at the wall ({fact.source})", frozenset())


def _multiplied(operations: float, rate: float) -> str:
    return f"{operations / 1e9:.2f} billion multiply-adds, at {rate / 1e9:.0f} billion a second"


def _span(found: Law, work: float, layers: int, what: str, *, per: int = 1) -> Span:
    seconds = found.seconds(work, layers)
    method = what + _range(found) + _beyond(found, work / per)
    return Span(seconds, seconds / found.factor, seconds * found.factor, method, frozenset(found.sources))


def _elsewhere(span: Span, found: Law, slower: Law) -> Span:
    """The time on another device, from that on a Pi 5: both may miss, so the ranges add up as squares do."""
    value = span.value / slower.rate
    factor = math.exp(math.hypot(found.spread, slower.spread))
    times = f"{1 / slower.rate:.1f} times as long here as on a Pi 5, as networks took in other engines"
    method = f"{span.method}; {times}{_range(slower)}"
    return Span(value, value / factor, value * factor, method, span.sources | set(slower.sources))


def _range(found: Law) -> str:
    count, factor = len(found.sources), f"a factor of {found.factor:.2f}"
    sources = f", fitted on {count} source{'s' if count != 1 else ''}"
    if found.few:
        return f"{sources}, too few for a range of its own: it is {factor} either way"
    return f"{sources}, each within {factor} of what the others predict, four times of five"


def _beyond(found: Law, work: float) -> str:
    """A warning where the work is less or more than any that was published."""
    if work < found.least:
        return f"; beyond what was published: the least work with a published time is {found.least / work:.1f} times it"
    past = f"; beyond what was published: {work / found.most:.1f} times the most work with a published time"
    return past if work > found.most else ""


def _at_least(span: Span, read_bytes: float, machine: Machine, *, layers: int) -> Span:
    """Not less than the time of reading the weights once, which is that of one token that is written."""
    found = law("decode_rate", _decode_class(machine._replace(threads=ALL_CORES)))
    known = found and not (machine.is_apple and machine.profile.chosen_chip is None)
    floor = found.seconds(read_bytes / _scale(machine), layers) if found and known else 0.0
    if floor <= span.value:
        return span
    method = f"{read_bytes / 1e6:.1f} MB of weights, which take longer to read than to multiply; else {span.method}"
    return span.times(floor / span.value)._replace(method=method)


def _decode_class(machine: Machine) -> str:
    name, threads = machine.profile.name, machine.threads
    if machine.is_apple:
        return f"{name}, {machine.engine}"
    if name == "pi5":
        return f"{name}, {'best threads' if threads is None or threads <= BEST_THREADS else 'all cores'}"
    return name


def _law(metric: PointMetric, name: str, machine: Machine) -> Law:
    found = law(metric, name)
    if found is None:
        raise Unpublished(f"nothing was published of {_WHAT[metric]} on the {machine.title}", _measure(machine))
    return found


_WHAT = {
    "decode_rate": "how fast language models write",
    "prefill_rate": "how fast such files read a prompt",
    "latency": "how long networks take in ONNX Runtime",
    "slowdown": "how networks compare with a Pi 5's",
}


def _scale(machine: Machine) -> float:
    """What rates are relative to: of Apple's chips the bandwidth that Apple states, else 1."""
    if not machine.is_apple:
        return 1.0
    if machine.profile.chosen_chip is None:
        names = ", ".join(machine.profile.chips)
        raise Unpublished("Apple's chips differ by ten times", f"name one, such as --target apple-silicon:m2: {names}")
    return machine.profile.bandwidth_gb_s["spec"].value * 1e9


def _slower(machine: Machine) -> float:
    """The share of all cores' throughput that fewer threads have."""
    return (min(machine.threads, ALL_CORES) / ALL_CORES) ** thread_exponent() if machine.threads else 1.0


def _measure(machine: Machine) -> str:
    return f"measure it on the {machine.title}: edgeml bench --host user@address, or there"
