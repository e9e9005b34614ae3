"""Values to text: the only module that formats numbers for people, and the line format that programs read."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import IO, TYPE_CHECKING, Any

from edgeml.doctor import Capability
from edgeml.types import Difference, Measurement, Model, Profile, Report, Variant
from edgeml_runtime.records import encode
from edgeml_runtime.types import Bundle, Record

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

WIDTH = 110  # of tables where the output is no terminal
_MEGA = 1_000_000

Show = Callable[[Measurement], str]


def as_json(value: Any) -> list[str]:
    """One JSON object a line; a report is its measurements, differences and absences."""
    if isinstance(value, Report):
        parts: list[Record] = [*value.measurements, *value.differences, *value.absent]
        return [encode(part) for part in parts]
    return [encode(value.manifest if isinstance(value, Variant) else value)]


def show(values: Sequence[Any], stream: IO[str]) -> None:
    """Print values for a person: like ones share a table."""
    console = _console(stream)
    groups: dict[type, list[Any]] = {}
    for value in values:
        groups.setdefault(type(value), []).append(value)
    for kind, members in groups.items():
        for part in _TABLES[kind](members):
            console.print(part)


def size(size_bytes: float) -> str:
    """Bytes in decimal megabytes, as shops and the hub count them."""
    return f"{size_bytes / _MEGA:.1f} MB" if size_bytes < 1000 * _MEGA else f"{size_bytes / _MEGA / 1000:.2f} GB"


def _models(models: Sequence[Model]) -> list[Any]:
    table = _table("model", "from", "format", "size", "licence")
    for model in models:
        table.add_row(model.name, model.ref, model.format, size(model.size_bytes), model.licence or "not stated")
    return [table]


def _variants(variants: Sequence[Variant]) -> list[Any]:
    table = _table("variant", "size", "bits/weight", "quantized", "tensor types", "label")
    for variant in variants:
        audit = variant.manifest.audit
        types = sorted(audit.tensor_types.items(), key=lambda item: -item[1])
        table.add_row(
            variant.name,
            size(variant.manifest.size_bytes),
            f"{audit.bits_per_weight:.2f}",
            f"{audit.share_quantized:.0%}",
            " ".join(f"{name} {count / audit.parameters:.0%}" for name, count in types[:3]),
            "earned" if audit.earned else "not earned",
        )
    notes = [f"{v.name}: {text}" for v in variants for text in (*v.manifest.audit.shortfalls, *_source_note(v))]
    return [table, *notes]


def _source_note(variant: Variant) -> list[str]:
    quantized = variant.manifest.source_quantized
    return [f"its source was already {quantized}; no full precision to compare with"] if quantized else []


def _reports(reports: Sequence[Report]) -> list[Any]:
    return [part for report in reports for part in _report(report)]


def _report(report: Report) -> list[Any]:
    names = list(dict.fromkeys(one.variant for one in report.measurements))
    columns = _columns(report)
    table = _table("variant", *(title for title, _ in columns))
    for name in names:
        table.add_row(name, *(cell(name) for _, cell in columns))
    first = report.measurements[0]
    here = first.environment
    about = (
        f"{first.how} on {first.target}: {here.cpu or here.machine}, {here.threads} threads; "
        f"{first.task}, data {first.provenance['dataset']}, seed {first.provenance['seed']}"
    )
    absent = {f"{one.metric}: not measured ({one.reason})": None for one in report.absent}
    return [table, about, *absent, *(f"warning: {text}" for text in report.warnings)]


def _columns(report: Report) -> list[tuple[str, Callable[[str], str]]]:
    found = {(one.variant, one.metric, one.statistic): one for one in report.measurements}
    keys = dict.fromkeys((metric, statistic) for _, metric, statistic in found)
    differing = {(one.variant, one.metric): one for one in report.differences}
    columns: list[tuple[str, Callable[[str], str]]] = []
    for key in keys:
        if key not in _COLUMNS:
            continue
        title, form = _COLUMNS[key]
        columns.append((title, _cell(found, key, form)))
        if any(metric == key[0] for _, metric in differing):
            columns.append(("change", _change(differing, key[0])))
    return columns


def _cell(found: dict[tuple[str, str, str], Measurement], key: tuple[str, str], form: Show) -> Callable[[str], str]:
    def cell(name: str) -> str:
        one = found.get((name, *key))
        return form(one) if one else "-"

    return cell


def _change(differing: dict[tuple[str, str], Difference], metric: str) -> Callable[[str], str]:
    def cell(name: str) -> str:
        one = differing.get((name, metric))
        if one is None:
            return "-"
        bounds = f" [{one.low:+.4f}, {one.high:+.4f}]" if one.low is not None and one.high is not None else ""
        return f"{one.difference:+.4f}{bounds}"

    return cell


def _with_interval(digits: int) -> Show:
    def form(one: Measurement) -> str:
        bounds = f" [{one.low:.{digits}f}, {one.high:.{digits}f}]" if one.low is not None else ""
        return f"{one.value:.{digits}f}{bounds}"

    return form


def _plain(digits: int, unit: str = "") -> Show:
    return lambda one: f"{one.value:.{digits}f}{unit}"


# What a person's table shows, in this order of measurement; every statistic is in `--json`.
_COLUMNS: dict[tuple[str, str], tuple[str, Show]] = {
    ("spearman", "spearman"): ("Spearman [95 %]", _with_interval(4)),
    ("nearest_accuracy", "mean"): ("nearest right [95 %]", _with_interval(3)),
    ("exact_match", "mean"): ("exact match", _with_interval(3)),
    ("contract.valid", "mean"): ("valid JSON", _plain(3)),
    ("perplexity", "exp_mean"): ("perplexity [95 %]", _with_interval(3)),
    ("kl_divergence", "mean"): ("KL to baseline", _plain(5)),
    ("same_top", "mean"): ("same top", _plain(4)),
    ("latency", "median"): ("latency p50", _plain(2, " ms")),
    ("latency", "p95"): ("p95", _plain(2, " ms")),
    ("latency_first_token", "median"): ("first token", _plain(0, " ms")),
    ("prefill_rate", "median"): ("prefill", _plain(0, " tok/s")),
    ("decode_rate", "median"): ("decode", _plain(1, " tok/s")),
    ("throughput", "median"): ("throughput", _plain(0, "/s")),
    ("memory_peak", "max"): ("memory", _plain(0, " MiB")),
    ("energy", "mean"): ("energy", _plain(3, " J")),
    ("size", "once"): ("size", lambda one: size(one.value)),
}


def _bundles(bundles: Sequence[Bundle]) -> list[Any]:
    table = _table("bundle", "variant", "target", "files", "size")
    for bundle in bundles:
        total = sum(file.size_bytes for file in bundle.files)
        table.add_row(bundle.name, bundle.variant, bundle.target, str(len(bundle.files)), size(total))
    return [table]


def _capabilities(found: Sequence[Capability]) -> list[Any]:
    table = _table("", "what", "detail", "how to get it")
    for one in found:
        table.add_row("yes" if one.available else "no", one.name, one.detail, one.hint or "")
    return [table]


def _profiles(found: Sequence[Profile]) -> list[Any]:
    table = _table("target", "also", "what", "machine", "schemes for encoders", "for decoders")
    for one in found:
        row = (one.name, " ".join(one.aliases), one.title, one.machine)
        table.add_row(*row, " ".join(one.schemes_encoder), " ".join(one.schemes_decoder))
    return [table]


_TABLES: dict[type, Callable[[Sequence[Any]], list[Any]]] = {
    Model: _models,
    Variant: _variants,
    Report: _reports,
    Bundle: _bundles,
    Capability: _capabilities,
    Profile: _profiles,
}


def _table(*titles: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    return table


def _console(stream: IO[str]) -> Console:
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else WIDTH, highlight=False, markup=False)


class Bars:
    """Progress on stderr: bars with time left on a terminal, else one line when a step begins."""

    def __init__(self, stream: IO[str] = sys.stderr) -> None:
        self._stream = stream
        self._tasks: dict[str, Any] = {}
        self._seen: set[str] = set()
        self._progress: Any = None

    def __call__(self, step: str, done: int, total: int) -> None:
        """Report a step."""
        if self._stream.isatty():
            self._bar(step, done, total)
        elif step not in self._seen:
            self._seen.add(step)
            print(f"{step} ...", file=self._stream, flush=True)

    def close(self) -> None:
        """Stop drawing."""
        if self._progress is not None:
            self._progress.stop()

    def _bar(self, step: str, done: int, total: int) -> None:
        if self._progress is None:
            self._progress = _bars(self._stream)
            self._progress.start()
        if step not in self._tasks:
            self._tasks[step] = self._progress.add_task(step, total=total or None)
        self._progress.update(self._tasks[step], completed=done, total=total or None)


def _bars(stream: IO[str]) -> Any:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(file=stream))
