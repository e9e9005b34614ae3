"""How many threads are fastest here: each count is tried in a process of its own, for prompt and answer apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.progress import Progress, silent
from edgeml.types import ThreadSweep
from edgeml_runtime.machine import cores
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Job, Outcome

_NEAR = 0.03  # a count that is this near the best wins if it is smaller: threads that gain nothing cost energy
_REPEATS = 40
_GENERATIONS = 3
# The metrics that a count is chosen by: is the first clearly better than the other?
_BETTER: dict[str, Callable[[float, float], bool]] = {
    "latency": lambda one, other: one < other * (1 - _NEAR),
    "decode_rate": lambda one, other: one > other * (1 + _NEAR),
    "prefill_rate": lambda one, other: one > other * (1 + _NEAR),
}


def parse_threads(text: str | None) -> int | str | None:
    """A count, `auto`, or None for every fast core."""
    if text is None or text == "auto":
        return text
    if not text.isdecimal() or not int(text):
        raise EdgemlError(f"cannot read --threads {text!r}", hint="write a number from 1 on, or auto")
    return int(text)


def sweep(job: Job, run: Callable[[Job, Progress], Outcome], *, progress: Progress) -> ThreadSweep:
    """The medians of a short job at each thread count, smallest first, up to every processor that we may use."""
    tried: dict[str, dict[str, float]] = {}
    counts = candidates(cores())
    for index, count in enumerate(counts):
        progress("try thread counts", index, len(counts))
        outcome = run(_short(job, count), silent)
        for sample in outcome.samples:
            if sample.metric in _BETTER:
                tried.setdefault(sample.metric, {})[str(count)] = median(sample.values)
    decode = "decode_rate" if "decode_rate" in tried else "latency" if "latency" in tried else "prefill_rate"
    return ThreadSweep(
        tried=tried,
        threads=fastest(decode, tried[decode]),
        threads_prefill=fastest("prefill_rate", tried["prefill_rate"]) if "prefill_rate" in tried else None,
    )


def candidates(most: int) -> Sequence[int]:
    """Every count up to 4, then every other: the best is often the number of fast cores, which is rarely known."""
    return [count for count in range(1, most + 1) if count <= 4 or count % 2 == 0 or count == most]


def fastest(metric: str, tried: dict[str, float]) -> int:
    """The smallest count that no larger one clearly beats."""
    best = 0
    for count in sorted(map(int, tried)):
        if not best or _BETTER[metric](tried[str(count)], tried[str(best)]):
            best = count
    return best


def _short(job: Job, count: int) -> Job:
    """The job with little to do: `_REPEATS` single rows, or `_GENERATIONS` where each of them takes seconds."""
    task = task_of(job.task)
    if task.STEADY_IN_ANSWERS:
        from edgeml_runtime.tasks.text_generation import paced

        return replace(paced(job, repeats=_GENERATIONS), threads=count, threads_prefill=count)
    most = _REPEATS if task.DEFAULT_REPEATS else _GENERATIONS
    return replace(
        job,
        threads=count,
        threads_prefill=None,
        repeats=min(job.repeats or most, most),
        answers=False,
        checks=(),
        reference=None,
        energy=replace(job.energy, meter="off"),
    )
