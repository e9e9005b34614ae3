"""Speech recognition: a sound's file in, what is said in it out, greedily.

Method: one sound at a time, as it would come. A file is read before the clock starts, so its decoding, resampling and
spectrogram are timed and the disk is not. `latency` is the whole answer, `latency_first_token` the time to its first
token, `throughput` the seconds of sound in a second of time, which is the inverse of the real-time factor. A model that
hears a fixed window takes as long to hear a short sound as a long one, so `throughput` depends on the data's lengths.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import cycle, islice
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters.clock import drift
from edgeml_runtime.rows import content
from edgeml_runtime.tasks import Answers, shuffled
from edgeml_runtime.tasks.encoding import singles
from edgeml_runtime.tasks.image_classification import ready
from edgeml_runtime.tasks.text_generation import decode_rate
from edgeml_runtime.types import Generate, Samples

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats, Generation, Session, Transcriber
    from edgeml_runtime.tasks import Tick, Work
    from edgeml_runtime.types import Job, Row

__all__ = ["COLUMNS", "DEFAULT_REPEATS", "STEADY_IN_ANSWERS", "answers", "cost", "first", "predict", "ready", "work"]

COLUMNS = ("file",)
DEFAULT_REPEATS = 0  # every row once
STEADY_IN_ANSWERS = True
_TIMES = ("median", "mad", "p90", "p95", "p99")


class Heard(NamedTuple):
    """An answer, how long it took, and how long the sound lasts."""

    made: Generation
    took_s: float
    lasts_s: float


def first(session: Session, job: Job) -> None:
    """Write a single token."""
    _heard(transcriber(session), job.rows[0]["file"], Generate(max_new_tokens=1))


def cost(session: Session, job: Job) -> list[Samples]:
    """Warm-ups alone: the timings come from the answers, so that nothing is heard twice."""
    model = transcriber(session)
    for row in islice(cycle(job.rows), job.warmups):
        _heard(model, row["file"], job.generate)
    return []


def answers(session: Session, job: Job, tick: Tick) -> Answers:
    """For each row its `text`, `finish_reason` and the number of `tokens`; samples alone where none are wanted.

    Rows come in a seeded order, and in turn until `repeats` of them are timed.
    """
    model, order = transcriber(session), shuffled(range(len(job.rows)), job)
    total, heard = max(len(order), job.repeats), []
    for index, place in enumerate(islice(cycle(order), total)):
        heard.append(_heard(model, job.rows[place]["file"], job.generate))
        tick("answers", index + 1, total)
    if not job.answers or job.generate.past_end:
        return Answers(values=(), samples=tuple(_samples(heard)))
    pairs = sorted(zip(order, heard, strict=False), key=lambda pair: pair[0])
    values = tuple(_answer(one.made) for _, one in pairs)
    return Answers(values=values, samples=tuple(_samples(heard)), warnings=tuple(_warnings(values, job)))


def work(session: Session, job: Job) -> Work:
    """Single sounds, read from disk and written down."""
    model = transcriber(session)
    return singles(lambda files: _heard(model, files[0], job.generate), [row["file"] for row in job.rows], job)


def predict(session: Session, row: Row, options: Generate) -> Any:
    """What is said in a sound."""
    return _heard(transcriber(session), row["file"], options).made.text


def logits(session: Session, file: str) -> Floats:
    """The logits of the first token of what is said, `(1, vocabulary)`."""
    return transcriber(session).logits(content(file), ())


def transcriber(session: Session) -> Transcriber:
    """The session as one that hears; refuses a model that does not."""
    if not hasattr(session, "transcribe"):
        task = session.manifest.task
        raise EdgemlError(f"{session.manifest.name} hears nothing", hint=f"edgeml bench --task {task}")
    return cast("Transcriber", session)


def _heard(model: Transcriber, file: str, options: Generate) -> Heard:
    """Raises EdgemlError naming the file that cannot be read or heard."""
    try:
        sound = content(file)
        lasts_s = model.seconds(sound)
        begin = perf_counter()
        made = model.transcribe(sound, options)
        return Heard(made, perf_counter() - begin, lasts_s)
    except EdgemlError as error:
        raise EdgemlError(f"{file}: {error.message}", hint=error.hint) from error


def _answer(made: Generation) -> dict[str, Any]:
    return {"text": made.text, "finish_reason": made.finish_reason, "tokens": len(made.tokens)}


def _warnings(values: Sequence[dict[str, Any]], job: Job) -> Iterator[str]:
    cut = sum(one["finish_reason"] == "length" for one in values)
    if cut:
        yield f"{cut} of {len(values)} answers were cut at {job.generate.max_new_tokens} tokens or the model's limit"


def _samples(heard: Sequence[Heard]) -> Iterator[Samples]:
    rates = [rate for one in heard if (rate := decode_rate(one.made)) is not None]
    first_ms = [one.made.token_times_s[0] * 1000 for one in heard if one.made.tokens]
    doubts = drift([one.took_s for one in heard])
    found: list[tuple[str, str, list[float], tuple[str, ...]]] = [
        ("latency", "ms", [one.took_s * 1000 for one in heard], _TIMES),
        ("latency_first_token", "ms", first_ms, _TIMES),
        ("decode_rate", "token/s", rates, ("median",)),
        ("throughput", "s/s", [one.lasts_s / one.took_s for one in heard], ("median",)),
        ("generated", "token", [float(len(one.made.tokens)) for one in heard], ("median",)),
    ]
    for metric, unit, values, statistics in found:
        if values:
            yield Samples(
                metric=metric,
                unit=unit,
                values=tuple(values),
                statistics=statistics,
                unit_of_sample="sound",
                method="file in memory, text out, one sound at a time, greedy, monotonic clock",
                marks=doubts if unit != "token" else (),
            )
