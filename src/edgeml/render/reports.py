"""A report as a person reads it: verdicts, figures, slices, examples, and under what circumstances they were had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgeml.render.figures import FIGURES, figures
from edgeml.render.tables import Column, short, table
from edgeml.render.verdicts import sentence
from edgeml.types import Difference, Example, Report
from edgeml_runtime.types import Absent

_LEGEND = "* best of its column, or within 5 % of the best"
_EXAMPLES = 5
_ANSWER = 60  # characters of an answer that a line has room for


def reports(found: Sequence[Report], width: int) -> list[str]:
    """Each report as one block of lines."""
    return [_report(report, width) for report in found]


def _report(report: Report, width: int) -> str:
    names = list(dict.fromkeys(one.variant for one in report.measurements))
    models = {name.partition("/")[0] for name in names}
    label = short if len(models) == 1 else str
    columns = [Column(title="variant", cells=tuple(map(label, names))), *figures(report, names, label)]
    shown = table(columns, width)
    lines = [models.pop()] if len(models) == 1 else []
    lines += [shown, *([_LEGEND] if "*" in shown else []), *_circumstances(report)]
    lines += dict.fromkeys(_missing(one) for one in report.absent)
    lines += _marks(report, label)
    lines += [f"warning: {text}" for text in report.warnings]
    for block in (_slices(report, label, width), _examples(report, label), _verdicts(report, label)):
        lines += ["", *block] if block else []
    return "\n".join(lines)


def _circumstances(report: Report) -> list[str]:
    first = report.measurements[0]
    here, data, seed = first.environment, first.provenance["dataset"], first.provenance["seed"]
    own = [one for one in report.measurements if one.variant == first.variant and one.slice is None and one.n > 1]
    counts = {one.metric: one.n for one in own}
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


def _marks(report: Report, label: Callable[[str], str]) -> list[str]:
    """What puts figures in doubt, once for each variant and reason, with the metrics that it concerns."""
    doubts: dict[tuple[str, str], dict[str, None]] = {}
    for one in report.measurements:
        for mark in one.marks:
            doubts.setdefault((one.variant, mark), {})[one.metric] = None
    return [f"in doubt: {label(name)}: {mark} ({', '.join(metrics)})" for (name, mark), metrics in doubts.items()]


def _verdicts(report: Report, label: Callable[[str], str]) -> list[str]:
    width = max((len(label(one.variant)) for one in report.verdicts), default=0)
    return [f"{label(one.variant):<{width}}  {one.verdict:<11}  {sentence(one, label)}" for one in report.verdicts]


def _slices(report: Report, label: Callable[[str], str], width: int) -> list[str]:
    """One row a slice, with what each variant lost there; the worst of each variant is named below."""
    changes = [one for one in report.differences if one.slice is not None]
    metric = next((one.metric for one in changes), None)
    changes = [one for one in changes if one.metric == metric]
    names = list(dict.fromkeys(one.variant for one in changes))
    slices = sorted({one.slice for one in changes if one.slice})
    if not slices:
        return []
    by_place = {(one.slice, one.variant): one for one in changes}
    rows = {one.slice: one.n for one in changes}
    columns = [
        Column(title="slice", cells=tuple(slices)),
        Column(title="rows", cells=tuple(str(rows[name]) for name in slices), right=True),
    ]
    for name in names:
        cells = tuple(_change(by_place.get((place, name))) for place in slices)
        columns.append(Column(title=f"{label(name)}\nchange of {metric} [95 %]", cells=cells, right=True))
    return [table(columns, width), *_worst(changes, label)]


def _change(one: Difference | None) -> str:
    if one is None:
        return "-"
    digits = next((figure.digits for (metric, _), figure in FIGURES.items() if metric == one.metric), 4)
    bounds = "" if one.low is None else f" [{one.low:+.{digits}f}, {one.high:+.{digits}f}]"
    return f"{one.difference:+.{digits}f}{bounds}"


def _worst(changes: Sequence[Difference], label: Callable[[str], str]) -> Iterator[str]:
    for name in dict.fromkeys(one.variant for one in changes):
        worst = min((one for one in changes if one.variant == name), key=lambda one: one.difference)
        few = "; too few rows for an interval" if worst.low is None else ""
        yield f"{label(name)} changed most for the worse in {worst.slice}: {_change(worst)} on {worst.n} rows{few}"


def _examples(report: Report, label: Callable[[str], str]) -> list[str]:
    """Rows to look at; flipped ones only after a verdict that failed, since a person who passed need not."""
    failed = {one.variant for one in report.verdicts if one.verdict == "fail"}
    found: list[str] = []
    for name in dict.fromkeys(one.variant for one in report.examples):
        own = [one for one in report.examples if one.variant == name and (one.kind != "flipped" or name in failed)]
        found += [f"{label(name)}: {_example(one)}" for one in own[:_EXAMPLES]]
    return found


def _example(one: Example) -> str:
    if one.kind == "flipped":
        expected = "" if one.expected is None else f" (expected {_cut(one.expected)})"
        return f"row {one.row} flipped from {_cut(one.baseline_answer or '')} to {_cut(one.answer)}{expected}"
    return f"row {one.row}: {_cut(one.answer)} is not in the input" if one.kind == "ungrounded" else _cut(one.answer)


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _ANSWER else flat[: _ANSWER - 3] + "..."
