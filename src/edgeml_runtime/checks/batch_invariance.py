"""Whether an answer depends on what else is in its batch, as it does where activations share one scale.

Method: every text, or picture, is run in batches of the job's size, in a seeded order, and compared with its run alone.
`batch.flips` is 1 for a row whose answer is another one; `batch.shift` is 1 - cosine of the two vectors (a classifier's
logits), the largest of a row's texts, for at most 200 seeded rows.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from msgspec.structs import replace

from edgeml_runtime.checks import moved, sampled
from edgeml_runtime.tasks import Answers, task_of
from edgeml_runtime.tasks.encoding import texts_of
from edgeml_runtime.types import Absent, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats, Session
    from edgeml_runtime.tasks import Tick
    from edgeml_runtime.types import Job

# Padding alone moves a vector of 32-bit floats by some 1e-7; more than the bound of a self-test is told.
_TOLD = 1e-4


def run(session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:
    """`batch.flips` and `batch.shift`, with a warning where the batch matters; absent for tasks that it cannot try."""
    task = task_of(job.task)
    from_vectors = getattr(task, "from_vectors", None)
    if from_vectors is None:
        reason = f"batches of {job.task} are not tried"
        return Answers(values=(), absent=(Absent(metric="batch.flips", reason=reason, hint="leave the check out"),))
    together = _together(session, job, tick)
    flips = [moved(*pair) for pair in zip(answers, from_vectors(session, job, together), strict=True)]
    rows, kind = sampled(job)
    shifts = _shifts(session, job, together, rows)
    found = [_sample("batch.shift", shifts, kind, job)]
    if not all(isinstance(answer, float) for answer in answers):
        found.insert(0, _sample("batch.flips", flips, "row", job))
    return Answers(values=(), samples=tuple(found), warnings=tuple(_warnings(session, answers, flips, shifts)))


def _together(session: Session, job: Job, tick: Tick) -> Floats:
    """One vector a text of `texts_of`, `(texts, width)`, each run among others."""
    texts = texts_of(job)
    unique = list(dict.fromkeys(texts))
    random.Random(job.seed).shuffle(unique)  # noqa: S311 - an order, not a secret
    place = {text: index for index, text in enumerate(unique)}
    found = []
    for start in range(0, len(unique), job.batch_size):
        found.append(_vectors(session, job, unique[start : start + job.batch_size]))
        tick("batch-invariance", start, len(unique))
    all_of_them: Floats = np.concatenate(found)[[place[text] for text in texts]]
    return all_of_them


def _vectors(session: Session, job: Job, texts: list[str]) -> Floats:
    own: Callable[[Session, list[str]], Floats] | None = getattr(task_of(job.task), "together", None)
    if own is not None:
        return own(session, texts)
    found: Floats = getattr(session, "classify" if hasattr(session, "classify") else "embed")(texts)
    return found


def _shifts(session: Session, job: Job, together: Floats, rows: list[int]) -> list[float]:
    each = len(together) // len(job.rows)
    texts = texts_of(replace(job, rows=tuple(job.rows[row] for row in rows)))
    ours = np.concatenate([_vectors(session, job, [text]) for text in texts]).astype(np.float64)
    theirs = together.reshape(len(job.rows), each, -1)[rows].reshape(ours.shape).astype(np.float64)
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    shifts = 1 - (ours * theirs).sum(1) / lengths.clip(1e-12)
    return [float(shift) for shift in shifts.clip(0).reshape(-1, each).max(1)]


def _warnings(session: Session, answers: tuple[Any, ...], flips: list[float], shifts: list[float]) -> Iterator[str]:
    if all(isinstance(answer, float) for answer in answers):
        changed, told = f"answers change by up to {max(flips):.4f}", max(shifts) > _TOLD
    else:
        changed, told = f"{sum(map(bool, flips))} of {len(flips)} answers change", any(flips)
    made = session.manifest
    dynamic = made.scheme in ("onnx:int8", "onnx:int8-dynamic") and made.settings.get("chosen", "dynamic") == "dynamic"
    why = " (dynamic int8)" if dynamic else ""
    fix = "run batches of one, as the bundle does"
    fix += "; static quantization would not depend on the batch" if dynamic else ""
    if told:
        yield f"{changed} with what else is in the batch{why}, vectors by up to {max(shifts):.2g} (1 - cosine): {fix}"


def _sample(metric: str, values: list[float], unit: str, job: Job) -> Samples:
    return Samples(
        metric=metric,
        unit="1",
        values=tuple(values),
        statistics=("mean",),
        unit_of_sample=unit,
        method=f"in batches of {job.batch_size} texts, in a seeded order, against alone",
    )
