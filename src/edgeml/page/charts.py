"""Quality against each cost, and how latency spreads: the plots of a page, each with its message in words."""

from __future__ import annotations

from edgeml.page.blocks import Block, Choice, Panel, Text
from edgeml.page.finding import COSTS, Finding, find, quality_of
from edgeml.page.words import bounds_text, listed, measured_text, scaled, title, unit_of
from edgeml.plots import DOTS, Labels, Spot, Strip, optimal, outside, pareto, strips
from edgeml.types import Measurement
from edgeml.verdicts.limits import lower_is_better
from edgeml_runtime.errors import counted
from edgeml_runtime.types import Outcome

Pair = tuple[Measurement, Measurement]  # a variant's cost and quality


def tradeoffs(finding: Finding, name: str, *, drawn: bool) -> list[Block]:
    """A plot of quality against each cost that was measured; `drawn` false leaves only the words."""
    quality = quality_of(finding.report)
    if quality is None:
        return [Text(text="Nothing says how good the answers are, so there is nothing to weigh the cost against.")]
    found = [(metric, _pairs(finding, metric, quality)) for metric in COSTS]
    panels = tuple(_panel(pairs, finding, f"{name}-{metric}", drawn=drawn) for metric, pairs in found if pairs)
    return [Choice(name=name, legend=f"{title(quality).capitalize()} against", panels=panels)] if panels else []


def latencies(finding: Finding, name: str, *, drawn: bool) -> list[Block]:
    """Every variant's latency samples, from its run; warm-ups apart."""
    rows = [strip for variant in finding.variants if (strip := _strip(variant, finding))]
    missing = [finding.short(name) for name in finding.variants if finding.run_of(name) is None]
    gone = [Text(text=f"The raw samples of {listed(missing)} are gone, so they are not shown.")] if missing else []
    if not rows:
        return [*gone]
    caption = (
        "Each dot is one inference; the box spans the quartiles, its thick line is the median, the whiskers end at the "
        "5th and 95th percentile. Hollow dots below are warm-ups, which count for nothing."
    )
    if any(len(row.values) > DOTS for row in rows):
        caption += f" At most {DOTS} dots a variant are drawn, evenly picked; the boxes are of all."
    if beyond := outside(rows):
        caption += f" {counted(beyond, 'sample')} {'is' if beyond == 1 else 'are'} further right than the plot reaches."
    labels = Labels(name=name, title="Latency of single inferences", description=caption, x="latency, ms")
    panel = Panel(label="latency", caption=caption, svg=strips(rows, labels) if drawn else "")
    return [Choice(name=name, legend="", panels=(panel,)), *gone]


def _pairs(finding: Finding, metric: str, quality: str) -> list[Pair]:
    both = [(find(finding.report, name, metric), find(finding.report, name, quality)) for name in finding.variants]
    return [(cost, good) for cost, good in both if cost and good]


def _panel(pairs: list[Pair], finding: Finding, name: str, *, drawn: bool) -> Panel:
    cost, good = pairs[0]
    spots = [_spot(x, y, finding) for x, y in pairs]
    lower = lower_is_better(good.metric)
    best = [one.name for one in optimal(spots, lower_is_better=lower)]
    caption = f"By {title(cost.metric)}, no variant is both better and cheaper than {_or(best)}."
    drawn_names = {spot.name for spot in spots}
    lacking = [name for name in map(finding.short, finding.variants) if name not in drawn_names]
    if lacking:
        caption += f" Not drawn, for want of a figure: {listed(lacking)}."
    described = "; ".join(
        f"{spot.name}: {measured_text(y)} {bounds_text(y)} at {measured_text(x)}"
        for spot, (x, y) in zip(spots, pairs, strict=True)
    )
    labels = Labels(
        name=name,
        title=f"{title(good.metric)} against {title(cost.metric)}".capitalize(),
        description=f"{caption} {described}",
        x=_axis(cost),
        y=_axis(good) + (" (less is better, so up)" if lower else ""),
    )
    svg = pareto(spots, labels, lower_is_better=lower) if drawn else ""
    return Panel(label=title(cost.metric), caption=caption, svg=svg)


def _or(names: list[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _axis(one: Measurement) -> str:
    return ", ".join(filter(None, (title(one.metric, one.statistic), unit_of(one.unit))))


def _spot(cost: Measurement, good: Measurement, finding: Finding) -> Spot:
    return Spot(
        name=finding.short(cost.variant),
        x=scaled(cost.value, cost.unit),
        y=scaled(good.value, good.unit),
        x_bounds=_bounds(cost),
        y_bounds=_bounds(good),
    )


def _bounds(one: Measurement) -> tuple[float, float] | None:
    if one.low is None or one.high is None:
        return None
    return scaled(one.low, one.unit), scaled(one.high, one.unit)


def _strip(variant: str, finding: Finding) -> Strip | None:
    run = finding.run_of(variant)
    outcomes: tuple[Outcome, ...] = (run.outcome, *run.processes) if run else ()
    samples = [one for outcome in outcomes for one in outcome.samples if one.metric == "latency"]
    values = tuple(value for one in samples for value in one.values)
    warmups = tuple(value for one in samples for value in one.warmups)
    return Strip(name=finding.short(variant), values=values, warmups=warmups) if values else None
