"""What others published of these devices, as read from `points.yaml`: each figure, its source, and what was run."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from edgeml.errors import EdgemlError
from edgeml.yaml_files import parse_yaml
from edgeml_runtime.records import build
from edgeml_runtime.types import Record

PointMetric = Literal["decode_rate", "prefill_rate", "latency", "slowdown"]
Kernels = Literal["repacked", "plain", "float"]
_HINT = "correct points.yaml"


class Source(Record, frozen=True, kw_only=True):
    """Where figures stand: a place that can be looked up, and when it was written."""

    cite: str
    date: str


class Network(Record, frozen=True, kw_only=True):
    """A model file that others ran: the bytes that one token streams, and the multiply-adds of a token, or of an input.

    `how` says what the bytes or the operations were taken from.
    """

    bytes_per_token: int
    operations: int
    layers: int
    quantization: str
    how: str


class Point(Record, frozen=True, kw_only=True):
    """One published figure, in token/s for the two rates, ms for `latency`.

    A `slowdown` says how many times longer than a Pi 5 the device took for the same network with the same engine.
    `kernels` are those that read the prompt: `repacked` ones work on four or eight rows of weights at once. A row that
    is `over_memory` ran where the file (`file_bytes`) exceeds what the board had free (`memory_gb`).
    """

    source: str
    device: str
    metric: PointMetric
    value: float
    engine: str
    file: str | None = None
    threads: int | None = None
    chip: str | None = None
    kernels: Kernels | None = None
    prompt_tokens: int | None = None
    watts: float | None = None
    memory_gb: float | None = None
    file_bytes: int | None = None
    over_memory: bool = False
    note: str | None = None


class MeasuredMemory(Record, frozen=True, kw_only=True):
    """What a process of edgeml's own needed for a model of `file_bytes`, of which `repacked_bytes` were kept twice."""

    kind: Literal["gguf decoder", "gguf encoder", "onnx"]
    model: str
    file_bytes: int
    repacked_bytes: int
    needed_mib: float
    source: str


class Published(Record, frozen=True, kw_only=True):
    """All of `points.yaml`; `bandwidth_gb_s` is what Apple states of its chips."""

    bandwidth_gb_s: dict[str, float]
    sources: dict[str, Source]
    files: dict[str, Network]
    points: tuple[Point, ...]
    memory: tuple[MeasuredMemory, ...]

    def network(self, point: Point) -> Network:
        """What was run."""
        return self.files[point.file or ""]

    def cited(self, names: set[str]) -> tuple[str, ...]:
        """The citations of these sources, by name."""
        return tuple(f"{self.sources[name].cite} ({self.sources[name].date})" for name in sorted(names))


@cache
def published() -> Published:
    """Every published point that edgeml knows."""
    text = (files("edgeml.targets.estimated") / "points.yaml").read_text(encoding="utf-8")
    return parsed(text)


def parsed(text: str) -> Published:
    """The points in a text like that of `points.yaml`; raises EdgemlError for an unknown key, name or value."""
    found = build(parse_yaml(text), Published, where="points.yaml")
    for row in found.memory:
        _known(row.source, found.sources, "source")
    for point in found.points:
        _known(point.source, found.sources, "source")
        _known(point.chip or "", {"": None, **found.bandwidth_gb_s}, "chip")
        if point.metric != "slowdown":
            _known(point.file or "", found.files, "file")
        if point.value <= 0:
            raise EdgemlError(f"points.yaml: {point.source} has the value {point.value}", hint=_HINT)
    return found


def _known(name: str, names: object, what: str) -> None:
    if name not in names:  # type: ignore[operator]
        raise EdgemlError(f"points.yaml names the {what} {name!r}, which it does not describe", hint=_HINT)
