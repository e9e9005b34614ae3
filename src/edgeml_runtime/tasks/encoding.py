"""What the tasks of an encoder share: first inference, timing, throughput of batches, and two warnings."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters.clock import steady_s, timed_s
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Job, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Floats
    from edgeml_runtime.tasks import Tick

THROUGHPUT_BATCHES = 8
_SAME = 1e-5  # largest difference of two unit vectors that a model which looks at its input never shows everywhere


def encoder(session: Encoder | Decoder) -> Encoder:
    """The session as an encoder; refuses a model that only generates."""
    if not hasattr(session, "embed"):
        raise EdgemlError(f"{session.manifest.name} makes no embeddings", hint="edgeml bench --task text-generation")
    return cast("Encoder", session)


def texts_of(job: Job) -> list[str]:
    """Every text of the rows, in their order: what the task's columns hold."""
    return [row[column] for row in job.rows for column in task_of(job.task).COLUMNS]


def first(session: Encoder | Decoder, job: Job) -> None:
    """Embed one text."""
    encoder(session).embed(texts_of(job)[:1])


def cost(session: Encoder | Decoder, job: Job) -> list[Samples]:
    """Latency of single texts."""
    return [latency(encoder(session), texts_of(job), job)]


def latency(session: Encoder, texts: list[str], job: Job) -> Samples:
    """Milliseconds from text to vector, one text at a time, over the data in a seeded order."""
    order = random.Random(job.seed).sample(texts, len(texts))  # noqa: S311 - an order, not a secret
    warmups, times = steady_s(lambda text: session.embed([text]), order, warmups=job.warmups, repeats=job.repeats)
    return Samples(
        metric="latency",
        unit="ms",
        values=tuple(value * 1000 for value in times),
        warmups=tuple(value * 1000 for value in warmups),
        statistics=("median", "p95", "p99"),
        unit_of_sample="text",
        method="text in, vector out (tokenizer, graph, pooling), batch of one, monotonic clock",
    )


def throughput(session: Encoder, texts: list[str], job: Job) -> Samples:
    """Texts a second in batches of the job's size."""
    order = random.Random(job.seed).sample(texts, len(texts))  # noqa: S311 - an order, not a secret
    batches = list(_batches(order, job.batch_size))[:THROUGHPUT_BATCHES]
    rates = [len(batch) / timed_s(partial(session.embed, batch)) for batch in batches]
    return Samples(
        metric="throughput",
        unit="text/s",
        values=tuple(rates),
        statistics=("median",),
        unit_of_sample="batch",
        method=f"batches of {job.batch_size} texts, padded to the longest",
    )


def vectors(session: Encoder, texts: list[str], tick: Tick) -> Floats:
    """One vector a text, `(len(texts), width)`, each computed alone so that no answer depends on its neighbours.

    Raises EdgemlError when different texts all get the same vector.
    """
    rows = []
    for index, text in enumerate(texts):
        rows.append(session.embed([text])[0])
        if index % 50 == 0:
            tick("answers", index, len(texts))
    found: Floats = np.stack(rows)
    if len(set(texts)) > 1 and float(np.abs(found - found[0]).max()) < _SAME:
        raise EdgemlError(
            f"{session.manifest.name} is broken: every text gets the same vector",
            hint="make the variant again, or use another scheme",
        )
    if not np.isfinite(found).all():
        raise EdgemlError(f"{session.manifest.name} is broken: it answers with NaN", hint="use another scheme")
    return found


def truncated(session: Encoder, texts: list[str], *, rows: int) -> tuple[list[Samples], list[str]]:
    """How many texts are longer than the model reads, as a sample, and a warning when there are any."""
    limit = session.manifest.max_tokens
    count = sum(session.count_tokens(text) > limit for text in texts)
    sample = Samples(
        metric="truncated",
        unit="text",
        values=(float(count),),
        statistics=("sum",),
        unit_of_sample="dataset",
        method=f"texts of more than {limit} tokens",
    )
    warning = f"{count} of {len(texts)} texts in {rows} rows are cut at {limit} tokens"
    return [sample], [warning] if count else []


def _batches(texts: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
