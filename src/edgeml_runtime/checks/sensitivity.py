"""Whether small changes of a text that should not matter change its answer: typos, case, spacing.

Method: `edgeml_runtime.perturbations` changes the texts of at most 200 seeded rows, and each is answered again; 1 is a
row whose answer is another one. Answers that differ only by degree, such as cosines, give the absolute change instead.
Words that come as a list stay those words, also such as hold spaces: their spacing is not changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from edgeml_runtime.checks import moved, sampled
from edgeml_runtime.perturbations import KINDS, perturb
from edgeml_runtime.tasks import Answers, task_of
from edgeml_runtime.types import Absent, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Job, Row

_FILE = "file"  # the column of an image or a recording: no text

Changed = list[tuple[int, "Row"]]  # rows, each with the index of the one whose place it takes


def run(session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:
    """`sensitivity.typos`, `.case` and `.spacing`, a value a row; absent for data without text."""
    columns = [column for column in task_of(job.task).COLUMNS if column != _FILE]
    if not columns or not job.rows:
        reason = f"the rows of {job.task} hold no text to change"
        return Answers(values=(), absent=(Absent(metric="sensitivity", reason=reason, hint="leave the check out"),))
    rows, unit = sampled(job)
    changed = {kind: _changed(job, rows, columns, kind) for kind in KINDS}
    found = iter(_answered(session, job, [one for some in changed.values() for one in some], tick))
    samples = []
    for kind, some in changed.items():
        flips = {index: moved(answers[index], answer) for (index, _), answer in zip(some, found, strict=False)}
        samples.append(_sample(kind, [flips.get(row, 0.0) for row in rows], len(some), unit))
    return Answers(values=(), samples=tuple(samples))


def _changed(job: Job, rows: Sequence[int], columns: Sequence[str], kind: str) -> Changed:
    """The rows that the recipe could change."""
    found = []
    for index in rows:
        row = {**job.rows[index]}
        row |= {column: _perturbed(row[column], kind, job.seed) for column in columns}
        if row != job.rows[index]:
            found.append((index, row))
    return found


def _perturbed(value: str | list[str], kind: str, seed: int) -> str | list[str]:
    if isinstance(value, str):
        return perturb(value, kind, seed)
    if kind == "spacing":
        return value
    parts = iter(perturb(" ".join(value), kind, seed).split(" "))  # neither typos nor case touches a space
    return [" ".join(islice(parts, word.count(" ") + 1)) for word in value]


def _answered(session: Session, job: Job, changed: Changed, tick: Tick) -> Sequence[Any]:
    """The answers to changed rows, in order."""
    if not changed:
        return []
    told: Tick = partial(_tell, tick)
    task = task_of(job.task)
    again = getattr(task, "again", None)
    if again is not None:
        return list(again(session, job, changed, told))
    # Batches of one, so that a task which also times batches spends next to nothing on that.
    numbers = tuple(job.number(index) for index, _ in changed)
    asked = replace(job, rows=tuple(row for _, row in changed), numbers=numbers, repeats=0, batch_size=1)
    return task.answers(session, asked, told).values


def _tell(tick: Tick, step: str, done: int, total: int) -> None:  # noqa: ARG001 - the answers' own step is renamed
    tick("sensitivity", done, total)


def _sample(kind: str, values: list[float], changed: int, unit: str) -> Samples:
    return Samples(
        metric=f"sensitivity.{kind}",
        unit="1",
        values=tuple(values),
        statistics=("mean",),
        unit_of_sample=unit,
        method=f"answered again with changed {kind}, by a seeded recipe; it changed {changed} of {len(values)} rows",
    )
