"""Text generation: a text in, its greedy continuation out, within a JSON schema where one is given.

Method: one generation at a time. `latency_first_token` runs from the call to the first token and so contains the
prompt's evaluation; `prefill_rate` is prompt tokens over that time; `decode_rate` is the tokens after the first over
the time from the first token to the last; `latency` is the whole answer. Memory is read again after the answers, since
they are the steady inference of this task.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any, cast

import msgspec

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.tasks import Answers
from edgeml_runtime.types import Generate, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Generation, Session
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Job, Row

COLUMNS = ("text",)
DEFAULT_REPEATS = 0  # every row once
STEADY_IN_ANSWERS = True


def first(session: Encoder | Decoder, job: Job) -> None:
    """Generate a single token."""
    _generate(session, job.rows[0], Generate(max_new_tokens=1))


def cost(session: Encoder | Decoder, job: Job) -> list[Samples]:
    """Warm-ups alone: the timings come from the answers, so that nothing is generated twice."""
    for row in islice(cycle(job.rows), job.warmups):
        _generate(session, row, job.generate)
    return []


def answers(session: Encoder | Decoder, job: Job, tick: Tick) -> Answers:
    """The generated text of each row; rows are repeated in turn until `repeats` generations are timed."""
    made: list[Generation] = []
    total = max(len(job.rows), job.repeats)
    for index, row in enumerate(islice(cycle(job.rows), total)):
        made.append(_generate(session, row, job.generate))
        tick("answers", index + 1, total)
    rows = made[: len(job.rows)]
    values = tuple({"text": one.text, "finish_reason": one.finish_reason, "tokens": len(one.tokens)} for one in rows)
    return Answers(values=values, samples=tuple(_samples(made)), warnings=tuple(_warnings(session, rows, job)))


def work(session: Encoder | Decoder, job: Job) -> Work:
    """Whole answers; prompts that are only read; and text written from a single token, as `llama-bench` times it.

    Every step of the last evaluates one token, so that no prompt is mixed in: the units are evaluations.
    """
    model = decoder(session)
    order = random.Random(job.seed).sample(job.rows, len(job.rows))  # noqa: S311 - an order, not a secret
    prompts = [model.prompt(job.generate.instruction, row["text"]) for row in order]
    answered, read, started = cycle(prompts), cycle(prompts), cycle(prompts)
    shortest = msgspec.structs.replace(job.generate, max_new_tokens=1)

    def answer() -> int:
        model.generate(next(answered), job.generate)
        return 1

    def prefill() -> int:
        return model.generate(next(read), shortest).prompt_tokens

    def decode() -> int:
        made = model.generate(next(started)[:1], job.generate)
        return len(made.tokens) + (made.finish_reason == "stop")

    return {"steady": answer, "prefill": prefill, "decode": decode}


def predict(session: Encoder | Decoder, row: Row, options: Generate) -> Any:
    """The generated text."""
    return _generate(session, row, options).text


def decoder(session: Session) -> Decoder:
    """The session as a decoder; refuses a model that makes vectors or labels."""
    if not hasattr(session, "generate"):
        raise EdgemlError(
            f"{session.manifest.name} generates no text", hint=f"edgeml bench --task {session.manifest.task}"
        )
    return cast("Decoder", session)


def _generate(session: Encoder | Decoder, row: Row, options: Generate) -> Generation:
    model = decoder(session)
    return model.generate(model.prompt(options.instruction, row["text"]), options)


def _warnings(session: Encoder | Decoder, made: list[Generation], job: Job) -> Iterator[str]:
    if decoder(session).omits_chat_template:
        yield f"prompts are plain: a chat template of the model is not applied in {session.manifest.scheme}"
    cut = sum(one.finish_reason == "length" for one in made)
    if cut:
        yield f"{cut} of {len(made)} answers were cut at {job.generate.max_new_tokens} tokens"


def _samples(made: list[Generation]) -> list[Samples]:
    long = [one for one in made if len(one.tokens) > 1]
    some = [one for one in made if one.tokens]
    found = [
        _sample("latency", "ms", [one.token_times_s[-1] * 1000 for one in some], ("median", "p95", "p99")),
        _sample("latency_first_token", "ms", [one.token_times_s[0] * 1000 for one in some], ("median", "p95")),
        _sample("prefill_rate", "token/s", [one.prompt_tokens / one.token_times_s[0] for one in some], ("median",)),
        _sample("decode_rate", "token/s", [_decode_rate(one) for one in long], ("median",)),
        _sample("generated", "token", [float(len(one.tokens)) for one in made], ("median",)),
    ]
    return [sample for sample in found if sample.values]


def _decode_rate(one: Generation) -> float:
    return (len(one.tokens) - 1) / (one.token_times_s[-1] - one.token_times_s[0])


def _sample(metric: str, unit: str, values: list[float], statistics: tuple[str, ...]) -> Samples:
    return Samples(
        metric=metric,
        unit=unit,
        values=tuple(values),
        statistics=statistics,
        unit_of_sample="generation",
        method="greedy, one text at a time, monotonic clock",
    )
