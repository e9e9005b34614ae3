"""One of Python's modules, run to its end as a child process, because the library behind it may end its process.

Knows how to follow a child, to end it, and to read what it said when it failed; nothing of what it does.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeml.children import started
from edgeml.errors import EdgemlError

_KEPT_LINES = 200
_SIGKILL = 9  # Windows has no name for it
_DISK_FULL = ("No space left on device", "iostream error")  # Python's words, and what llama.cpp makes of ENOSPC
_TELLING = re.compile(r"error|failed|what\(\)|assert|abort|exception|not supported|invalid|missing", re.IGNORECASE)
_TEMPORARY = ("TMPDIR", "TEMP", "TMP")  # where programs look for the folder of their temporary files
_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",  # a conversion never asks the hub for what a folder lacks
    "GGML_NO_BACKTRACE": "1",  # else llama.cpp starts a debugger when it aborts
    "PYTHONUTF8": "1",
    # glibc gives blocks over this size back to the system when they are freed. By itself it raises that limit to the
    # size of the weights that come and go, and keeps them: 240 MB more at the peak, for a graph of 645 MB (measured).
    "MALLOC_MMAP_THRESHOLD_": str(4 << 20),
}


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    what: str,
    hint: str,
    follow: Callable[[str], None],
    scratch: Path | None = None,
) -> None:
    """Run one of Python's modules to its end; `follow` is told each line that it says.

    Raises EdgemlError with `what` was being done, the last telling line and `hint`, when it fails; its cause holds all
    that was said. The child ends with the call, however that ends, and so do its temporary files, which may be as large
    as the model: they lie in the folder `scratch`, or in the system's own.
    """
    # -P keeps the working folder off the module path: a folder named `gguf` there would be imported instead.
    command = [sys.executable, "-P", "-m", module, *arguments]
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    with (
        TemporaryDirectory(dir=scratch, prefix="edgeml-") as own,
        started(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | _ENVIRONMENT | dict.fromkeys(_TEMPORARY, str(Path(own).absolute())),
        ) as child,
    ):
        assert child.stdout is not None
        for line in child.stdout:
            kept.append(line.rstrip())
            follow(line)
        code = child.wait()
    if code:
        raise _failure(what, hint, code, kept) from RuntimeError("\n".join(kept))


def _failure(what: str, hint: str, code: int, lines: Sequence[str]) -> EdgemlError:
    if any(words in line for line in lines for words in _DISK_FULL):
        return EdgemlError(f"the disk is full: {what} stopped", hint="free some space and run it again")
    if code == -_SIGKILL:
        return EdgemlError(f"{what} was killed, probably for want of memory", hint="close other programs, try again")
    said = [line for line in lines if line]
    telling = [line for line in said if _TELLING.search(line)]
    last = (telling or said or ["it said nothing"])[-1]
    ended = f"by signal {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
    return EdgemlError(f"{what} ended {ended}: {last}", hint=hint)
