"""Perplexity of a plain text, and how far a variant's next-token distribution is from a reference variant's.

Method, as llama.cpp's own perplexity tool: the text's tokens are cut into chunks of `context_tokens`, or of as many as
the model reads, without overlap. Where the vocabulary asks for a start token, it stands before the text and in place of
each further chunk's first token. Each chunk is evaluated from an empty context, and only its second half is scored, so
that every scored token has at least half a chunk before it. `perplexity` is exp of the mean negative log-likelihood in
nats; `kl_divergence` is the mean of KL(reference || variant) per scored token, in nats; `same_top` the share of scored
tokens whose most likely successor agrees. The independent sample is the chunk.
"""

from __future__ import annotations

from itertools import cycle
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import kind_of, open_session, started
from edgeml_runtime.tasks import Answers
from edgeml_runtime.tasks.text_generation import decoder
from edgeml_runtime.types import Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Floats
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Generate, Job, Row

COLUMNS = ()
DEFAULT_REPEATS = 0
STEADY_IN_ANSWERS = False
_UNITS = {"perplexity": ("perplexity", "exp_mean"), "kl_divergence": ("nat", "mean"), "same_top": ("share", "mean")}


def first(session: Encoder | Decoder, job: Job) -> None:
    """Evaluate one token; refuses a model whose next token follows from another text."""
    if kind_of(session.manifest.task) == "seq2seq":
        problem = f"{session.manifest.name} reads one text and writes another, so a text alone has no perplexity"
        raise EdgemlError(problem, hint=f"edgeml bench --task {session.manifest.task}")
    model = decoder(session)
    model.logits(started(model, job.text or "")[:1])


def cost(session: Encoder | Decoder, job: Job) -> list[Samples]:
    """Tokens a second of whole chunks."""
    model = decoder(session)
    chunk = chunks_of(model, job)[0]
    rates = []
    for _ in range(job.warmups + max(job.repeats, 1)):
        begin = perf_counter()
        model.logits(chunk)
        rates.append(len(chunk) / (perf_counter() - begin))
    return [
        Samples(
            metric="prefill_rate",
            unit="token/s",
            values=tuple(rates[job.warmups :]),
            warmups=tuple(rates[: job.warmups]),
            statistics=("median",),
            unit_of_sample="evaluation",  # of one chunk again and again: no chunk of the text that could be paired
            method=f"teacher-forced chunks of {len(chunk)} tokens with all logits, monotonic clock",
        )
    ]


def answers(session: Encoder | Decoder, job: Job, tick: Tick) -> Answers:
    """One value a chunk of each metric; the reference is opened beside the variant, so no logits touch the disk.

    Raises EdgemlError for a reference that reads the text as other tokens, or has another vocabulary.
    """
    model = decoder(session)
    chunks = chunks_of(model, job)
    reference = None
    if job.reference:
        reference = decoder(open_session(Path(job.reference), threads=job.threads, gpu=job.gpu))
        _require_comparable(model, reference, job)
    found: dict[str, list[float]] = {}
    for index, chunk in enumerate(chunks):
        scores = _likelihoods(model, chunk)
        _add(found, "perplexity", -float(np.take_along_axis(scores, _targets(chunk), 1).mean()))
        if reference:
            other = _likelihoods(reference, chunk)
            _add(found, "kl_divergence", float((np.exp(other) * (other - scores)).sum(1).mean()))
            _add(found, "same_top", float((other.argmax(1) == scores.argmax(1)).mean()))
        tick("chunks", index + 1, len(chunks))
    return Answers(values=(), samples=tuple(_sample(metric, found[metric], len(chunks[0])) for metric in found))


def work(session: Encoder | Decoder, job: Job) -> Work:
    """Whole chunks, read from an empty context with all logits."""
    model = decoder(session)
    chunks = cycle(chunks_of(model, job))

    def one() -> int:
        return len(model.logits(next(chunks)))

    return {"prefill": one}


def chunks_of(model: Decoder, job: Job) -> list[list[int]]:
    """The tokens of each chunk of the job's text; raises EdgemlError for a text that is shorter than one."""
    tokens, start = started(model, job.text or ""), model.start_token
    size = min(job.context_tokens, model.manifest.max_tokens)
    count = len(tokens) // size
    if not count:
        raise EdgemlError(
            f"the text has {len(tokens)} tokens, one chunk needs {size}", hint="give more text, or --context"
        )
    chunks = [tokens[size * index : size * (index + 1)] for index in range(min(count, job.limit or count))]
    return chunks if start is None else [[start, *chunk[1:]] for chunk in chunks]


def predict(session: Encoder | Decoder, row: Row, options: Generate) -> Any:  # noqa: ARG001 - one signature for all tasks
    """The perplexity of a short text, every token scored that has one before it, the start token included."""
    model = decoder(session)
    tokens = started(model, row["text"])
    if len(tokens) < 2:
        raise EdgemlError("no token of the text has one before it", hint="give a longer text")
    scores = _log_softmax(model.logits(tokens)[:-1])
    return float(np.exp(-np.take_along_axis(scores, np.array(tokens[1:])[:, None], 1).mean()))


def _require_comparable(model: Decoder, reference: Decoder, job: Job) -> None:
    ours, theirs = model.manifest.name, reference.manifest.name
    hint = "compare variants of one model, or measure without --baseline"
    if started(model, job.text or "") != started(reference, job.text or ""):
        raise EdgemlError(f"{ours} and {theirs} read the text as different tokens", hint=hint)
    chunks = chunks_of(reference, job)
    if chunks_of(model, job) != chunks:
        raise EdgemlError(f"{ours} and {theirs} read chunks of different lengths", hint="give a smaller --context")
    sizes = [one.logits(chunks[0][:1]).shape[1] for one in (model, reference)]
    if sizes[0] != sizes[1]:
        raise EdgemlError(f"{ours} knows {sizes[0]} tokens, {theirs} {sizes[1]}", hint=hint)


def _targets(chunk: list[int]) -> Any:
    return np.array(chunk[len(chunk) // 2 + 1 :])[:, None]  # (scored, 1)


def _likelihoods(model: Decoder, chunk: list[int]) -> Floats:
    return _log_softmax(model.logits(chunk)[len(chunk) // 2 : -1])  # (scored, vocabulary)


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max(1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return result


def _add(found: dict[str, list[float]], metric: str, value: float) -> None:
    found.setdefault(metric, []).append(value)


def _sample(metric: str, values: list[float], size: int) -> Samples:
    unit, statistic = _UNITS[metric]
    return Samples(
        metric=metric,
        unit=unit,
        values=tuple(values),
        statistics=(statistic,),
        unit_of_sample="chunk",
        method=f"chunks of {size} tokens, second half scored; a value is the mean of its chunk",
        parts=size - size // 2 - 1,
    )
