"""Answers worth a look. Neither inputs nor answers are shown unless the reader of the page may see the data."""

from __future__ import annotations

from edgeml.fidelity import essences
from edgeml.page.blocks import Block, Cell, Listing, Table, Text
from edgeml.page.finding import Finding
from edgeml.page.words import listed
from edgeml.types import Example, Run
from edgeml_runtime.errors import counted
from edgeml_runtime.grounding import named_place

_KINDS = {
    "flipped": "answers that differ from the baseline's",
    "ungrounded": "values that are not in the input",
    "invalid": "answers that are not of the demanded form",
}
_HIDDEN = "Inputs and answers are left out; edgeml report --show-inputs shows them to those who may see the data."


def examples(finding: Finding) -> list[Block]:
    """Row numbers and what is the matter with each; with inputs, a table of what was asked and answered."""
    found = finding.report.examples
    if not found:
        return []
    counts = Text(text=f"Shown: {listed(_counts(found))}.")
    if finding.inputs is not None:
        return [counts, _shown(found, finding, finding.inputs)]
    return [counts, Listing(items=tuple(_sentences(found, finding))), Text(text=_HIDDEN)]


def _counts(found: tuple[Example, ...]) -> list[str]:
    kinds = dict.fromkeys(one.kind for one in found)
    return [f"{counted(sum(one.kind == kind for one in found), 'row')} with {_KINDS[kind]}" for kind in kinds]


def _sentences(found: tuple[Example, ...], finding: Finding) -> list[str]:
    """Rows of which the same is to be said, together."""
    rows: dict[tuple[str, str], list[str]] = {}
    for one in found:
        rows.setdefault((finding.short(one.variant), _matter(one, finding)), []).append(str(one.row))
    return [
        f"{name}, {'row' if len(numbers) == 1 else 'rows'} {listed(numbers)}: {matter}"
        for (name, matter), numbers in rows.items()
    ]


def _matter(one: Example, finding: Finding) -> str:
    """What is the matter with a row, without saying what was asked or answered."""
    run = finding.run_of(one.variant)
    they = finding.short(one.baseline or "the baseline")
    if one.kind == "invalid":
        return "the answer is not of the form that was asked for"
    if one.kind == "ungrounded":
        return f"{_place(one, run) or 'a value of the answer'} is not in the input"
    if run is not None and essences(run) is None:
        return f"the answer moved from that of {they}"
    return f"the answer differs from that of {they}{_right(one) if run else ''}"


def _place(one: Example, run: Run | None) -> str | None:
    """Where in the answer a value stands, if the user's own schema names that place; a model may name it anything."""
    return named_place(one.answer.partition(": ")[0], run.generate.schema) if run else None


def _right(one: Example) -> str:
    """Which of the two answers is the right one, where that is known."""
    if one.expected is None:
        return ""
    ours, theirs = one.answer == one.expected, one.baseline_answer == one.expected
    if ours == theirs:
        return ", and both are right" if ours else ", and neither is right"
    return ", and is right" if ours else ", which is right"


def _shown(found: tuple[Example, ...], finding: Finding, inputs: tuple[str, ...]) -> Table:
    rows = tuple(
        (
            Cell(text=str(one.row)),
            Cell(text=finding.short(one.variant)),
            Cell(text=one.kind),
            _quoted(inputs[one.row - 1]),
            _quoted(one.answer),
            _quoted(one.baseline_answer),
            _quoted(one.expected),
        )
        for one in found
    )
    titles = ("row", "variant", "what", "input", "answer", "baseline's answer", "expected")
    return Table(caption="Inputs and answers", titles=titles, rows=rows, numbers_from=len(titles))


def _quoted(text: str | None) -> Cell:
    return Cell(text="") if text is None else Cell(text=text, quoted=True)
