"""Whether the same text gets the same answer again, whatever was asked before, by how many threads, in which session.

Method: at most 8 seeded rows are generated again, repeated in the same session, there in reverse order, in a session of
a single thread where the job has more, and in a fresh session. `contract.deterministic` is the share of these
variations that gave a row the same text, tokens and end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml_runtime.checks import sampled
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.text_generation import answer, decoder, generated
from edgeml_runtime.types import Absent, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Job

ROWS = 8  # each is generated four times more, which takes as long as half of 64 rows
METRIC = "contract.deterministic"


def run(session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:
    """`contract.deterministic`, and which row differs first and why; absent for tasks that generate no text."""
    if not (answers and hasattr(session, "generate")):
        reason = f"{job.task} generates no text" if answers else "there are no answers to repeat"
        return Answers(values=(), absent=(Absent(metric=METRIC, reason=reason, hint="leave the check out"),))
    rows, kind = sampled(job, ROWS)
    same: dict[str, list[bool]] = {}
    for done, (how, found) in enumerate(_variations(session, job, rows)):
        same[how] = [found[row] == answers[row] for row in rows]
        tick("determinism", done + 1, 4)
    shares = tuple(sum(column) / len(same) for column in zip(*same.values(), strict=True))
    sample = Samples(
        metric=METRIC,
        unit="1",
        values=shares,
        statistics=("mean",),
        unit_of_sample=kind,
        method=f"share of these that gave the same answer: {', '.join(same)}",
    )
    return Answers(values=(), samples=(sample,), warnings=tuple(_warnings([job.number(row) for row in rows], same)))


def _variations(session: Session, job: Job, rows: Sequence[int]) -> Iterator[tuple[str, dict[int, Any]]]:
    """What was changed, and the answers by row."""
    yield "repeated", _answers(session, job, rows)
    yield "in reverse order", _answers(session, job, rows[::-1])
    if max(job.threads, job.threads_prefill or 0) > 1:
        yield f"with 1 thread instead of {job.threads}", _elsewhere(job, rows, threads=1, threads_prefill=1)
    fresh = _elsewhere(job, rows, threads=job.threads, threads_prefill=job.threads_prefill)
    yield "in a fresh session", fresh


def _elsewhere(job: Job, rows: Sequence[int], *, threads: int, threads_prefill: int | None) -> dict[int, Any]:
    session = open_session(Path(job.variant), threads=threads, threads_prefill=threads_prefill, gpu=job.gpu)
    try:
        return _answers(session, job, rows)
    finally:
        session.close()


def _answers(session: Session, job: Job, rows: Sequence[int]) -> dict[int, Any]:
    model = decoder(session)
    return {row: answer(job.rows[row], generated(model, job.rows[row], job.generate), job.generate) for row in rows}


def _warnings(numbers: Sequence[int], same: dict[str, list[bool]]) -> Iterator[str]:
    for how, column in same.items():
        if not all(column):
            changed = column.count(False)
            yield f"{changed} of {len(column)} answers differ {how}: the first is row {numbers[column.index(False)]}"
