"""Values to text: the only module that formats numbers for people, and the line format that programs read."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from typing import Any

from edgeml.types import Capability, Difference, Measurement, Model, Profile, Report, Variant
from edgeml_runtime.records import encode
from edgeml_runtime.types import Absent, Bundle, Record

WIDTH = 110  # of tables where the output is no terminal
_MEGA = 1_000_000
_GAP = 2
_CLOSE = 0.05  # two runs of one variant differ by as much: intervals within a run are too narrow to tell them apart
_LEGEND = "* best of its column, or within 5 % of the best"


class Column(Record, frozen=True, kw_only=True):
    """One column of a table; where the screen is narrow, the largest `rank` goes first, and rank 0 never."""

    title: str
    cells: tuple[str, ...]
    rank: int = 0
    right: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(map(len, (*self.title.split("\n"), *self.cells)))


def as_json(value: Any) -> list[str]:
    """One JSON object a line; a report is its measurements, differences and absences."""
    if isinstance(value, Report):
        parts: list[Record] = [*value.measurements, *value.verdicts, *value.differences, *value.absent, *value.examples]
        return [encode(part) for part in parts]
    return [encode(value.manifest if isinstance(value, Variant) else value)]


def as_text(values: Iterable[Any], width: int = WIDTH) -> str:
    """What a person reads: like values share a table, at most `width` wide where that is possible."""
    groups: dict[type, list[Any]] = {}
    for value in values:
        groups.setdefault(type(value), []).append(value)
    blocks = [block for kind, members in groups.items() for block in _BLOCKS[kind](members, width)]
    return "\n\n".join(blocks)


def size(size_bytes: float) -> str:
    """Bytes in decimal megabytes, as shops and the hub count them."""
    return f"{size_bytes / _MEGA:.1f} MB" if size_bytes < 1000 * _MEGA else f"{size_bytes / _MEGA / 1000:.2f} GB"


def table(columns: Sequence[Column], width: int) -> str:
    """Aligned text under a rule, with a note of the columns that did not fit."""
    kept, left_out = list(columns), []
    while sum(one.width + _GAP for one in kept) - _GAP > width and any(one.rank for one in kept):
        least = max(kept, key=lambda one: one.rank)
        kept.remove(least)
        left_out.append(least.title.replace("\n", " ").replace(", ", " in "))
    height = max(one.title.count("\n") + 1 for one in kept)
    titles = [one.title.split("\n") for one in kept]
    head = [
        _line(kept, [("", *lines)[max(0, len(lines) + 1 - row)] for lines in titles]) for row in range(height, 0, -1)
    ]
    rule = "─" * (sum(one.width + _GAP for one in kept) - _GAP)
    rows = [_line(kept, cells) for cells in zip(*(one.cells for one in kept), strict=True)]
    note = [f"(no room for: {', '.join(left_out)})"] if left_out else []
    return "\n".join([*head, rule, *rows, *note])


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = [
        f"{cell:>{one.width}}" if one.right else f"{cell:<{one.width}}"
        for one, cell in zip(columns, cells, strict=True)
    ]
    return (" " * _GAP).join(padded).rstrip()


def _models(models: Sequence[Model], width: int) -> list[str]:
    columns = [
        Column(title="model", cells=tuple(model.name for model in models)),
        Column(title="from", cells=tuple(model.ref for model in models), rank=1),
        Column(title="format", cells=tuple(model.format for model in models), rank=3),
        Column(title="size", cells=tuple(size(model.size_bytes) for model in models), right=True),
        Column(title="licence", cells=tuple(model.licence or "not stated" for model in models), rank=2),
    ]
    return [table(columns, width)]


def _variants(variants: Sequence[Variant], width: int) -> list[str]:
    by_model = groupby(variants, key=lambda one: one.name.partition("/")[0])
    return [f"{model}\n{_variants_of(list(members), width)}" for model, members in by_model]


def _variants_of(variants: Sequence[Variant], width: int) -> str:
    audits = [variant.manifest.audit for variant in variants]
    columns = [
        Column(title="variant", cells=tuple(_short(variant.name) for variant in variants)),
        Column(title="size", cells=tuple(size(one.manifest.size_bytes) for one in variants), right=True),
        Column(title="bits/weight", cells=tuple(f"{audit.bits_per_weight:.2f}" for audit in audits), right=True),
        Column(title="quantized", cells=tuple(f"{audit.share_quantized:.0%}" for audit in audits), rank=1, right=True),
        Column(title="tensor types", cells=tuple(_tensor_types(audit.tensor_types) for audit in audits), rank=2),
        Column(title="label", cells=tuple("earned" if audit.earned else "not earned" for audit in audits)),
    ]
    notes = [
        f"{_short(one.name)}: {text}" for one in variants for text in (*one.manifest.audit.shortfalls, *_source(one))
    ]
    return "\n".join([table(columns, width), *notes])


def _tensor_types(counts: dict[str, int]) -> str:
    largest = sorted(counts.items(), key=lambda item: -item[1])[:3]
    return " ".join(f"{name} {count / sum(counts.values()):.0%}" for name, count in largest)


def _source(variant: Variant) -> list[str]:
    quantized = variant.manifest.source_quantized
    return [f"its source was already {quantized}; no full precision to compare with"] if quantized else []


def _short(name: str) -> str:
    return name.partition("/")[2] or name


def _bundles(bundles: Sequence[Bundle], width: int) -> list[str]:
    totals = [sum(file.size_bytes for file in bundle.files) for bundle in bundles]
    columns = [
        Column(title="bundle", cells=tuple(bundle.name for bundle in bundles)),
        Column(title="kind", cells=tuple(bundle.kind for bundle in bundles)),
        Column(title="target", cells=tuple(bundle.target for bundle in bundles), rank=1),
        Column(title="files", cells=tuple(str(len(bundle.files)) for bundle in bundles), rank=2, right=True),
        Column(title="unpacked", cells=tuple(map(size, totals)), right=True),
    ]
    return [table(columns, width)]


def _capabilities(found: Sequence[Capability], width: int) -> list[str]:
    margin = max(len(one.name) for one in found) + 7
    lines: list[str] = []
    for one in found:
        start = f"{'yes' if one.available else 'no':<5}{one.name:<{margin - 5}}"
        lines += textwrap.wrap(one.detail, width, initial_indent=start, subsequent_indent=" " * margin)
        if one.hint:
            lines += textwrap.wrap(
                one.hint, width, initial_indent=" " * margin + "-> ", subsequent_indent=" " * (margin + 3)
            )
    return ["\n".join(lines)]


def _profiles(found: Sequence[Profile], width: int) -> list[str]:
    columns = [
        Column(title="target", cells=tuple(" = ".join((one.name, *one.aliases)) for one in found)),
        Column(title="what", cells=tuple(one.title for one in found)),
        Column(title="machine", cells=tuple(one.machine for one in found), rank=3),
        Column(title="encoders become", cells=tuple(" ".join(one.schemes_encoder) for one in found), rank=1),
        Column(title="decoders become", cells=tuple(" ".join(one.schemes_decoder) for one in found), rank=2),
    ]
    return [table(columns, width)]


def _reports(reports: Sequence[Report], width: int) -> list[str]:
    return [_report(report, width) for report in reports]


def _report(report: Report, width: int) -> str:
    names = list(dict.fromkeys(one.variant for one in report.measurements))
    models = {name.partition("/")[0] for name in names}
    short = _short if len(models) == 1 else str
    columns = [Column(title="variant", cells=tuple(map(short, names))), *_figures(report, names, short)]
    shown = table(columns, width)
    lines = [models.pop()] if len(models) == 1 else []
    lines += [shown, *([_LEGEND] if "*" in shown else []), *_circumstances(report)]
    lines += dict.fromkeys(_missing(one) for one in report.absent)
    return "\n".join([*lines, *(f"warning: {text}" for text in report.warnings)])


def _circumstances(report: Report) -> list[str]:
    first = report.measurements[0]
    here, data, seed = first.environment, first.provenance["dataset"], first.provenance["seed"]
    counts = {one.metric: one.n for one in report.measurements if one.variant == first.variant and one.n > 1}
    titles = {metric: figure.title.partition("\n")[0] for (metric, _), figure in FIGURES.items()}
    known = [f"{count} {titles[metric]}" for metric, count in counts.items() if metric in titles]
    return [
        f"{first.how} on {first.target}: {here.cpu or here.machine}, {_counted(here.threads, 'thread')}; "
        f"{first.task} on {data}, seed {seed}",
        f"samples of each variant: {', '.join(known)}",
    ]


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _missing(one: Absent) -> str:
    return f"{one.metric}: not measured, {one.reason}"


class Figure(Record, frozen=True, kw_only=True):
    """How one statistic is shown. `best` is the better end of a cost; accuracy is judged by paired differences."""

    title: str
    digits: int
    rank: int = 0
    interval: bool = False
    scale: float = 1.0
    best: Callable[[Iterable[float]], float] | None = None


# What a person's table shows, in this order; every other statistic is in `--json`.
FIGURES: dict[tuple[str, str], Figure] = {
    ("spearman", "spearman"): Figure(title="Spearman\n[95 %]", digits=4, interval=True),
    ("nearest_accuracy", "mean"): Figure(title="nearest right\n[95 %]", digits=3, interval=True),
    ("exact_match", "mean"): Figure(title="exact match\n[95 %]", digits=3, interval=True),
    ("contract.valid", "mean"): Figure(title="valid\nJSON", digits=3, rank=1),
    ("perplexity", "exp_mean"): Figure(title="perplexity\n[95 %]", digits=3, interval=True),
    ("kl_divergence", "mean"): Figure(title="KL to\nbaseline", digits=5),
    ("same_top", "mean"): Figure(title="same\ntop", digits=4, rank=2),
    ("latency", "median"): Figure(title="latency\np50, ms", digits=2, best=min),
    ("latency", "p95"): Figure(title="latency\np95, ms", digits=2, rank=6, best=min),
    ("latency_first_token", "median"): Figure(title="first token\nms", digits=0, rank=4, best=min),
    ("prefill_rate", "median"): Figure(title="prefill\ntoken/s", digits=0, rank=3, best=max),
    ("decode_rate", "median"): Figure(title="decode\ntoken/s", digits=1, best=max),
    ("throughput", "median"): Figure(title="throughput\ntext/s", digits=0, rank=5, best=max),
    ("memory_peak", "max"): Figure(title="memory\nMiB", digits=0, rank=2, best=min),
    ("energy", "mean"): Figure(title="energy\nJ", digits=3, rank=1, best=min),
    ("size", "once"): Figure(title="size\nMB", digits=1, scale=1 / _MEGA, best=min),
}


def _figures(report: Report, names: Sequence[str], short: Callable[[str], str]) -> list[Column]:
    found = {(one.variant, one.metric, one.statistic): one for one in report.measurements}
    differing = {(one.variant, one.metric): one for one in report.differences}
    columns = []
    for (metric, statistic), figure in FIGURES.items():
        row = [found.get((name, metric, statistic)) for name in names]
        if not any(row):
            continue
        best = _best(figure, [one for one in row if one])
        cells = tuple(_cell(figure, one, best) for one in row)
        columns.append(Column(title=figure.title, cells=cells, rank=figure.rank, right=True))
        paired = [differing.get((name, metric)) for name in names]
        if any(paired):
            columns.append(_change(figure, paired, short))
    return columns


def _cell(figure: Figure, one: Measurement | None, best: Measurement | None) -> str:
    pad = " " if best else ""
    if one is None:
        return "-" + pad
    text = f"{one.value * figure.scale:.{figure.digits}f}"
    if figure.interval and one.low is not None and one.high is not None:
        text += f" [{one.low:.{figure.digits}f}, {one.high:.{figure.digits}f}]"
    return text + ("*" if best and _not_worse(one, best) else pad)


def _best(figure: Figure, row: Sequence[Measurement]) -> Measurement | None:
    if figure.best is None or len(row) < 2:
        return None
    goal = figure.best(one.value for one in row)
    return next(one for one in row if one.value == goal)


def _not_worse(one: Measurement, best: Measurement) -> bool:
    return math.isclose(one.value, best.value, rel_tol=_CLOSE)


def _change(figure: Figure, row: Sequence[Difference | None], short: Callable[[str], str]) -> Column:
    digits = figure.digits
    cells = []
    for one in row:
        bounds = f" [{one.low:+.{digits}f}, {one.high:+.{digits}f}]" if one and one.low is not None else ""
        cells.append(f"{one.difference:+.{digits}f}{bounds}" if one else "baseline")
    baseline = next(short(one.baseline) for one in row if one)
    return Column(title=f"change from\n{baseline} [95 %]", cells=tuple(cells), right=True)


_BLOCKS: dict[type, Callable[[Sequence[Any], int], list[str]]] = {
    Model: _models,
    Variant: _variants,
    Report: _reports,
    Bundle: _bundles,
    Capability: _capabilities,
    Profile: _profiles,
}
