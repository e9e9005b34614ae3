"""How good the estimates are: each published point against what is predicted when its own source is left out."""

from __future__ import annotations

import math
from statistics import median
from typing import Literal

from msgspec.structs import replace

from edgeml.targets.estimated import memory
from edgeml.targets.estimated.laws import Case, case, class_of, classes, fitted, law
from edgeml.targets.estimated.memory import Weights
from edgeml.targets.estimated.points import Point, PointMetric, published
from edgeml.targets.types import Profile
from edgeml_runtime.types import Record

METRICS: tuple[PointMetric, ...] = ("decode_rate", "prefill_rate", "latency", "slowdown")


class Row(Record, frozen=True, kw_only=True):
    """One published point and its prediction, in the point's unit, by a law that never saw the point's source.

    `error` is predicted over published, less one. A class with one source predicts nothing of it: then there is no
    prediction, and the figures of that class are not validated.
    """

    metric: PointMetric
    name: str
    point: Point
    published: float
    predicted: float | None = None
    low: float | None = None
    high: float | None = None

    @property
    def error(self) -> float | None:
        """The relative error of the prediction."""
        return None if self.predicted is None else self.predicted / self.published - 1

    @property
    def inside(self) -> bool | None:
        """Whether the range holds what was published."""
        if self.low is None or self.high is None:
            return None
        return self.low <= self.published <= self.high


class Summary(Record, frozen=True, kw_only=True):
    """One class: how many points of how many sources, how far off, and the share that the ranges held.

    The errors are sizes. `mean_of_sources` weighs each source the same, as the law itself does.
    """

    metric: PointMetric
    name: str
    points: int
    sources: int
    median: float | None = None
    mean_of_sources: float | None = None
    worst: float | None = None
    inside: float | None = None


class Collapse(Record, frozen=True, kw_only=True):
    """A row that ran where memory may not have sufficed: what the estimate says of it, and how fast it was.

    `expected` is the rate in token/s if memory had sufficed.
    """

    point: Point
    word: Literal["fits", "tight", "does not fit"]
    expected: float


def validation() -> list[Row]:
    """Every point that a law is fitted on, with its prediction."""
    return [
        _row(metric, name, point) for metric in METRICS for name in classes(metric) for point in classes(metric)[name]
    ]


def summaries(rows: list[Row]) -> list[Summary]:
    """The rows by class."""
    keys = dict.fromkeys((row.metric, row.name) for row in rows)
    return [_summary([row for row in rows if (row.metric, row.name) == key]) for key in keys]


def form_errors(name: str) -> tuple[float, float]:
    """The median size of a decode class's errors without and with a time for each layer: what decides between them."""
    cases = [case(point) for point in classes("decode_rate")[name]]
    return _left_out(cases, layers=False), _left_out(cases, layers=True)


def collapses(profile: Profile) -> list[Collapse]:
    """What the estimates say of the rows that ran on a board of this kind with little memory to spare."""
    data = published()
    found = []
    for point in data.points:
        if point.file_bytes is None or point.memory_gb is None or point.device != profile.name:
            continue
        network = data.network(point)
        spare = max(0, point.file_bytes - network.bytes_per_token)
        needed = memory.need("gguf decoder", Weights(file_bytes=point.file_bytes, unused_bytes=spare))
        board = replace(profile, chosen_gb=point.memory_gb)
        verdict = memory.fit(point.file or "", needed, board, None)
        known = law("decode_rate", class_of(point), point.source)
        if verdict and known:
            one = case(point)
            found.append(Collapse(point=point, word=verdict.word, expected=1 / known.seconds(one.work, one.layers)))
    return found


def _row(metric: PointMetric, name: str, point: Point) -> Row:
    known = law(metric, name, point.source)
    if known is None:
        return Row(metric=metric, name=name, point=point, published=point.value)
    one = case(point)
    seconds = known.seconds(one.work, one.layers)
    value = 1 / seconds if metric.endswith("_rate") else seconds * (1e3 if metric == "latency" else 1)
    return Row(
        metric=metric,
        name=name,
        point=point,
        published=point.value,
        predicted=value,
        low=value / known.factor,
        high=value * known.factor,
    )


def _summary(rows: list[Row]) -> Summary:
    errors = [abs(row.error) for row in rows if row.error is not None]
    sources = {row.point.source for row in rows}
    if not errors:
        return Summary(metric=rows[0].metric, name=rows[0].name, points=len(rows), sources=len(sources))
    means = [_mean([abs(row.error or 0) for row in rows if row.point.source == source]) for source in sources]
    return Summary(
        metric=rows[0].metric,
        name=rows[0].name,
        points=len(rows),
        sources=len(sources),
        median=median(errors),
        mean_of_sources=_mean(means),
        worst=max(errors),
        inside=_mean([float(bool(row.inside)) for row in rows]),
    )


def _left_out(cases: list[Case], *, layers: bool) -> float:
    errors = []
    for source in {one.source for one in cases}:
        rate, layer_s = fitted([one for one in cases if one.source != source], layers=layers)
        own = [one for one in cases if one.source == source]
        errors += [abs(one.seconds / (one.work / rate + one.layers * layer_s) - 1) for one in own]
    return median(errors)


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values)
