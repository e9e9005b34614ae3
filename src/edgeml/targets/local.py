"""The machine at hand: the worker in a fresh process, so that a model's memory and crashes never touch the next."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import IO, NamedTuple

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml_runtime.records import decode, encode
from edgeml_runtime.types import Job, Outcome, Refusal

_PROGRESS = re.compile(r"@(\d+)/(\d+) (.*)")
_TAIL_LINES = 5
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}  # else llama.cpp starts a debugger when it aborts


class Ended(NamedTuple):
    """How a worker ended: its exit code (negative for a signal), its answer, and what else it said, line by line."""

    code: int
    answer: str
    said: list[str]


def run(job: Job, *, progress: Progress) -> Outcome:
    """Run a job in a child process; raises EdgemlError with the worker's own words when it refuses or is killed."""
    # -P keeps the working folder off the module path: a folder named `numpy` there would be imported instead.
    command = [sys.executable, "-P", "-m", "edgeml_runtime.worker"]
    return outcome(job, work(command, job, environment=os.environ, progress=progress))


def work(command: Sequence[str], job: Job, *, environment: Mapping[str, str], progress: Progress) -> Ended:
    """Give a worker, started by `command`, its job, and listen until it has ended; it never outlives this call."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with started(command, env={**environment, **_ENVIRONMENT}, **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stderr is not None
        said: list[str] = []
        reader = threading.Thread(target=_listen, args=(child.stderr, said, progress), daemon=True)
        reader.start()
        try:
            with suppress(BrokenPipeError):  # it died before it read the job: its end says why
                child.stdin.write(encode(job))
                child.stdin.close()
            answer = child.stdout.read()  # sleeps in the kernel until the worker is done
            child.wait()
        finally:
            child.kill()
            reader.join()  # before the pipe that it reads is closed
    return Ended(child.returncode, answer, said)


def outcome(job: Job, ended: Ended) -> Outcome:
    """The worker's answer; raises EdgemlError with its own words where it refused, or with the signal it died of."""
    if ended.code == 0:
        return decode(ended.answer, Outcome, where="the worker's answer")
    if ended.answer:
        refusal = decode(ended.answer, Refusal, where="the worker's answer")
        raise EdgemlError(refusal.message, hint=refusal.hint)
    if ended.code > 0:  # a Python traceback: a bug of ours, shown whole
        raise RuntimeError("the worker failed:\n" + "\n".join(ended.said))
    tail = " | ".join(line.strip() for line in ended.said[-_TAIL_LINES:] if line.strip())
    name = signal.Signals(-ended.code).name
    raise EdgemlError(f"the worker died of {name} on {job.variant}", hint=f"its last words: {tail or 'none'}")


def _listen(stream: IO[str], kept: list[str], progress: Progress) -> None:
    for line in stream:
        found = _PROGRESS.fullmatch(line.rstrip("\n"))
        if found:
            progress(found[3], int(found[1]), int(found[2]))
        else:
            kept.append(line.rstrip("\n"))
