"""Small files in which a kernel tells one thing each: a text or a number, None where it does not tell."""

from __future__ import annotations

from pathlib import Path


def text(path: Path) -> str | None:
    """What a file says, without what stands around it; None where it is missing, empty or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0 \n") or None
    except OSError:
        return None


def number(path: Path) -> int | None:
    """The whole number that a file holds; None where it holds none."""
    found = text(path)
    return int(found) if found and found.lstrip("-").isdecimal() else None
