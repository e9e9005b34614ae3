"""The rows that are worth a look: answers that flipped from the baseline's, were invented, or cannot be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal

import msgspec

from edgeml.fidelity import essences
from edgeml.measurements import row_scores
from edgeml.scores import as_text, scorer_of
from edgeml.scores.feature_extraction import label_of
from edgeml.types import Example, Run

MOST = 5  # of each kind
Kind = Literal["ungrounded", "invalid"]


def examples(run: Run, baseline: Run | None) -> list[Example]:
    """At most MOST rows of each kind, counted from 1: first those that were right with the baseline and are wrong now.

    `answer` and `expected` are written alike, so that they are equal where the answer is right. Where answers only
    differ by degree, as cosines do, those that moved most, without `expected`: people score on another scale.
    """
    flipped = _flipped(run, baseline) if baseline else []
    return [*flipped[:MOST], *islice(_ungrounded(run), MOST), *islice(_invalid(run), MOST)]


def _flipped(run: Run, baseline: Run) -> list[Example]:
    ours, theirs = essences(run), essences(baseline)
    if ours is None or theirs is None:
        return _moved(run, baseline)
    lost = _right(baseline), _right(run)
    rows = [row for row, (one, other) in enumerate(zip(ours, theirs, strict=True)) if one != other]
    rows.sort(key=lambda row: (lost[1][row] - lost[0][row], row) if all(lost) else (0.0, row))
    return [_example(run, baseline, row, (ours[row], theirs[row])) for row in rows]


def _right(run: Run) -> tuple[float, ...]:
    """1 a row that is right, 0 one that is wrong; empty where no metric says so of single rows."""
    headline = scorer_of(run.task).HEADLINE
    found = [score for score in row_scores(run) if score.metric == headline and score.is_right_or_wrong]
    return found[0].columns[0] if found else ()


def _example(run: Run, baseline: Run, row: int, answers: tuple[str, str]) -> Example:
    expected = _expected(run, row)
    if run.gold and run.task == "feature-extraction":  # which row is the nearest matters by that row's label
        labels = [label_of(one.outcome.answers[row], run.gold) for one in (run, baseline)]
        answers, expected = ((labels[0], labels[1]), expected) if labels[0] != labels[1] else (answers, None)
    return Example(
        variant=run.variant,
        kind="flipped",
        row=_number(run, row),
        answer=answers[0],
        baseline=baseline.variant,
        baseline_answer=answers[1],
        expected=expected,
    )


def _moved(run: Run, baseline: Run) -> list[Example]:
    """Of answers that are numbers, those that moved, the furthest first; a thousandth is the least that is shown."""
    pairs = list(zip(run.outcome.answers, baseline.outcome.answers, strict=True))
    rows = [row for row, (one, other) in enumerate(pairs) if f"{one:.3f}" != f"{other:.3f}"]
    rows.sort(key=lambda row: (-abs(pairs[row][0] - pairs[row][1]), row))
    found = [_example(run, baseline, row, (f"{pairs[row][0]:.3f}", f"{pairs[row][1]:.3f}")) for row in rows]
    return [msgspec.structs.replace(one, expected=None) for one in found]


def _ungrounded(run: Run) -> Iterator[Example]:
    """Values of answers that are not in the input: `ungrounded` of an answer lists each with its place."""
    for row, answer in enumerate(run.outcome.answers):
        for place, value in _found(answer):
            yield _lone(run, "ungrounded", row, f"{place}: {value}")


def _found(answer: Any) -> Sequence[Sequence[str]]:
    return answer.get("ungrounded") or [] if isinstance(answer, dict) else []


def _invalid(run: Run) -> Iterator[Example]:
    """Answers that are not of the schema that was asked for."""
    for score in row_scores(run):
        if score.metric == "contract.schema":
            for row, fits in enumerate(score.columns[0]):
                if not fits:
                    yield _lone(run, "invalid", row, str(run.outcome.answers[row]["text"]))


def _lone(run: Run, kind: Kind, row: int, answer: str) -> Example:
    return Example(variant=run.variant, kind=kind, row=_number(run, row), answer=answer, expected=_expected(run, row))


def _number(run: Run, row: int) -> int:
    """The row's place in the data's file."""
    return run.numbers[row] if run.numbers else row + 1


def _expected(run: Run, row: int) -> str | None:
    """The right answer, written as the essence of an answer is: tags side by side, JSON in one spelling."""
    if not run.gold:
        return None
    gold, answer = run.gold[row], run.outcome.answers[row]
    if isinstance(answer, dict) and "text" in answer:
        return scorer_of(run.task).essence({"text": as_text(gold)})
    return " ".join(map(str, gold)) if isinstance(gold, list | tuple) else as_text(gold)
