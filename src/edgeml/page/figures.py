"""The tables of figures: all of them, what differs from the baseline, and both by slice with the worst named."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgeml.metrics import OF_INPUT
from edgeml.page.blocks import Block, Cell, Listing, Table
from edgeml.page.finding import Finding, find, quality_of, whole
from edgeml.page.verdicts import change
from edgeml.page.words import bounds_of, bounds_text, digits, fit_text, listed, measured_text, number, title, unit_of
from edgeml.types import Difference, Measurement, Report
from edgeml.verdicts.limits import lower_is_better

_NONE = Cell(text="\N{EN DASH}", notes=("not measured",))


def figures(finding: Finding) -> list[Block]:
    """Every statistic of every variant over all rows, its interval below it; then the paired differences."""
    report = finding.report
    found = {(one.metric, one.statistic, one.variant): one for one in whole(report.measurements)}
    rows = []
    keys = dict.fromkeys((metric, statistic) for metric, statistic, _ in found)
    for metric, statistic in sorted(keys, key=lambda key: _rank(key[0], report)):
        cells = [
            _cell(found.get((metric, statistic, name))) or _lacking(name, metric, report) for name in finding.variants
        ]
        rows.append((Cell(text=title(metric, statistic)), *cells))
    names = tuple(map(finding.short, finding.variants))
    table = Table(caption=f"All figures{_levels(report.measurements)}", titles=("figure", *names), rows=tuple(rows))
    fits = tuple(fit_text(one, finding.short(one.variant)) for one in report.fits)
    return [table, *([Listing(items=fits)] if fits else []), *_differences(finding), *_doubts(finding)]


def slices(finding: Finding) -> list[Block]:
    """For each metric and column that rows were sliced by: the figures, the drop, and the worst slice in words."""
    report = finding.report
    keys = [(one.metric, one.statistic, _column(one.slice)) for one in report.measurements if one.slice]
    blocks: list[Block] = []
    quality = quality_of(report)
    for metric, statistic, column in sorted(dict.fromkeys(keys), key=lambda key: key[0] != quality):
        group = [
            one
            for one in report.measurements
            if (one.metric, one.statistic) == (metric, statistic) and one.slice and _column(one.slice) == column
        ]
        paired = [
            one for one in report.differences if one.metric == metric and one.slice and _column(one.slice) == column
        ]
        worst = [found for name in finding.variants if (found := _worst(name, group, paired))]
        if worst:
            blocks.append(Listing(items=tuple(_worst_text(one, finding) for one in worst)))
        blocks.append(_slice_table(group, paired, worst, finding))
    return blocks


def _rank(metric: str, report: Report) -> int:
    """Quality first, then what else is told of the answers, then the rest in the order it was measured."""
    if metric == quality_of(report):
        return 0
    return 1 if metric.startswith(("fidelity.", "contract.")) else 2


def _lacking(variant: str, metric: str, report: Report) -> Cell:
    """The place of a figure that a variant has not; likeness to the baseline is no figure of the baseline."""
    itself = metric.startswith("fidelity.") and any(one.baseline == variant for one in report.differences)
    return Cell(text="\N{EN DASH}", notes=("the baseline",)) if itself else _NONE


def _cell(one: Measurement | None) -> Cell | None:
    if one is None:
        return None
    notes = (bounds_text(one), "" if one.how == "measured" else one.how, "in doubt" if one.marks else "")
    return Cell(text=measured_text(one), notes=tuple(filter(None, notes)))


def _levels(measurements: Sequence[Measurement]) -> str:
    levels = sorted({one.level for one in measurements if one.level})
    return f", with {listed([f'{level * 100:.3g} %' for level in levels])} intervals" if levels else ""


def _differences(finding: Finding) -> list[Block]:
    by_baseline: dict[str, list[Difference]] = {}
    for one in whole_differences(finding.report.differences):
        by_baseline.setdefault(one.baseline, []).append(one)
    return [_difference_table(baseline, group, finding) for baseline, group in by_baseline.items()]


def whole_differences(differences: Iterable[Difference]) -> list[Difference]:
    """Those over all rows rather than a slice."""
    return [one for one in differences if one.slice is None]


def _difference_table(baseline: str, group: Sequence[Difference], finding: Finding) -> Table:
    found = {(one.metric, one.variant): one for one in group}
    names = list(dict.fromkeys(one.variant for one in group))
    rows = tuple(
        (Cell(text=title(metric)), *(_difference_cell(found.get((metric, name))) for name in names))
        for metric in dict.fromkeys(one.metric for one in group)
    )
    caption = f"Paired differences from {finding.short(baseline)}, on the same rows"
    return Table(caption=caption, titles=("figure", *map(finding.short, names)), rows=rows)


def _difference_cell(one: Difference | None) -> Cell:
    if one is None:
        return _NONE
    value, low, high = bounds_of(one.difference, one.low, one.high, one.unit)
    decimals = digits(value, low, high)
    bounds = [number(bound, decimals, signed=True) for bound in (low, high) if bound is not None]
    text = f"{number(value, decimals, signed=True)} {unit_of(one.unit)}".rstrip()
    return Cell(text=text, notes=(f"[{', '.join(bounds)}]" if bounds else f"n = {one.n}, too few",))


def _doubts(finding: Finding) -> list[Block]:
    """Why figures are in doubt, each reason once for each variant."""
    found: dict[str, list[str]] = {}
    for one in finding.report.measurements:
        for mark in one.marks:
            found.setdefault(f"{finding.short(one.variant)}: {mark}", []).append(title(one.metric))
    items = [f"In doubt, {reason} ({listed(list(dict.fromkeys(names)))})" for reason, names in found.items()]
    return [Listing(items=tuple(items))] if items else []


def _column(slice: str | None) -> str:
    return (slice or "").partition("=")[0]


def _worst(variant: str, group: Sequence[Measurement], paired: Sequence[Difference]) -> Measurement | Difference | None:
    """The slice that loses most against the baseline; of the baseline itself, or without one, the poorest."""
    drops = [one for one in paired if one.variant == variant]
    values = [one for one in group if one.variant == variant]
    if len(drops or values) < 2 or (drops or values)[0].metric in OF_INPUT:
        return None
    if drops:
        sign = -1 if lower_is_better(drops[0].metric) else 1
        least = min(drops, key=lambda one: sign * one.difference)
        return least if sign * least.difference < 0 else None
    sign = -1 if lower_is_better(values[0].metric) else 1
    return min(values, key=lambda one: sign * one.value)


def _worst_text(one: Measurement | Difference, finding: Finding) -> str:
    if isinstance(one, Difference):
        return f"Loses most: {change(one, finding)}"
    value = " ".join(filter(None, (measured_text(one), bounds_text(one))))
    return f"Poorest of {finding.short(one.variant)}: {one.slice}, where {title(one.metric)} is {value}"


def _slice_table(
    group: Sequence[Measurement],
    paired: Sequence[Difference],
    worst: Sequence[Measurement | Difference],
    finding: Finding,
) -> Table:
    values = {(one.slice, one.variant): one for one in group}
    drops = {(one.slice, one.variant): one for one in paired}
    marked = {(one.slice, one.variant): one for one in worst}
    names = [name for name in finding.variants if any(one.variant == name for one in group)]
    rows = []
    for slice in dict.fromkeys(one.slice for one in group):
        cells = [_slice_cell(values.get(key), drops.get(key), marked.get(key)) for key in ((slice, n) for n in names)]
        counts = {one.n for one in group if one.slice == slice}
        rows.append((Cell(text=(slice or "").partition("=")[2], notes=(f"n = {max(counts)}",)), *cells))
    first = group[0]
    column = _column(first.slice)
    caption = f"{title(first.metric, first.statistic)} by {column}"
    return Table(caption=caption, titles=(column, *map(finding.short, names)), rows=tuple(rows))


def _slice_cell(one: Measurement | None, drop: Difference | None, worst: Measurement | Difference | None) -> Cell:
    shown = _cell(one) or _NONE
    notes = [*shown.notes]
    if drop:
        found = _difference_cell(drop)
        notes.append(f"change {' '.join((found.text, *found.notes))}")
    if worst:
        notes.append("loses most" if isinstance(worst, Difference) else "poorest")
    return Cell(text=shown.text, notes=tuple(notes))


def headline(finding: Finding, variant: str) -> list[Measurement]:
    """The few figures of a variant that one looks at first: quality, then each cost."""
    metrics = [quality_of(finding.report), "latency", "decode_rate", "memory_peak", "energy", "size"]
    found = (find(finding.report, variant, metric) for metric in metrics if metric)
    return [one for one in found if one]
