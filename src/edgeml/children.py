"""Child processes that never outlive the work that they were started for, however that work ends.

Windows has neither signal masks nor process groups to kill: there a signal in the midst of starting a child may leave
it, and what the child has started stays. Not yet run there.
"""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# The signals that end a process by a user's wish; Windows has no SIGHUP.
ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A child whose streams are UTF-8 text; when the block ends it has ended, or is killed.

    Call its `wait` for its own exit code. Signals that end this process wait until the child is known here: one in the
    midst of starting it would leave a child that nobody ends. The child itself never hears them, since its parent ends
    it. With `start_new_session`, what the child has started ends with it.
    """
    release = _held()
    try:
        child = subprocess.Popen(command, encoding="utf-8", errors="replace", **options)
    except BaseException:
        release()
        raise
    with child:
        try:
            release()
            yield child
        finally:
            _end(child, with_its_own=options.get("start_new_session", False))


def _held() -> Callable[[], None]:
    """Hold back the signals that end this process; what is returned lets them go, and those that came are heard then.

    A mask is what a child inherits, but it holds for one thread alone: the system gives a signal to another one, and
    Python has it handled in the main thread all the same. So that there the handlers wait, too.
    """
    came: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.signal(number, lambda number, _: came.append(number)) for number in ENDING}
    masks = hasattr(signal, "pthread_sigmask")
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ENDING) if masks else ()

    def release() -> None:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if masks:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number in came:
            signal.raise_signal(number)

    return release


def _end(child: subprocess.Popen[str], *, with_its_own: bool) -> None:
    if child.poll() is None:
        if with_its_own and hasattr(os, "killpg"):
            os.killpg(child.pid, signal.SIGKILL)
        else:
            child.kill()
        child.wait()  # at Ctrl-C, `with` would give up on it after a quarter of a second and leave it to nobody
