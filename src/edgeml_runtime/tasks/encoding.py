"""What the tasks of an encoder share: first inference, timing, throughput of batches, and two warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters.clock import steady_s, timed_s
from edgeml_runtime.tasks import shuffled, task_of
from edgeml_runtime.types import Job, Samples, Vectors

if TYPE_CHECKING:
    from edgeml_runtime.session import Classifier, Decoder, Encoder, Floats, Session, Tagger
    from edgeml_runtime.tasks import Tick, Work

Timed = Callable[[list[Any]], Any]  # answers a batch of texts at once

THROUGHPUT_BATCHES = 8
_EMBEDDED = "text in, vector out (tokenizer, graph, pooling)"
_SAME = 1e-5  # largest difference of two unit vectors that a model which looks at its input never shows everywhere


def encoder(session: Session) -> Encoder:
    """The session as an encoder; refuses a model that generates or gives labels."""
    if not hasattr(session, "embed"):
        raise EdgemlError(
            f"{session.manifest.name} makes no embeddings", hint=f"edgeml bench --task {session.manifest.task}"
        )
    return cast("Encoder", session)


def texts_of(job: Job) -> list[str]:
    """Every text of the rows, in their order: what the task's columns hold."""
    return [row[column] for row in job.rows for column in task_of(job.task).COLUMNS]


def first(session: Encoder | Decoder, job: Job) -> None:
    """Embed one text."""
    encoder(session).embed(texts_of(job)[:1])


def cost(session: Encoder | Decoder, job: Job) -> list[Samples]:
    """Latency of single texts."""
    return [latency(encoder(session).embed, texts_of(job), job, what=_EMBEDDED)]


def latency(call: Timed, texts: Sequence[Any], job: Job, *, what: str) -> Samples:
    """Milliseconds that `call` takes for one text, over the data in a seeded order; `what` names what it does."""
    order = shuffled(texts, job)
    warmups, times, marks = steady_s(lambda text: call([text]), order, warmups=job.warmups, repeats=job.repeats)
    return Samples(
        metric="latency",
        unit="ms",
        values=tuple(value * 1000 for value in times),
        warmups=tuple(value * 1000 for value in warmups),
        statistics=("median", "mad", "p90", "p95", "p99"),
        unit_of_sample="text",
        method=f"{what}, batch of one, monotonic clock",
        marks=marks,
    )


def work(session: Session, job: Job) -> Work:
    """Single texts, embedded."""
    return singles(encoder(session).embed, texts_of(job), job)


def singles(call: Timed, texts: Sequence[Any], job: Job) -> Work:
    """Single texts for `call`, over the data in the order in which latency is timed."""
    order = cycle(shuffled(texts, job))

    def one() -> int:
        call([next(order)])
        return 1

    return {"steady": one}


def throughput(call: Timed, texts: Sequence[Any], job: Job) -> Samples:
    """Texts a second that `call` answers in batches of the job's size."""
    order = shuffled(texts, job)
    batches = list(_batches(order, job.batch_size))[:THROUGHPUT_BATCHES]
    rates = [len(batch) / timed_s(partial(call, batch)) for batch in batches]
    return Samples(
        metric="throughput",
        unit="text/s",
        values=tuple(rates),
        statistics=("median",),
        unit_of_sample="batch",
        method=f"batches of {job.batch_size} texts, padded to the longest",
    )


def vectors(session: Encoder | Classifier, texts: list[str], tick: Tick) -> Floats:
    """One vector a text, `(len(texts), width)`, each computed alone so that no answer depends on its neighbours.

    A classifier's vector are its logits. Raises EdgemlError when different texts all get the same vector.
    """
    call = session.classify if hasattr(session, "classify") else session.embed
    rows = []
    for index, text in enumerate(texts):
        rows.append(call([text])[0])
        if index % 50 == 0:
            tick("answers", index, len(texts))
    found: Floats = np.stack(rows)
    require_answers_differ(found, session.manifest.name, different=len(set(texts)) > 1)
    return found


def require_answers_differ(found: Floats, name: str, *, different: bool) -> None:
    """Raise EdgemlError for answers with NaN, or for equal ones, a row each, to texts that are `different`."""
    if different and float(np.abs(found - found[0]).max()) < _SAME:
        raise EdgemlError(
            f"{name} is broken: every text gets the same vector", hint="make the variant again, or use another scheme"
        )
    if not np.isfinite(found).all():
        raise EdgemlError(f"{name} is broken: it answers with NaN", hint="use another scheme")


def embedded(session: Session, job: Job, tick: Tick) -> Floats:
    """One vector a text of `texts_of`, `(texts, width)`; a text that stands in several rows is run once."""
    texts = texts_of(job)
    unique = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(unique)}
    found: Floats = vectors(encoder(session), unique, tick)[[place[text] for text in texts]]
    return found


def unit(found: Floats) -> Floats:
    """The same directions, `(texts, width)`, each of length 1."""
    scaled: Floats = found / np.linalg.norm(found, axis=1, keepdims=True).clip(1e-12)
    return scaled


def packed(found: Floats) -> Vectors:
    """Vectors to be kept: of length 1, so that no part leaves float16's range; their cosines are exact to 1e-5."""
    return Vectors(width=found.shape[1], data=unit(found).astype("<f2").tobytes())


def tokens(session: Encoder | Classifier | Tagger, texts: Sequence[Any], *, rows: int) -> Samples:
    """How many tokens each row costs, all of its texts together; `texts` are in the order of the rows."""
    each = len(texts) // rows
    counts = [session.count_tokens(text) for text in texts]
    return Samples(
        metric="tokens",
        unit="token",
        values=tuple(float(sum(counts[row * each : (row + 1) * each])) for row in range(rows)),
        statistics=("mean",),
        unit_of_sample="row",
        method="tokens of a row's texts before any is cut, special tokens included",
    )


def truncated(
    session: Encoder | Classifier | Tagger, texts: Sequence[Any], *, rows: int
) -> tuple[list[Samples], list[str]]:
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


def _batches(texts: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(texts), size):
        yield texts[start : start + size]
