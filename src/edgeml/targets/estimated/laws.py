"""What the published points say of a class of devices: a rate, and how far it misses points of a source it never saw.

Each source counts as much as any other, however many points it has: what differs between sources (the board's cooling,
the build, the person) is larger than what differs within one. Ranges are those of two-layer conformal prediction,
which assumes nothing of how misses are spread: Dunn, Wasserman and Ramdas, Distribution-Free Prediction Sets for
Two-Layer Hierarchical Models, JASA 2023, with the pooled distribution of all leave-one-source-out misses.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cache
from typing import NamedTuple, get_args

from edgeml.targets.estimated.points import Point, PointMetric, published
from edgeml_runtime.types import Record

LEVEL = 0.8
LEAST_SOURCES = 4  # k sources leave 1/(k+1) of the misses to one never seen: 80 % of them need four
WITH_LAYERS = {"apple-silicon, GPU"}  # where a layer costs time of its own: the errors in docs/estimates.md decided


class Case(NamedTuple):
    """A point as the laws see it: `work` in bytes or multiply-adds, over the chip's bandwidth where that is known."""

    source: str
    work: float
    layers: int
    seconds: float


class Law(Record, frozen=True, kw_only=True):
    """How long work takes on a class of devices: `work / rate + layers * layer_s` seconds.

    `spread` is the half-width of the range around the logarithm of that, at `LEVEL`. With fewer than four sources
    (`few`) it is borrowed, see `spread_of`. `sources` are those that it rests on, `least` and `most` the work of their
    points.
    """

    name: str
    rate: float
    layer_s: float
    spread: float
    sources: tuple[str, ...]
    few: bool
    least: float
    most: float

    def seconds(self, work: float, layers: int = 0) -> float:
        """The time of so much work, in seconds."""
        return work / self.rate + layers * self.layer_s

    @property
    def factor(self) -> float:
        """By how much the figure may be multiplied or divided."""
        return math.exp(self.spread)


def class_of(point: Point) -> str:
    """The class that a point belongs to: a device, and the conditions that decide its speed."""
    device = f"{point.device}, "
    if point.device == "apple-silicon":
        return device + ("CPU" if "CPU" in point.engine else "GPU")
    if point.metric == "prefill_rate":
        return device + f"{point.kernels} kernels"
    if point.metric == "latency":
        return device + published().network(point).quantization
    if point.metric == "decode_rate" and point.device == "pi5":
        return device + ("best threads" if (point.threads or 4) <= 2 else "all cores")
    return point.device


def case(point: Point) -> Case:
    """A point's work and the seconds that it took; of a token for the two rates, of an input for `latency`."""
    data = published()
    if point.metric == "slowdown":
        return Case(point.source, 1.0, 0, point.value)
    network = data.network(point)
    scale = data.bandwidth_gb_s[point.chip] * 1e9 if point.chip else 1.0
    if point.metric == "decode_rate":
        return Case(point.source, network.bytes_per_token / scale, network.layers, 1 / point.value)
    if point.metric == "prefill_rate":
        return Case(point.source, network.operations / scale, 0, 1 / point.value)
    return Case(point.source, network.operations, 0, point.value / 1e3)


@cache
def classes(metric: PointMetric) -> dict[str, list[Point]]:
    """The points that laws are fitted on, by class. Those that read a prompt do so with every core."""
    found: dict[str, list[Point]] = defaultdict(list)
    for point in published().points:
        if point.metric == metric and not point.over_memory and not (metric == "prefill_rate" and _fewer(point)):
            found[class_of(point)].append(point)
    return dict(found)


@cache
def law(metric: PointMetric, name: str, without: str | None = None) -> Law | None:
    """The law of a class, fitted as if the source `without` had never published; None where no point is left."""
    cases = _cases(metric, name, without)
    if not cases:
        return None
    rate, layer_s = fitted(cases, layers=name in WITH_LAYERS and metric == "decode_rate")
    sources = tuple(sorted({one.source for one in cases}))
    return Law(
        name=name,
        rate=rate,
        layer_s=layer_s,
        spread=spread_of(metric, name, without),
        sources=sources,
        few=len(sources) < LEAST_SOURCES,
        least=min(one.work for one in cases),
        most=max(one.work for one in cases),
    )


