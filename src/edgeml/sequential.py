"""Runs over parts of the data, joined: what a verdict that may stop early looks at."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.stats import MINIMUM_N
from edgeml.types import Dataset, Run
from edgeml_runtime.types import Outcome, Samples, Vectors

_COUNTED = re.compile(r"(\d+) of (\d+) (\w+)(?: in (\d+) (\w+))?")  # how a warning begins that counts the data
_FIRST = ": the first is "  # and how it ends where it names a row
_WHOLE = {"feature-extraction": "its nearest rows", "perplexity": "its chunks"}  # an answer depends on all of the data


def require_parts(task: str) -> None:
    """Raise EdgemlError for a task whose answers cannot be had a part of the data at a time."""
    if task in _WHOLE:
        raise EdgemlError(
            f"{task} needs all of the data for {_WHOLE[task]}, so it cannot stop early", hint="leave --sequential out"
        )


def drawn(dataset: Dataset, seed: int) -> Dataset:
    """The rows in an order that is drawn: in a file that is sorted the first quarter stands for nothing."""
    order = random.Random(seed).sample(range(len(dataset.rows)), len(dataset.rows))  # noqa: S311 - an order, no secret
    rows = tuple(dataset.rows[index] for index in order)
    return replace(dataset, rows=rows, numbers=tuple(index + 1 for index in order))


def part(dataset: Dataset, start: int, stop: int) -> Dataset:
    """Those rows alone, still under the whole file's name and digest."""
    return replace(dataset, rows=dataset.rows[start:stop], numbers=dataset.numbers[start:stop])


def lacks_rows(so_far: Mapping[str, Sequence[Any]], whole: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a slice of the whole data has too few rows so far for a verdict; both are slices as `Run` keeps them."""
    counts = {column: Counter(so_far[column]) for column in whole}
    return any(counts[column][value] < MINIMUM_N for column, values in whole.items() for value in set(values))


def joined(first: Run, more: Run) -> Run:
    """One run of both parts; what was measured once a process stays the first part's.

    So does a check, whose rows are then a sample of all rows.
    """
    slices = {column: (*values, *more.slices[column]) for column, values in first.slices.items()}
    return replace(
        first,
        outcome=_joined(first.outcome, more.outcome),
        gold=(*first.gold, *more.gold),
        slices=slices,
        numbers=(*first.numbers, *more.numbers),
    )


def _joined(first: Outcome, more: Outcome) -> Outcome:
    theirs = {sample.metric: sample for sample in more.samples}
    return replace(
        first,
        samples=tuple(_of_both(one, theirs.get(one.metric)) for one in first.samples),
        answers=(*first.answers, *more.answers),
        warnings=_added_up(first.warnings, more.warnings),
        vectors=_stacked(first.vectors, more.vectors),
    )


def _of_both(ours: Samples, theirs: Samples | None) -> Samples:
    if ours.unit_of_sample == "dataset" and theirs:
        return replace(ours, values=(sum((*ours.values, *theirs.values)),))
    if ours.unit_of_sample != "row":
        return ours
    if theirs and theirs.unit_of_sample == "row":
        return replace(ours, values=(*ours.values, *theirs.values))
    return replace(ours, unit_of_sample="sampled row")


def _added_up(first: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Each warning once, with the counts that it begins with those of both parts."""
    found = {_uncounted(text): text for text in first}
    for text in more:
        before = found.get(_uncounted(text))
        found[_uncounted(text)] = text if before is None else _summed(before, text)
    return tuple(found.values())


def _uncounted(text: str) -> str:
    """What two warnings of one kind share."""
    return _COUNTED.sub(r"\3 \5", text, count=1).partition(_FIRST)[0]


def _summed(first: str, more: str) -> str:
    one, other = _COUNTED.match(first), _COUNTED.match(more)
    if one is None or other is None:
        return first
    some, total, rows = (int(one[group] or 0) + int(other[group] or 0) for group in (1, 2, 4))
    within = f" in {rows} {one[5]}" if one[5] else ""
    return f"{some} of {total} {one[3]}{within}{first[one.end() :]}"


def _stacked(first: Vectors | None, more: Vectors | None) -> Vectors | None:
    if first is None or more is None:
        return first or more
    return Vectors(width=first.width, data=first.data + more.data)
