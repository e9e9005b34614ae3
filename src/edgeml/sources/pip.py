"""What pip is asked to do, in a child process: mirrors, proxies and certificates that are set for pip hold.

Knows nothing of what a wheel is wanted for.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress

_LOOK_S = 0.2
_UNREACHED = re.compile(r"Retrying \(|NewConnectionError|Could not fetch URL|ProxyError|SSLError|ReadTimeout")


def run_pip(
    arguments: Sequence[str],
    folder: Path,
    *,
    step: str,
    progress: Progress,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run pip with `folder` for its temporary files; progress is the size of the largest of them.

    Raises EdgemlError with pip's own last error line, OSError on a full disk; the child never outlives this call.
    """
    scratch = folder / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    settings = {**os.environ, **(environment or {}), "TMPDIR": str(scratch), "PIP_NO_INPUT": "1"}
    log = folder / "pip.log"
    with log.open("wb") as output:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
        # In a session of its own, so that the compilers that it may start end with it.
        own = {"stdin": subprocess.DEVNULL, "stdout": output, "stderr": output, "start_new_session": True}
        with started(command, env=settings, **own) as child:
            _watch(child, folder, step, progress)
    if child.returncode:
        raise _failed(log.read_text(encoding="utf-8", errors="replace"), arguments[-1])


def _watch(child: subprocess.Popen[str], folder: Path, step: str, progress: Progress) -> None:
    """Report what has grown until the child ends: pip's own progress is not for programs before version 24.1."""
    largest = 0
    while child.poll() is None:
        largest = max(largest, _largest(folder))
        progress(step, largest, 0)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_LOOK_S)


def _largest(folder: Path) -> int:
    try:
        return max((path.stat().st_size for path in folder.rglob("*")), default=0)
    except FileNotFoundError:  # pip moves its files while we look
        return 0


def _failed(log: str, wanted: str) -> Exception:
    if os.strerror(errno.ENOSPC) in log:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    if lines and "No module named pip" in lines[-1]:
        return EdgemlError("this Python has no pip", hint=f"{sys.executable} -m ensurepip")
    errors = [line.partition("ERROR:")[2].strip() for line in lines if line.startswith("ERROR:")]
    last = (errors or lines or ["no output"])[-1]
    if _UNREACHED.search(log):
        hint = "check the network, pip's index and proxy (pip config list), then run it again"
        return EdgemlError(f"pip cannot reach its index for {wanted}: {last}", hint=hint)
    versions = re.search(r"from versions: ([^)]+)\)", log)
    known = versions[1] if versions else "none"
    hint = (
        f"versions with a wheel for this: {known}" if known != "none" else "check the spelling; only wheels are taken"
    )
    return EdgemlError(f"pip cannot get {wanted}: {last}", hint=hint)
