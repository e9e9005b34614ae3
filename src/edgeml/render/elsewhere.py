"""Reports of a target that was not there: what an emulator showed of it, or what was estimated, each told as such."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Mapping, Sequence

from edgeml.page.words import bounds_text, fit_text, measured_text, title
from edgeml.render.tables import Column, table
from edgeml.types import Measurement, Report

_FIRST = ("latency", "decode_rate", "memory_needed", "energy", "prefill_rate", "energy_decode")
_SHORT = {"memory_needed": "memory", "latency_first_token": "first token", "energy_decode": "energy a token"}
_TINY = 1e-3  # below it, digits say less than the power of ten
_HEADS = {
    "emulated": "emulated as {target}: are the answers the same as on this machine?",
    "estimated": "estimated for {target}: nothing ran there",
}


def is_elsewhere(report: Report) -> bool:
    """Whether a report holds nothing but what an emulator showed of a target that is away, or estimates."""
    first = next(iter(report.measurements), None)
    return first is not None and (first.how == "estimated" or first.metric.startswith("parity."))


def elsewhere(report: Report, label: Callable[[str], str], width: int) -> list[str]:
    """The lines of a report that holds nothing measured: its head says so, and below the table stands how it came."""
    first = report.measurements[0]
    head = _HEADS[first.how].format(target=first.provenance.get("asked", first.target))
    lines = [head, table(_columns(report, label), width)]
    lines += _between(report) if first.how == "emulated" else _methods(report, width)
    return [*lines, *(fit_text(one, label(one.variant)) for one in report.fits)]


def _columns(report: Report, label: Callable[[str], str]) -> list[Column]:
    """A column a figure, with what its brackets hold; one that is asked for seldom gives way on a narrow screen."""
    names = list(dict.fromkeys(one.variant for one in report.measurements))
    found = {(one.variant, one.metric, one.statistic): one for one in report.measurements}
    keys = dict.fromkeys((one.metric, one.statistic, one.level) for one in report.measurements)
    columns = [Column(title="variant", cells=tuple(map(label, names)))]
    for metric, statistic, level in keys:
        cells = tuple(_cell(found.get((name, metric, statistic))) for name in names)
        ranged = any(one.low is not None and one.metric == metric for one in report.measurements)
        interval = f"\n[{level:.0%}]" if level else "\n[least, most]" if ranged else ""
        columns.append(
            Column(title=f"{_SHORT.get(metric, title(metric))}{interval}", cells=cells, rank=_rank(metric), right=True)
        )
    return columns


def _rank(metric: str) -> int:
    return _FIRST.index(metric) if metric in _FIRST else len(_FIRST)


def _cell(one: Measurement | None) -> str:
    if one is None:
        return "-"
    if 0 < abs(one.value) < _TINY:
        return f"{one.value:.1e}"
    if one.metric == "instructions":
        return f"{one.value / 1e6:.1f} million"
    return f"{measured_text(one)} {bounds_text(one)}".rstrip()


def _between(report: Report) -> list[str]:
    """How many rows were compared, and the two machines, as every method ends with them."""
    first = report.measurements[0]
    machines = first.provenance.get("method", "").partition("; ")[2]
    counts = dict.fromkeys(one.n for one in report.measurements)
    return [f"n = {', '.join(map(str, counts))}; {machines}; {first.provenance.get('dataset', '')}"]


def _methods(report: Report, width: int) -> list[str]:
    """How each figure was had, once for each way; one that another was calculated from is named there."""
    found: dict[str, list[str]] = {}
    for one in report.measurements:
        found.setdefault(one.provenance.get("method", ""), []).append(_SHORT.get(one.metric, title(one.metric)))
    texts = [
        f"{', '.join(dict.fromkeys(found[method]))}: {_by_name(method, found)}" for method in sorted(found, key=len)
    ]
    return [line for text in texts for line in textwrap.wrap(text, width, subsequent_indent="  ")]


def _by_name(method: str, known: Mapping[str, Sequence[str]]) -> str:
    """A method with those that it contains told by the figure that they are of, the longest first."""
    for part in sorted(known, key=len, reverse=True):
        if part and part != method:
            method = method.replace(part, f"as {known[part][0]}")
    return method
