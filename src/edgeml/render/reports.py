"""A report as a person reads it: verdicts, figures, slices, examples, and under what circumstances they were had."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from edgeml.render.elsewhere import elsewhere, is_elsewhere
from edgeml.render.figures import FIGURES, figures
from edgeml.render.tables import Column, fits, short, table
from edgeml.render.verdicts import sentence
from edgeml.types import Difference, Example, Measurement, Report
from edgeml.verdicts.limits import headline, lower_is_better
from edgeml_runtime.errors import counted

_LEGEND = "* best of its column, or within 5 % of the best"
_EXAMPLES = 5
_LIKENESS = ("fidelity.agreement", "fidelity.cosine")
_ANSWER = 60  # characters of an answer that a line has room for


def reports(found: Sequence[Report], width: int) -> list[str]:
    """Each report as one block of lines."""
    return [_report(report, width) for report in found]


def _report(report: Report, width: int) -> str:
    names = list(dict.fromkeys(one.variant for one in report.measurements))
    models = {name.partition("/")[0] for name in names}
    label = short if len(models) == 1 else str
    lines = [models.pop()] if len(models) == 1 else []
    lines += elsewhere(report, label, width) if is_elsewhere(report) else _measured(report, names, label, width)
    lines += _missing(report)
    lines += _marks(report, label)
    lines += [f"warning: {text}" for text in report.warnings]
    for block in (_slices(report, label, width), _examples(report, label), _verdicts(report, label)):
        lines += ["", *block] if block else []
    return "\n".join(lines)


def _measured(report: Report, names: Sequence[str], label: Callable[[str], str], width: int) -> list[str]:
    """The figures side by side, and under what circumstances they were had."""
    if not names:
        return []
    columns = [Column(title="variant", cells=tuple(map(label, names))), *figures(report, names, label)]
    shown = table(columns, width)
    return [shown, *([_LEGEND] if "*" in shown else []), *_circumstances(report)]


def _circumstances(report: Report) -> list[str]:
    first = report.measurements[0]
    here, data, seed = first.environment, first.provenance["dataset"], first.provenance["seed"]
    assert here is not None  # only an estimate has none
    own = [one for one in report.measurements if one.variant == first.variant and one.slice is None and one.n > 1]
    counts = {one.metric: one.n for one in own}
    titles = {metric: figure.title.partition("\n")[0] for (metric, _), figure in FIGURES.items()}
    known = [f"{count} {titles[metric]}" for metric, count in counts.items() if metric in titles]
    return [
        f"{first.how} on {first.target}: {here.cpu or here.machine}, {counted(here.threads, 'thread')}; "
        f"{first.task} on {data}, seed {seed}",
        f"samples of each variant: {', '.join(known)}",
    ]


def _missing(report: Report) -> list[str]:
    """What could not be had, each reason once; of an emulator that is not here, what gets it."""
    had = "estimated" if any(one.how == "estimated" for one in report.measurements) else "measured"
    found: dict[str, dict[str, None]] = {}
    for one in report.absent:
        known = f"; to do: {one.hint}" if one.metric == "parity" else ""
        found.setdefault(one.reason + known, {})[one.metric] = None
    return [f"{', '.join(metrics)}: not {had}, {reason}" for reason, metrics in found.items()]


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
    """What each variant lost in each slice, or how like the baseline it is there; the worst ones are named below.

    One row a slice, or one a slice and variant where the variants do not fit side by side.
    """
    told = _told(report) if report.measurements else []
    if not told:
        return []
    wide = _wide(told, label)
    names = {one.variant for one in told}
    columns = wide if len(names) == 1 or fits(wide, width) else _tall(told, label)
    return [table(columns, width), *_worst(told, label)]


def _wide(told: Sequence[Difference | Measurement], label: Callable[[str], str]) -> list[Column]:
    """A row a slice, a column a variant."""
    by_place = {(one.slice, one.variant): one for one in told}
    rows = {one.slice or "": str(one.n) for one in sorted(told, key=lambda one: one.slice or "")}
    columns = [
        Column(title="slice", cells=tuple(rows)),
        Column(title="rows", cells=tuple(rows.values()), right=True),
    ]
    for name in dict.fromkeys(one.variant for one in told):
        cells = tuple(_value(by_place.get((place, name))) for place in rows)
        columns.append(Column(title=f"{label(name)}\n{_told_title(told[0])}", cells=cells, right=True))
    return columns


def _tall(told: Sequence[Difference | Measurement], label: Callable[[str], str]) -> list[Column]:
    """A row a slice and variant."""
    ordered = sorted(told, key=lambda one: one.slice or "")
    return [
        Column(title="slice", cells=tuple(one.slice or "" for one in ordered)),
        Column(title="rows", cells=tuple(str(one.n) for one in ordered), right=True),
        Column(title="variant", cells=tuple(label(one.variant) for one in ordered)),
        Column(title=_told_title(told[0]), cells=tuple(map(_value, ordered)), right=True),
    ]


def _told(report: Report) -> list[Difference] | list[Measurement]:
    """What is told of slices: the change of the task's headline, else likeness to the baseline, else another change.

    Never tokens: what a text costs to read does not hang on the variant.
    """
    changes = [one for one in report.differences if one.slice is not None and one.metric != "tokens"]
    likeness = [one for one in report.measurements if one.slice is not None and one.metric in _LIKENESS]
    there = {one.metric for one in changes}
    judging = headline(report.measurements[0].task, labelled=True)
    if judging not in there and likeness:
        metric = min((one.metric for one in likeness), key=_LIKENESS.index)
        return [one for one in likeness if one.metric == metric]
    metric = judging if judging in there else next((one.metric for one in changes), "")
    return [one for one in changes if one.metric == metric]


def _told_title(one: Difference | Measurement) -> str:
    if isinstance(one, Difference):
        return f"change of {one.metric} [95 %]"
    return "as baseline [95 %]" if one.metric == "fidelity.agreement" else "cosine to baseline [95 %]"


def _value(one: Difference | Measurement | None) -> str:
    if one is None:
        return "-"
    sign = "+" if isinstance(one, Difference) else ""
    form = f"{sign}.{next((figure.digits for (metric, _), figure in FIGURES.items() if metric == one.metric), 4)}f"
    bounds = "" if one.low is None else f" [{one.low:{form}}, {one.high:{form}}]"
    return f"{_number(one):{form}}{bounds}"


def _worst(told: Sequence[Difference | Measurement], label: Callable[[str], str]) -> Iterator[str]:
    """The worst slice of each variant; none where no slice lost anything, or all are alike."""
    sign = -1 if lower_is_better(told[0].metric) else 1
    for name in dict.fromkeys(one.variant for one in told):
        own = sorted((one for one in told if one.variant == name), key=lambda one: sign * _number(one))
        worst, best = own[0], own[-1]
        few = "; too few rows for an interval" if worst.low is None else ""
        shown = f"{worst.slice}: {_value(worst)} on {worst.n} rows{few}"
        if isinstance(worst, Measurement) and _number(worst) != _number(best):
            yield f"{label(name)} is least like the baseline in {shown}"
        elif isinstance(worst, Difference) and sign * worst.difference < 0:
            yield f"{label(name)} changed most for the worse in {shown}"


def _number(one: Difference | Measurement) -> float:
    return one.difference if isinstance(one, Difference) else one.value


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
    if one.kind == "ungrounded":
        return f"row {one.row}: {_cut(one.answer)} is not in the input"
    return f"row {one.row}: the answer is not of the schema{f': {shown}' if (shown := _cut(one.answer)) else ''}"


def _cut(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _ANSWER else flat[: _ANSWER - 3] + "..."
