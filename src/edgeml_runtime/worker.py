"""The process that is measured: a Job as JSON on stdin, an Outcome (or a Refusal) as one line of JSON on stdout.

Order: load, first inference, warm-ups and steady repeats, and only then everything that batches or scores, so that
memory and latency are those of plain use. A task whose answers are the plain use has its memory read after them too.
Progress goes to stderr, between measurements, as `@done/total step`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edgeml_runtime.checks import check_of
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.machine import environment
from edgeml_runtime.meters.clock import timed_s
from edgeml_runtime.meters.memory import Memory
from edgeml_runtime.meters.rapl import Rapl
from edgeml_runtime.records import decode, encode
from edgeml_runtime.session import Session, open_session
from edgeml_runtime.tasks import Answers, Task, task_of
from edgeml_runtime.types import Absent, Job, Outcome, Refusal, Samples

REFUSED = 3


def run(job: Job) -> Outcome:
    """Do the job in this process."""
    task, memory = task_of(job.task), Memory()
    opened: list[Session] = []
    load_s = timed_s(lambda: opened.append(open_session(Path(job.variant), threads=job.threads)))
    session = opened[0]
    memory.read()
    first_s = timed_s(lambda: task.first(session, job))
    memory.read()
    tick("warm-up and steady runs", 0, 1)
    cost, energy = _measured_cost(task, session, job)
    memory.read()
    answers = task.answers(session, job, tick) if job.answers or task.STEADY_IN_ANSWERS else Answers(values=())
    if task.STEADY_IN_ANSWERS:
        memory.read()
    found = [check_of(name).run(session, job, answers.values, tick) for name in job.checks]
    checked = [sample for one in found for sample in one.samples]
    samples = [*_once(load_s, first_s), *cost, *memory.samples(), *answers.samples, *checked]
    untried = [one for check in found for one in check.absent]
    absent = [*memory.absent(), *answers.absent, *untried, *([energy] if isinstance(energy, Absent) else [])]
    if isinstance(energy, Samples):
        samples.append(energy)
    return Outcome(
        environment=environment(job.threads),
        samples=tuple(samples),
        absent=tuple(absent),
        answers=answers.values,
        warnings=(*answers.warnings, *(text for one in found for text in one.warnings)),
        vectors=answers.vectors,
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


def _measured_cost(task: Task, session: Session, job: Job) -> tuple[list[Samples], Samples | Absent]:
    meter = Rapl()
    missing = meter.unavailable()
    if missing:
        return task.cost(session, job), missing
    meter.start()
    cost = task.cost(session, job)
    joules = meter.stop()
    inferences = sum(len(sample.values) + len(sample.warmups) for sample in cost)
    if isinstance(joules, Absent) or not inferences:
        return cost, joules if isinstance(joules, Absent) else Absent(
            metric="energy", reason="this task times no steady loop", hint="bench another task"
        )
    return cost, _energy(joules / inferences)


def _energy(joules: float) -> Samples:
    return Samples(
        metric="energy",
        unit="J",
        values=(joules,),
        statistics=("mean",),
        unit_of_sample="window",
        method="processor package by RAPL over the steady loop, idle included, per inference",
    )


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
