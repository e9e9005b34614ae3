"""Aligned text: columns that give way where the screen is narrow. Knows nothing of what the values mean."""

from __future__ import annotations

from collections.abc import Sequence

from edgeml_runtime.types import Record

WIDTH = 110  # of tables where the output is no terminal
MEGA = 1_000_000
_GAP = 2


class Column(Record, frozen=True, kw_only=True):
    """One column of a table; where the screen is narrow, the largest `rank` goes first, and rank 0 never."""

    title: str
    cells: tuple[str, ...]
    rank: int = 0
    right: bool = False

    @property
    def width(self) -> int:
        """Characters of the widest line."""
        return max(map(len, (*self.title.split("\n"), *self.cells)))


def size(size_bytes: float) -> str:
    """Bytes in decimal megabytes, as shops and the hub count them."""
    return f"{size_bytes / MEGA:.1f} MB" if size_bytes < 1000 * MEGA else f"{size_bytes / MEGA / 1000:.2f} GB"


def fits(columns: Sequence[Column], width: int) -> bool:
    """Whether all columns stand side by side on so many characters."""
    return sum(one.width + _GAP for one in columns) - _GAP <= width


def table(columns: Sequence[Column], width: int) -> str:
    """Aligned text under a rule, with a note of the columns that did not fit."""
    kept, left_out = list(columns), []
    while not fits(kept, width) and any(one.rank for one in kept):
        least = max(kept, key=lambda one: one.rank)
        kept.remove(least)
        left_out.append(least.title.replace("\n", " ").replace(", ", " in "))
    height = max(one.title.count("\n") + 1 for one in kept)
    titles = [one.title.split("\n") for one in kept]
    head = [
        _line(kept, [("", *lines)[max(0, len(lines) + 1 - row)] for lines in titles]) for row in range(height, 0, -1)
    ]
    rule = "─" * (sum(one.width + _GAP for one in kept) - _GAP)
    rows = [_line(kept, cells) for cells in zip(*(one.cells for one in kept), strict=True)]
    note = [f"(no room for: {', '.join(left_out)})"] if left_out else []
    return "\n".join([*head, rule, *rows, *note])


def _line(columns: Sequence[Column], cells: Sequence[str]) -> str:
    padded = [
        f"{cell:>{one.width}}" if one.right else f"{cell:<{one.width}}"
        for one, cell in zip(columns, cells, strict=True)
    ]
    return (" " * _GAP).join(padded).rstrip()


def short(name: str) -> str:
    """A variant's name without its model."""
    return name.partition("/")[2] or name
