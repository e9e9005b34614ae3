"""Image classification: a picture's file in, its likeliest label and that label's probability out.

Method: every picture is classified alone, in the logits' softmax. A file is read before the clock starts, so its
decoding, resizing and normalising are timed and the disk is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters.clock import steady_s, timed_s
from edgeml_runtime.rows import content, located
from edgeml_runtime.tasks import Answers, shuffled
from edgeml_runtime.tasks.encoding import THROUGHPUT_BATCHES, require_answers_differ, singles
from edgeml_runtime.tasks.text_classification import likeliest
from edgeml_runtime.types import Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats, ImageClassifier, Session
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Generate, Job, Row

COLUMNS = ("file",)
DEFAULT_REPEATS = 200
STEADY_IN_ANSWERS = False


def ready(rows: Sequence[Row], where: str) -> list[Row]:
    """Rows whose `file` is a whole path; in the file at `where`, a path is relative to the folder of that file."""
    return located(rows, Path(where))


def first(session: Session, job: Job) -> None:
    """Classify one picture."""
    _logits(image_classifier(session), [job.rows[0]["file"]])


def cost(session: Session, job: Job) -> list[Samples]:
    """Latency of single pictures, over the data in a seeded order."""
    model = image_classifier(session)
    warmups, times, marks = steady_s(
        lambda content: model.classify_images([content]),
        _shuffled(job),
        warmups=job.warmups,
        repeats=job.repeats,
        prepare=content,
    )
    latency = Samples(
        metric="latency",
        unit="ms",
        values=tuple(value * 1000 for value in times),
        warmups=tuple(value * 1000 for value in warmups),
        statistics=("median", "mad", "p90", "p95", "p99"),
        unit_of_sample="image",
        method="file in memory, logits out (decoding, resizing, normalising, graph), batch of one, monotonic clock",
        marks=marks,
    )
    return [latency]


def work(session: Session, job: Job) -> Work:
    """Single pictures, read from disk and classified."""
    return singles(partial(_logits, image_classifier(session)), [row["file"] for row in job.rows], job)


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """For each row its `label` and the label's probability, `score`."""
    model, rows = image_classifier(session), []
    for index, row in enumerate(job.rows):
        rows.append(_logits(model, [row["file"]])[0])
        if index % 50 == 0:
            tick("answers", index, len(job.rows))
    found: Floats = np.stack(rows)
    contents = {row["file"] for row in job.rows}
    require_answers_differ(found, model.manifest.name, different=len(contents) > 1)
    return Answers(values=tuple(from_vectors(session, job, found)), samples=(_throughput(model, job),))


def from_vectors(session: Session, job: Job, found: Floats) -> list[Any]:  # noqa: ARG001 - one signature for all
    """The answers that those logits, a picture each, stand for."""
    return [likeliest(row, session.manifest.labels) for row in found]


def together(session: Session, files: Sequence[str]) -> Floats:
    """The logits of pictures that are run in one batch."""
    return _logits(image_classifier(session), files)


def predict(session: Session, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The label of a picture and its probability."""
    model = image_classifier(session)
    return likeliest(_logits(model, [row["file"]])[0], model.manifest.labels)


def image_classifier(session: Session) -> ImageClassifier:
    """The session as a classifier of pictures; refuses a model that reads none."""
    if not hasattr(session, "classify_images"):
        task = session.manifest.task
        raise EdgemlError(f"{session.manifest.name} reads no pictures", hint=f"edgeml bench --task {task}")
    return cast("ImageClassifier", session)


def _throughput(model: ImageClassifier, job: Job) -> Samples:
    files, size, rates = _shuffled(job), job.batch_size, []
    for start in range(0, min(len(files), THROUGHPUT_BATCHES * size), size):
        batch = [content(file) for file in files[start : start + size]]
        rates.append(len(batch) / timed_s(partial(model.classify_images, batch)))
    return Samples(
        metric="throughput",
        unit="image/s",
        values=tuple(rates),
        statistics=("median",),
        unit_of_sample="batch",
        method=f"batches of {size} pictures in memory, decoded one after the other",
    )


def _shuffled(job: Job) -> list[str]:
    return shuffled([row["file"] for row in job.rows], job)


def _logits(model: ImageClassifier, files: Sequence[str]) -> Floats:
    """Raises EdgemlError naming the file that cannot be read or decoded."""
    try:
        return model.classify_images([content(file) for file in files])
    except EdgemlError as error:
        raise EdgemlError(f"{', '.join(files)}: {error.message}", hint=error.hint) from error
