"""Child processes that never outlive the work that they were started for, however that work ends."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child in text mode; when the block ends it has ended, or is killed. Call its `wait` for its own exit code.

    Signals that end this process wait until the child is known here: one in the midst of starting it would leave a
    child that nobody ends. The child itself never hears them, since its parent ends it. With `start_new_session`, what
    the child has started ends with it.
    """
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        child = subprocess.Popen(command, text=True, **options)
    except BaseException:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        raise
    with child:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            yield child
        finally:
            _end(child, with_its_own=options.get("start_new_session", False))


def _end(child: subprocess.Popen[str], *, with_its_own: bool) -> None:
    if child.poll() is None:
        if with_its_own:
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
