"""Runs over parts of the data, joined: what a verdict that may stop early looks at."""

from __future__ import annotations

import random

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.types import Dataset, Run
from edgeml_runtime.types import Outcome, Samples, Vectors

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


def joined(first: Run, more: Run) -> Run:
    """One run of both parts; what was measured once a process stays the first part's."""
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
    samples = tuple(
        replace(one, values=(*one.values, *theirs[one.metric].values)) if _by_row(one, theirs) else one
        for one in first.samples
    )
    return replace(
        first,
        samples=samples,
        answers=(*first.answers, *more.answers),
        warnings=tuple(dict.fromkeys((*first.warnings, *more.warnings))),
        vectors=_stacked(first.vectors, more.vectors),
    )


def _by_row(sample: Samples, theirs: dict[str, Samples]) -> bool:
    return sample.unit_of_sample == "row" and sample.metric in theirs


def _stacked(first: Vectors | None, more: Vectors | None) -> Vectors | None:
    if first is None or more is None:
        return first or more
    return Vectors(width=first.width, data=first.data + more.data)
