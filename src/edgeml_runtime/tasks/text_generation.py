"""Text generation: a text in, its greedy continuation out, within a JSON schema where one is given.

Method: one generation at a time. `latency_first_token` runs from the call to the first token and so contains the
prompt's evaluation; `latency_first_character` to the token that completes the first character that is neither blank
nor reasoning; `prefill_rate` is prompt tokens over the time to the first token; `decode_rate` is the tokens after the
first over the time from the first token to the last; `latency` is the whole answer. What a model thinks aloud is no
part of the answer's text, but of all these times, and counted as `reasoning`. Memory is read again after the answers,
since they are the steady inference of this task.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import chain, cycle, islice
from typing import TYPE_CHECKING, Any, cast

import msgspec

from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.grounding import named_place, parsed, ungrounded
from edgeml_runtime.meters.clock import drift
from edgeml_runtime.reasoning import first_visible, visible
from edgeml_runtime.tasks import Answers, shuffled
from edgeml_runtime.types import EnergyPlan, Generate, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Generation, Session
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Job, Row

COLUMNS = ("text",)
DEFAULT_REPEATS = 0  # every row once
STEADY_IN_ANSWERS = True
PACE_TOKENS = (128, 32)  # of a prompt and of an answer: enough to tell settings apart, within any model's limit
_LATENCY = ("median", "mad", "p90", "p95", "p99")


def first(session: Encoder | Decoder, job: Job) -> None:
    """Generate a single token."""
    prompt = decoder(session).prompt(None, job.rows[0]["text"])
    _generate(session, prompt, 0, job, Generate(max_new_tokens=1))


def cost(session: Encoder | Decoder, job: Job) -> list[Samples]:
    """Warm-ups alone: the timings come from the answers, so that nothing is generated twice."""
    prompts = _prompts(session, job)
    for place in islice(cycle(range(len(prompts))), job.warmups):
        _generate(session, prompts[place], place, job)
    return []


def answers(session: Encoder | Decoder, job: Job, tick: Tick) -> Answers:
    """What `answer` gives for each row; rows are repeated in turn until `repeats` generations are timed.

    They come in a seeded order, so that long rows at the end of the data are no drift of the machine.
    Samples alone where the job wants no answers, or text past its end, which is none.
    """
    made: list[Generation] = []
    prompts = _prompts(session, job)
    order = shuffled(range(len(prompts)), job)
    total = max(len(prompts), job.repeats)
    for index, place in enumerate(islice(cycle(order), total)):
        made.append(_generate(session, prompts[place], place, job))
        tick("answers", index + 1, total)
    samples = tuple(_samples(made, _method(job)))
    if not job.answers or job.generate.past_end:
        return Answers(values=(), samples=samples)
    of_rows = [one for _, one in sorted(zip(order, made, strict=False), key=lambda pair: pair[0])]
    values = tuple(answer(row, one, job.generate) for row, one in zip(job.rows, of_rows, strict=True))
    samples = (*samples, _tokens(of_rows))
    return Answers(values=values, samples=samples, warnings=tuple(_warnings(session, values, job)))


def answer(row: Row, made: Generation, options: Generate) -> dict[str, Any]:
    """The answer to a row: its visible `text`, `finish_reason` and all `tokens`.

    `reasoning_tokens` where the model thought aloud. `ungrounded` are the values, each with its place, that are no
    span of the row's text, as `grounding` defines it, where the answer is a JSON object or held to a schema.
    """
    text = visible(made.text, made.hidden)
    found = {"text": text, "finish_reason": made.finish_reason, "tokens": len(made.tokens)}
    if made.hidden:
        found["reasoning_tokens"] = _reasoning_tokens(made)
    if options.schema is not None or isinstance(parsed(text), dict):
        invented = ungrounded(text, row["text"], options.schema)
        found |= {"ungrounded": [list(one) for one in invented]} if invented else {}
    return found


def paced(job: Job, *, repeats: int = 3) -> Job:
    """A short job like the given one that gives little else than `prefill_rate` and `decode_rate`.

    One sample each of `repeats` generations with a prompt and an answer of exactly `PACE_TOKENS` tokens: the data's own
    text, cut or repeated, and whatever the model writes, past its end token as well.
    """
    prompt_tokens, new_tokens = PACE_TOKENS
    return msgspec.structs.replace(
        job,
        answers=False,
        checks=(),
        energy=EnergyPlan(meter="off"),
        warmups=1,
        repeats=repeats,
        context_tokens=prompt_tokens,
        generate=Generate(max_new_tokens=new_tokens, past_end=True),
    )


def work(session: Encoder | Decoder, job: Job) -> Work:
    """Whole answers; prompts that are only read; and text written from a single token, as `llama-bench` times it.

    Every step of the last evaluates one token, so that no prompt is mixed in; it goes on past an end token, without a
    schema.
    """
    model = decoder(session)
    order = shuffled(job.rows, job)
    prompts = [model.prompt(job.generate.instruction, row["text"]) for row in order]
    answered, read, started = cycle(prompts), cycle(prompts), cycle(prompts)
    shortest = msgspec.structs.replace(job.generate, max_new_tokens=1)
    freely = msgspec.structs.replace(job.generate, schema=None, past_end=True)

    def answer() -> int:
        model.generate(next(answered), job.generate)
        return 1

    def prefill() -> int:
        return model.generate(next(read), shortest).prompt_tokens

    def decode() -> int:
        return len(model.generate(next(started)[:1], freely).tokens)

    return {"steady": answer, "prefill": prefill, "decode": decode}


def predict(session: Encoder | Decoder, row: Row, options: Generate) -> Any:
    """The generated text, without the reasoning before it."""
    made = generated(session, row, options)
    return visible(made.text, made.hidden)


def decoder(session: Session) -> Decoder:
    """The session as a decoder; refuses a model that makes vectors or labels."""
    if not hasattr(session, "generate"):
        raise EdgemlError(
            f"{session.manifest.name} generates no text", hint=f"edgeml bench --task {session.manifest.task}"
        )
    return cast("Decoder", session)


def generated(session: Encoder | Decoder, row: Row, options: Generate) -> Generation:
    """What the model writes for one row, with its times."""
    model = decoder(session)
    return model.generate(model.prompt(options.instruction, row["text"]), options)


def decode_rate(made: Generation) -> float | None:
    """Tokens after the first over the time from the first token to the last; None for fewer than two."""
    if len(made.tokens) < 2:
        return None
    return (len(made.tokens) - 1) / (made.token_times_s[-1] - made.token_times_s[0])


def _prompts(session: Encoder | Decoder, job: Job) -> list[list[int]]:
    """Each row's prompt; where exact numbers of tokens are timed, one of `context_tokens` made of them all."""
    model = decoder(session)
    found = [model.prompt(job.generate.instruction, row["text"]) for row in job.rows]
    if job.generate.past_end:
        return [list(islice(cycle(chain.from_iterable(found)), job.context_tokens))]
    return found


