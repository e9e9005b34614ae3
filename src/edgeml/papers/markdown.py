"""Pieces of Markdown that the cards share. A cell's text comes from files of others: it ends no cell and no line."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def cell(value: object) -> str:
    """A value as one cell's text."""
    return " ".join(str(value).split()).replace("|", "\\|")


def table(titles: Sequence[str], rows: Iterable[Sequence[object]], right: Sequence[str] = ()) -> list[str]:
    """The lines of a table; the columns of those titles are set to the right."""
    rules = ["---:" if title in right else "---" for title in titles]
    return [_row(titles), f"|{'|'.join(rules)}|", *(_row([cell(value) for value in row]) for row in rows), ""]


def facts(rows: Iterable[tuple[str, object]]) -> list[str]:
    """A table of names and values without a title."""
    return ["| | |", "|---|---|", *(f"| {name} | {cell(value)} |" for name, value in rows), ""]


def bounds(low: float | None, high: float | None, level: float | None) -> str:
    """An interval with its level; empty where there is none."""
    return "" if low is None or high is None or level is None else f"{low:.6g} to {high:.6g} ({level:.0%})"


def _row(cells: Iterable[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