def fitted(cases: Sequence[Case], *, layers: bool) -> tuple[float, float]:
    """Work a second, and seconds a layer (0 without `layers`).

    Without layers, the mean of the sources' mean logarithms. With them, the least squares of the relative errors of
    the time, each source weighing the same.
    """
    import numpy as np

    counts = Counter(one.source for one in cases)
    if not layers:
        logs = np.array([math.log(one.work / one.seconds) for one in cases])
        weights = np.array([1 / counts[one.source] for one in cases])
        return math.exp(float(np.average(logs, weights=weights))), 0.0
    weights = np.array([counts[one.source] ** -0.5 for one in cases])
    table = np.array([(one.work / one.seconds, one.layers / one.seconds) for one in cases])
    (slope, layer_s), *_ = np.linalg.lstsq(table * weights[:, None], weights, rcond=None)
    return 1 / float(slope), float(layer_s)


@cache
def misses(metric: PointMetric, name: str, without: str | None = None) -> tuple[tuple[str, float], ...]:
    """Each source's points against the law of all others: the logarithm of published over predicted time."""
    cases = _cases(metric, name, without)
    found = []
    for source in sorted({one.source for one in cases}):
        others = [one for one in cases if one.source != source]
        if others:
            rate, layer_s = fitted(others, layers=name in WITH_LAYERS and metric == "decode_rate")
            own = [one for one in cases if one.source == source]
            found += [(source, math.log(one.seconds / (one.work / rate + one.layers * layer_s))) for one in own]
    return tuple(found)


@cache
def spread_of(metric: PointMetric, name: str, without: str | None = None) -> float:
    """The half-width of a class's range.

    With fewer than four sources no share of misses can be promised from them. Then it is the largest own miss, or
    the half-width of the same device's class that has four, or without one the largest miss in any class of the
    metric, or of any metric: the largest of these that there are.
    """
    own = misses(metric, name, without)
    if _sources(own) >= LEAST_SOURCES:
        return quantile(own)
    device = name.partition(",")[0]
    siblings = [misses(metric, other, without) for other in classes(metric) if other.partition(",")[0] == device]
    borrowed = [quantile(one) for one in siblings if _sources(one) >= LEAST_SOURCES]
    if not borrowed:
        borrowed = _all_misses(metric, without) or [
            miss for other in get_args(PointMetric) for miss in _all_misses(other, without)
        ]
    return max([abs(miss) for _, miss in own] + borrowed)


def _all_misses(metric: PointMetric, without: str | None) -> list[float]:
    return [abs(miss) for name in classes(metric) for _, miss in misses(metric, name, without)]


def quantile(found: Iterable[tuple[str, float]]) -> float:
    """The size that `LEVEL` of the misses of a new source stay below: k sources weigh 1/(k+1) each."""
    found = sorted(found, key=lambda one: abs(one[1]))
    counts = Counter(source for source, _ in found)
    reached = 0.0
    for source, miss in found:
        reached += 1 / counts[source] / (len(counts) + 1)
        if reached >= LEVEL - 1e-9:
            return abs(miss)
    return abs(found[-1][1])


@cache
def thread_exponent() -> float:
    """How throughput rises with threads where a prompt is read: as their number to this power.

    From the one published sweep, of 1 to 4 threads on a Pi 5.
    """
    import numpy as np

    sweep = [point for point in published().points if point.metric == "prefill_rate" and point.source == "arm-roofline"]
    threads = np.log([point.threads or 1 for point in sweep])
    return float(np.polyfit(threads, np.log([point.value for point in sweep]), 1)[0])


@cache
def _cases(metric: PointMetric, name: str, without: str | None) -> tuple[Case, ...]:
    return tuple(case(point) for point in classes(metric).get(name, ()) if point.source != without)


def _sources(found: Iterable[tuple[str, float]]) -> int:
    return len({source for source, _ in found})


def _fewer(point: Point) -> bool:
    return point.device.startswith("pi") and point.threads is not None and point.threads < 4