def _generate(
    session: Encoder | Decoder, prompt: Sequence[int], place: int, job: Job, options: Generate | None = None
) -> Generation:
    """What is written for the prompt of a row of the job; raises EdgemlError naming a row that does not fit."""
    try:
        return decoder(session).generate(prompt, options or job.generate)
    except UnfitError as error:
        raise error.of_row(job.number(place)) from error


def _warnings(session: Encoder | Decoder, made: Sequence[Any], job: Job) -> Iterator[str]:
    if decoder(session).omits_chat_template:
        yield f"prompts are plain: a chat template of the model is not applied in {session.manifest.scheme}"
    cut = sum(one["finish_reason"] == "length" for one in made)
    if cut:
        yield f"{cut} of {len(made)} answers were cut at {job.generate.max_new_tokens} tokens"
    invented = [(row, one["ungrounded"][0][0]) for row, one in enumerate(made) if "ungrounded" in one]
    if invented:
        row, place = job.number(invented[0][0]), invented[0][1]
        known = named_place(place, job.generate.schema)  # another name is the model's own, and may be a customer's
        where = f"the first is {known} of row {row}" if known else f"the first is row {row}"
        yield f"{len(invented)} of {len(made)} answers hold values that do not stand in their text: {where}"


def _samples(made: list[Generation], method: str) -> list[Samples]:
    some = [one for one in made if one.tokens]
    rates = [rate for one in some if (rate := decode_rate(one)) is not None]
    doubts = drift(rates)
    thought = [float(_reasoning_tokens(one)) for one in made]
    seen = [time_s * 1000 for one in made if (time_s := _first_character_s(one)) is not None]
    found = [
        ("latency", "ms", [one.token_times_s[-1] * 1000 for one in some], _LATENCY),
        ("latency_first_token", "ms", [one.token_times_s[0] * 1000 for one in some], _LATENCY),
        ("latency_first_character", "ms", seen, _LATENCY),
        ("prefill_rate", "token/s", [one.prompt_tokens / one.token_times_s[0] for one in some], ("median",)),
        ("decode_rate", "token/s", rates, ("median",)),
        ("generated", "token", [float(len(one.tokens)) for one in made], ("median",)),
        ("reasoning", "token", thought if any(thought) else [], ("median",)),
    ]
    return [
        Samples(
            metric=metric,
            unit=unit,
            values=tuple(values),
            statistics=statistics,
            unit_of_sample="generation",
            method=method,
            marks=doubts if unit != "token" else (),
        )
        for metric, unit, values, statistics in found
        if values
    ]


def _tokens(made: Sequence[Generation]) -> Samples:
    """What each row costs to read; by slices, which language or group costs more."""
    return Samples(
        metric="tokens",
        unit="token",
        values=tuple(float(one.prompt_tokens) for one in made),
        statistics=("mean",),
        unit_of_sample="row",
        method="tokens of a row's whole prompt, with its instruction and chat template",
    )


def _method(job: Job) -> str:
    if job.generate.past_end:
        sizes = f"prompts of {job.context_tokens} tokens, answers of {job.generate.max_new_tokens}"
        return f"greedy, {sizes}, one at a time, monotonic clock"
    return "greedy, one text at a time, monotonic clock"


def _first_character_s(made: Generation) -> float | None:
    """Seconds to the token that completes the first visible character; None where none is, or none was counted."""
    place = first_visible(made.text, made.hidden)
    token = None if place is None else _tokens_for(made, place + 1) - 1
    return None if token is None or token >= len(made.text_ends) else made.token_times_s[token]


def _reasoning_tokens(made: Generation) -> int:
    return sum(_tokens_for(made, end) - _tokens_for(made, start) for start, end in made.hidden)


def _tokens_for(made: Generation, characters: int) -> int:
    """How many tokens it takes until that many characters are complete."""
    return min(bisect_left(made.text_ends, characters) + 1, len(made.tokens)) if characters else 0
