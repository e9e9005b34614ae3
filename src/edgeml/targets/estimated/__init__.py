"""Figures for a device that is not there, each with a range: from a variant's own files and from published points.

Nothing runs. The laws are fitted anew from `points.yaml` each time they are needed; docs/estimates.md shows how far
they miss points of sources that they never saw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from edgeml.errors import EdgemlError
from edgeml.targets.estimated import memory, speed
from edgeml.targets.estimated.bytes import Graph, Streams, gguf_streams, onnx_graph
from edgeml.targets.estimated.laws import LEVEL
from edgeml.targets.estimated.memory import MIB, Need, Weights
from edgeml.targets.estimated.points import published
from edgeml.targets.estimated.speed import Machine, Span, Unpublished
from edgeml.targets.types import Estimate, Profile, memory_words
from edgeml.types import Fit, Variant
from edgeml_runtime.session import kind_of
from edgeml_runtime.types import Absent, Record

__all__ = ["Estimated", "Workload", "estimates"]

_ON_DEVICE = "measure it on the device: edgeml bench --host user@address"
Figures = Iterator[Estimate | Absent]


class Workload(Record, frozen=True, kw_only=True):
    """What is asked of a variant, one row at a time.

    A decoder reads `prompt_tokens` and writes `output_tokens`; anything else reads `input_tokens`, or a picture. Memory
    is judged for `context_tokens`. `threads` left out are those that are best. `gpu` means what it means in `Job`.
    """

    task: str
    prompt_tokens: int = 128
    output_tokens: int = 128
    input_tokens: int = 32
    context_tokens: int = 512
    threads: int | None = None
    gpu: bool | None = None


class Estimated(Record, frozen=True, kw_only=True):
    """What can be said of a variant on a device that is not there, and what cannot."""

    estimates: tuple[Estimate, ...] = ()
    fit: Fit | None = None
    absent: tuple[Absent, ...] = ()


def estimates(variant: Variant, profile: Profile, workload: Workload) -> Estimated:
    """Time, rates, memory and energy of a variant on such a device, each with its range, or why there is none.

    Where the device's memory does not hold the variant, there are no times: reading weights from a card is hundreds of
    times slower, and nobody could say by how much. Raises EdgemlError for files that are not whole.
    """
    if variant.manifest.scheme.startswith("gguf:"):
        return _of_gguf(variant, profile, workload)
    return _of_onnx(variant, profile, workload)


def _of_gguf(variant: Variant, profile: Profile, workload: Workload) -> Estimated:
    machine = Machine(profile, workload.threads, workload.gpu)
    on_gpu = machine.is_apple and machine.engine == "GPU"  # which reads the file as it is
    streams = gguf_streams(variant.path / variant.manifest.weights, "" if on_gpu else profile.integer_kernels)
    decoder = kind_of(variant.manifest.task) == "decoder"
    context = memory.held_context(workload.context_tokens)
    weights = Weights(
        file_bytes=streams.file_bytes,
        repacked_bytes=streams.repacked_bytes,
        unused_bytes=streams.unused_bytes,
        kv_bytes=context * streams.kv_bytes_per_token,
    )
    need = memory.need("gguf decoder" if decoder else "gguf encoder", weights)
    fit = memory.fit(variant.name, need, profile, context if decoder else None)
    figures = (_decoder if decoder else _encoder)(streams, machine, workload)
    return _together(need, fit, figures, _metrics(variant, workload))


def _of_onnx(variant: Variant, profile: Profile, workload: Workload) -> Estimated:
    manifest = variant.manifest
    kind = kind_of(manifest.task)
    need = memory.need("onnx", Weights(file_bytes=manifest.size_bytes))
    fit = memory.fit(variant.name, need, profile, None)
    if kind in ("decoder", "seq2seq", "speech"):
        reason = "nothing was published of models that write, in ONNX Runtime on such devices"
        figures: Figures = (Absent(metric=name, reason=reason, hint=_ON_DEVICE) for name in _metrics(variant, workload))
    else:
        figures = _graph(variant, Machine(profile, workload.threads), workload)
    return _together(need, fit, figures, _metrics(variant, workload))


def _metrics(variant: Variant, workload: Workload) -> tuple[str, ...]:
    """The metrics that a variant has beside memory."""
    if workload.task == "perplexity":
        return ("prefill_rate",)
    if kind_of(variant.manifest.task) in ("decoder", "seq2seq", "speech"):
        return ("latency", "latency_first_token", "prefill_rate", "decode_rate", "energy", "energy_decode")
    return ("latency", "energy")


def _together(need: Need, fit: Fit | None, figures: Figures, metrics: tuple[str, ...]) -> Estimated:
    needed = Estimate(
        metric="memory_needed",
        unit="MiB",
        statistic="max",
        value=need.value / MIB,
        low=need.low / MIB,
        high=need.high / MIB,
        method=need.method,
        sources=published().cited({row.source for row in published().memory}),
    )
    if fit and fit.word == "does not fit":
        reason = f"{memory_words(fit.memory_gb)} do not hold it: its weights would be read from the disk each time"
        hint = "take a smaller scheme or model, or a device with more memory"
        figures = iter([Absent(metric=name, reason=reason, hint=hint) for name in metrics])
    found = list(figures)
    given = tuple(one for one in found if isinstance(one, Estimate))
    return Estimated(estimates=(*given, needed), fit=fit, absent=tuple(one for one in found if isinstance(one, Absent)))


def _decoder(streams: Streams, machine: Machine, workload: Workload) -> Figures:
    whole = workload.task == "perplexity"
    prompt = workload.context_tokens if whole else workload.prompt_tokens
    depth = workload.prompt_tokens + workload.output_tokens / 2

    def read() -> Span:
        return speed.prefill(streams, machine, tokens=prompt, causal=True)

    def write() -> Span:
        return speed.decode(streams, machine, depth=depth)

    def answer() -> Span:
        return read().plus(write().times(workload.output_tokens))

    yield _estimate("prefill_rate", "token/s", lambda: read().per(prompt))
    if whole:
        return
    yield _estimate("latency", "ms", lambda: answer().times(1e3))
    yield _estimate("latency_first_token", "ms", lambda: read().times(1e3))
    yield _estimate("decode_rate", "token/s", lambda: write().per(1))
    yield _estimate("energy", "J", lambda: _joules(answer(), machine))
    yield _estimate("energy_decode", "J/token", lambda: _joules(write(), machine))


def _encoder(streams: Streams, machine: Machine, workload: Workload) -> Figures:
    tokens = workload.input_tokens

    def run() -> Span:
        return speed.prefill(streams, machine, tokens=tokens, causal=False)

    yield _estimate("latency", "ms", lambda: run().times(1e3))
    yield _estimate("energy", "J", lambda: _joules(run(), machine))


def _graph(variant: Variant, machine: Machine, workload: Workload) -> Figures:
    manifest = variant.manifest
    scheme = manifest.scheme.partition(":")[2]
    pixels = (manifest.pixels.height, manifest.pixels.width) if manifest.pixels else None

    def counted() -> Graph:
        tokens = None if pixels else workload.input_tokens
        try:
            return onnx_graph(variant.path / manifest.weights, tokens=tokens, pixels=pixels)
        except EdgemlError as error:
            raise Unpublished(str(error), error.hint or _ON_DEVICE) from error

    def run() -> Span:
        return speed.graph_time(counted(), scheme, machine)

    yield _estimate("latency", "ms", lambda: run().times(1e3))
    yield _estimate("energy", "J", lambda: _joules(run(), machine))


def _joules(time: Span, machine: Machine) -> Span:
    power = speed.watts(machine)
    return Span(
        time.value * power.value,
        time.low * power.low,
        time.high * power.high,
        f"{time.method}; {power.method}",
        time.sources,
    )


def _estimate(metric: str, unit: str, calculated: Callable[[], Span]) -> Estimate | Absent:
    try:
        span = calculated()
    except Unpublished as missing:
        return Absent(metric=metric, reason=str(missing), hint=missing.hint)
    return Estimate(
        metric=metric,
        unit=unit,
        statistic="median",
        value=span.value,
        low=span.low,
        high=span.high,
        level=None if metric.startswith("energy") else LEVEL,  # power has bounds, of which no share is known
        method=span.method,
        sources=published().cited(set(span.sources)),
    )
