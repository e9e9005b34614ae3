"""What a small command of the system says; None where it is missing, late or silent."""

from __future__ import annotations

import shutil
import subprocess

_TIMEOUT_S = 2.0


def said(command: str, *words: str) -> str | None:
    """The command's output without what stands around it, whatever its exit code; None where it says nothing."""
    if shutil.which(command) is None:
        return None
    try:
        done = subprocess.run([command, *words], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None
