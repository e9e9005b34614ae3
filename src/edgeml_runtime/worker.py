"""The process that is measured: a Job as JSON on stdin, an Outcome (or a Refusal) as one line of JSON on stdout.

Order: load, first inference, warm-ups and steady repeats, and only then everything that batches or scores, so that
memory and latency are those of plain use. A task whose answers are the plain use has its memory read after them too.
Energy comes after all that is timed, so that its heat slows nothing that is timed. The state of the machine is read
around what is timed; what happened in between is marked on the times.
Progress goes to stderr, between measurements, as `@done/total step`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from edgeml_runtime.checks import check_of
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.machine import environment
from edgeml_runtime.meters.clock import timed_s
from edgeml_runtime.meters.energy import Found, carry_out
from edgeml_runtime.meters.memory import Memory, too_large
from edgeml_runtime.meters.state import marks, read_state
from edgeml_runtime.records import decode, encode
from edgeml_runtime.session import Session, accelerator_of, open_session
from edgeml_runtime.tasks import Answers, Task, task_of, work_of
from edgeml_runtime.trace import trace
from edgeml_runtime.types import Job, Outcome, Refusal, Samples, State

REFUSED = 3
_STILL = "silent while the clock runs"


def run(job: Job) -> Outcome:
    """Do the job in this process."""
    if job.trace:
        return _traced(job)
    task, memory = task_of(job.task), Memory()
    scarce = too_large(Path(job.variant))
    tick(f"load, {_STILL}", 0, 1)
    session, once = _opened(task, job, memory)
    tick(f"warm-up and steady runs, {_STILL}", 0, 1)
    states = [read_state()]
    cost = task.cost(session, job)
    memory.read()
    states.append(read_state())
    answers = task.answers(session, job, tick) if job.answers or task.STEADY_IN_ANSWERS else Answers(values=())
    states.append(read_state())
    if task.STEADY_IN_ANSWERS:
        memory.read()
    timed = [*_doubted(cost, states[0], states[1]), *_doubted(answers.samples, states[1], states[2])]
    energy = carry_out(job.energy, lambda: work_of(task, session, job), tick)
    beside = [check_of(name).run(session, job, answers.values, tick) for name in job.checks]
    parts: list[Answers | Found] = [answers, energy, *beside]
    more = [sample for one in beside for sample in one.samples]
    said = [text for one in parts for text in one.warnings]
    accelerator = accelerator_of(session.manifest, gpu=job.gpu)
    return Outcome(
        environment=environment(job.threads, accelerator=accelerator),
        samples=(*once, *timed, *memory.samples(session.manifest), *energy.samples, *more),
        absent=(*memory.absent(), *(missing for one in parts for missing in one.absent)),
        answers=answers.values,
        warnings=(*scarce, *_unheard(job, accelerator), *memory.warnings(session.manifest), *said),
        vectors=answers.vectors,
        before=states[0],
        after=states[-1],
        energy=energy.energy,
    )


def tick(step: str, done: int, total: int) -> None:
    """Tell the parent how far the job is."""
    print(f"@{done}/{total} {step}", file=sys.stderr, flush=True)  # noqa: T201 - the worker's own channel


def main() -> None:
    """Read one job, answer once. The real stdout is kept for the answer: C libraries print to stderr instead."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answer:
        os.dup2(2, 1)
        try:
            reply: Outcome | Refusal = run(decode(sys.stdin.buffer.read(), Job, where="the job"))
        except EdgemlError as error:
            reply = Refusal(message=error.message, hint=error.hint)
        answer.write(encode(reply) + "\n")
    sys.exit(REFUSED if isinstance(reply, Refusal) else 0)


def _traced(job: Job) -> Outcome:
    """The raw outputs alone: whatever else could be read is the emulator's, if this runs under one.

    A GPU, which rounds otherwise, computes them only where one was asked for.
    """
    prefill, gpu = job.threads_prefill, bool(job.gpu)
    session = open_session(Path(job.variant), threads=job.threads, threads_prefill=prefill, gpu=gpu)
    return Outcome(environment=environment(job.threads), samples=(), trace=trace(session, job, tick))


def _opened(task: Task, job: Job, memory: Memory) -> tuple[Session, list[Samples]]:
    """The variant, opened and used once, and how long that took; memory is read before and after each."""
    memory.read()
    opened: list[Session] = []
    open_it = partial(
        open_session, Path(job.variant), threads=job.threads, threads_prefill=job.threads_prefill, gpu=job.gpu
    )
    load_s = timed_s(lambda: opened.append(open_it()))
    memory.read()
    first_s = timed_s(lambda: task.first(opened[0], job))
    memory.read()
    return opened[0], _once(load_s, first_s)


def _unheard(job: Job, accelerator: str | None) -> tuple[str, ...]:
    return ("a GPU was asked for, and ONNX runs on the CPU alone",) if job.gpu and accelerator is None else ()


def _doubted(samples: Sequence[Samples], before: State, after: State) -> list[Samples]:
    """The samples, those of times marked with what happened to the machine between the two states."""
    doubts = marks(before, after)
    return [
        replace(one, marks=(*one.marks, *doubts)) if one.unit == "ms" or one.unit.endswith("/s") else one
        for one in samples
    ]


def _once(load_s: float, first_s: float) -> list[Samples]:
    methods = {
        "latency_load": (load_s, "opening the variant in a fresh process, files possibly in the page cache"),
        "latency_first": (first_s, "the first inference after loading"),
    }
    return [
        Samples(
            metric=metric,
            unit="ms",
            values=(seconds * 1000,),
            statistics=("once",),
            unit_of_sample="process",
            method=method,
        )
        for metric, (seconds, method) in methods.items()
    ]


if __name__ == "__main__":
    main()
