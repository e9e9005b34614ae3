"""Which statistics a person's table shows, under which titles and with how many digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from edgeml.render.tables import MEGA, Column
from edgeml.types import Difference, Measurement, Report
from edgeml_runtime.types import Record

_MANY = 10  # of what is counted in whole numbers; fewer have digits
_CLOSE = 0.05  # two runs of one variant differ by as much: intervals within a run are too narrow to tell them apart


class Figure(Record, frozen=True, kw_only=True):
    """How one statistic is shown. `best` is the better end of a cost; accuracy has its paired `change`.

    `few` are the digits of a value below 10, where it has others.
    """

    title: str
    digits: int
    few: int | None = None
    rank: int = 0
    interval: bool = False
    change: bool = False
    scale: float = 1.0
    best: Callable[[Iterable[float]], float] | None = None


# What a person's table shows, in this order; every other statistic is in `--json`.
FIGURES: dict[tuple[str, str], Figure] = {
    ("spearman", "spearman"): Figure(title="Spearman\n[95 %]", digits=4, interval=True, change=True),
    ("nearest_accuracy", "mean"): Figure(title="nearest right\n[95 %]", digits=3, interval=True, change=True),
    ("accuracy", "mean"): Figure(title="accuracy\n[95 %]", digits=3, interval=True, change=True),
    ("entity_f1", "f1"): Figure(title="entity F1\n[95 %]", digits=3, interval=True, change=True),
    ("exact_match", "mean"): Figure(title="exact match\n[95 %]", digits=3, interval=True, change=True),
    ("chrf", "mean"): Figure(title="chrF\n[95 %]", digits=3, interval=True, change=True),
    ("wer", "rate"): Figure(title="WER\n[95 %]", digits=3, interval=True, change=True),
    ("cer", "rate"): Figure(title="CER\n[95 %]", digits=3, interval=True, rank=8),
    ("fidelity.agreement", "mean"): Figure(title="as baseline\n[95 %]", digits=3, interval=True, rank=7),
    ("fidelity.cosine", "mean"): Figure(title="cosine to\nbaseline", digits=4, rank=8),
    ("contract.valid", "mean"): Figure(title="valid\nJSON", digits=3, rank=1),
    ("contract.schema", "mean"): Figure(title="fits\nschema", digits=3, rank=8),
    ("contract.keys", "mean"): Figure(title="same\nkeys", digits=3, rank=8),
    ("contract.grounded", "mean"): Figure(title="grounded\n[95 %]", digits=3, interval=True),
    ("contract.deterministic", "mean"): Figure(title="same\nagain", digits=3, rank=7),
    ("contract.truncated", "mean"): Figure(title="cut\noff", digits=3, rank=8),
    ("sensitivity.typos", "mean"): Figure(title="moved by\ntypos", digits=3, rank=3),
    ("sensitivity.case", "mean"): Figure(title="moved by\ncase", digits=3, rank=3),
    ("sensitivity.spacing", "mean"): Figure(title="moved by\nspacing", digits=3, rank=3),
    ("perplexity", "exp_mean"): Figure(title="perplexity\n[95 %]", digits=3, interval=True, change=True),
    ("kl_divergence", "mean"): Figure(title="KL to\nbaseline", digits=5),
    ("same_top", "mean"): Figure(title="same\ntop", digits=4, rank=2),
    ("latency", "median"): Figure(title="latency\np50, ms", digits=2, best=min),
    ("latency", "p95"): Figure(title="latency\np95, ms", digits=2, rank=6, best=min),
    ("latency_first_token", "median"): Figure(title="first token\nms", digits=0, rank=4, best=min),
    ("prefill_rate", "median"): Figure(title="prefill\ntoken/s", digits=0, rank=3, best=max),
    ("decode_rate", "median"): Figure(title="decode\ntoken/s", digits=1, best=max),
    ("throughput", "median"): Figure(title="throughput\ntext/s", digits=0, few=2, rank=5, best=max),
    ("memory_peak", "max"): Figure(title="memory\nMiB", digits=0, rank=2, best=min),
    ("energy", "median"): Figure(title="energy\nJ", digits=3, rank=1, best=min),
    ("energy_estimated", "max"): Figure(title="energy at most\nJ, estimated", digits=3, rank=1),
    ("size", "once"): Figure(title="size\nMB", digits=1, scale=1 / MEGA, best=min),
}


def figures(report: Report, names: Sequence[str], short: Callable[[str], str]) -> list[Column]:
    """A column for each statistic that some variant has, and one for its change from the baseline."""
    found = {(one.variant, one.metric, one.statistic): one for one in report.measurements if one.slice is None}
    differing = {(one.variant, one.metric): one for one in report.differences if one.slice is None}
    columns, leading = [], _leading(one.metric for one in report.measurements if one.slice is None)
    for (metric, statistic), figure in FIGURES.items():
        row = [found.get((name, metric, statistic)) for name in names]
        if not any(row):
            continue
        best = _best(figure, [one for one in row if one])
        cells = tuple(_cell(figure, one, best) for one in row)
        unit = next(one.unit for one in row if one)
        title = figure.title.replace("text/s", unit)  # pictures a second, where the model reads those
        rank = 0 if metric == leading else figure.rank
        columns.append(Column(title=title, cells=cells, rank=rank, right=True))
        paired = [differing.get((name, metric)) for name in names]
        if figure.change and any(paired):
            columns.append(_change(figure, paired, short))
    return columns


def _leading(metrics: Iterable[str]) -> str | None:
    """Likeness to the baseline, where nothing says how right the answers are: it then shows on any screen."""
    there = set(metrics)
    if any(metric in there for (metric, _), figure in FIGURES.items() if figure.change):
        return None
    return next((metric for metric, _ in FIGURES if metric.startswith("fidelity.") and metric in there), None)


def _cell(figure: Figure, one: Measurement | None, best: Measurement | None) -> str:
    pad = " " if best else ""
    if one is None:
        return "-" + pad
    value = one.value * figure.scale
    digits = figure.digits if figure.few is None or value >= _MANY else figure.few
    text = f"{value:.{digits}f}"
    if figure.interval and one.low is not None and one.high is not None:
        text += f" [{one.low:.{digits}f}, {one.high:.{digits}f}]"
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
