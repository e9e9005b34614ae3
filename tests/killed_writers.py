"""Writers of feedback: `python killed_writers.py FILE at-random COUNT`, `... at-each-step COUNT`, `... quietly COUNT`.

One process forks them all, which costs little. Each prints the id of what was acknowledged at once, so that the test
knows what must be there. At each step, the kill comes from strace, which ends a child at its STEPS-th write or sync:
the child makes as many idle ones before as it takes that its own i-th is the one.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.feedback.store import FeedbackStore
from edgeml_runtime.feedback.types import Entry

STEPS = 60
LEAST_BYTES = 65_536  # a store of the least size, so that its cap is reached at once


def entry(number, kind="low-confidence", size=3000):
    return Entry(
        kind=kind,
        task="text-classification",
        input={"text": f"number {number} {'x' * size}"},
        answer={"label": "a", "score": 0.4},
        correction="b" if kind == "correction" else None,
        model="tiny/onnx-fp32",
        variant_sha256="0" * 64,
    )


def settings(path, **more):
    return FeedbackSettings(file=str(path), **{"max_bytes": LEAST_BYTES, "item_bytes": 16_000, **more})


def forked(work):
    """The id of a child that does the work, telling what it acknowledges down a pipe; and the pipe."""
    out, into = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(out)
        work(lambda told: os.write(into, f"{told}\n".encode()))
        os._exit(0)
    os.close(into)
    return child, out


def ended(child, out):
    """What it acknowledged, and whether it was killed."""
    with os.fdopen(out) as pipe:
        told = pipe.read().split()
    return told, os.WIFSIGNALED(os.waitpid(child, 0)[1])


def at_random(path, count):
    def work(tell):
        store = FeedbackStore(path, settings(path, max_bytes=1 << 26))
        for number in range(10_000):
            tell(store.add(entry(number, size=random.randrange(1, 6000))))

    killed = []
    for _ in range(count):
        child, out = forked(work)
        time.sleep(random.uniform(0.002, 0.04))
        os.kill(child, signal.SIGKILL)
        killed.append(ended(child, out))
    json.dump({"told": [told for told, _ in killed], "killed": sum(was for _, was in killed)}, sys.stdout)


def at_each_step(path, count):
    """Each on a copy of the file as it is, or on none: one item more, which makes the cap remove others."""
    found = []
    for step in range(1, count + 1):
        own = path.with_name(f"{path.name}.{step}")
        if path.exists():
            shutil.copyfile(path, own)
        idle = os.open(os.devnull, os.O_WRONLY)

        def work(tell, own=own, step=step, idle=idle):
            for _ in range(STEPS - step):
                os.pwrite(idle, b"", 0)
            store = FeedbackStore(own, settings(own))
            tell(store.add(entry(step, size=9000)))

        told, was_killed = ended(*forked(work))
        found.append({"told": told, "killed": was_killed})
    json.dump(found, sys.stdout)


def quietly(path, count):
    """So many items, of which each is promised when it was acknowledged; nobody is killed."""
    draw, store = random.Random(0), FeedbackStore(path, settings(path))
    for number in range(count):
        os.write(1, f"ack {store.add(entry(number, size=draw.randrange(1, 6000)))}\n".encode())


if __name__ == "__main__":
    {"at-random": at_random, "at-each-step": at_each_step, "quietly": quietly}[sys.argv[2]](
        Path(sys.argv[1]), int(sys.argv[3])
    )
