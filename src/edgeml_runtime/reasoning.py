"""Finds what a model thinks aloud before it answers, which is no part of the answer.

Reasoning stands between two marks. `<think>` counts in every model; the others, and a closing mark whose opening one
stood in the prompt, only where the model's chat template names them, since an answer may hold such words too.
"""

from __future__ import annotations

from collections.abc import Sequence

Mark = tuple[str, str]
Span = tuple[int, int]
THINK: Mark = ("<think>", "</think>")
# Opening and closing marks as chat templates of published models write them.
MARKS: tuple[Mark, ...] = (
    THINK,
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("<seed:think>", "</seed:think>"),
    ("[THINK]", "[/THINK]"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
)
WORDS = frozenset(word for mark in MARKS for word in mark)


def named_in(template: str) -> tuple[Mark, ...]:
    """The marks of which a chat template names the closing one."""
    return tuple(mark for mark in MARKS if mark[1] in template)


def spans(text: str, named: Sequence[Mark] = (), *, begun: bool = False) -> tuple[Span, ...]:
    """Where in a text reasoning stands, its marks included; up to the end where generation was cut inside it.

    `begun` says that the prompt ended with an opening mark.
    """
    marks = (*named, *(() if THINK in named else (THINK,)))
    closed = min((end for _, closing in named if (end := _end(text, closing, 0)) >= 0), default=None)
    first = _opening(text, 0, marks)
    found: list[Span] = []
    if closed is not None and (first is None or closed <= first[0]):
        found.append((0, closed))
    elif begun:
        found.append((0, len(text)))
    start = found[0][1] if found else 0
    while opening := _opening(text, start, marks):
        end = _end(text, opening[1], opening[0])
        start = len(text) if end < 0 else end
        found.append((opening[0], start))
    return tuple(found)


def visible(text: str, hidden: Sequence[Span]) -> str:
    """The text without the reasoning, and without the white space that stood between the two."""
    if not hidden:
        return text
    starts, ends = [0, *(end for _, end in hidden)], [*(start for start, _ in hidden), len(text)]
    return "".join(text[start:end] for start, end in zip(starts, ends, strict=True)).strip()


def first_visible(text: str, hidden: Sequence[Span]) -> int | None:
    """The place of the first character that is neither reasoning nor blank; None where there is none."""
    blank = (index for index, letter in enumerate(text) if not letter.isspace())
    return next((index for index in blank if not any(start <= index < end for start, end in hidden)), None)


def _opening(text: str, start: int, marks: Sequence[Mark]) -> tuple[int, str] | None:
    """Where the next reasoning begins, and the mark that will close it."""
    found = [(at, closing) for opening, closing in marks if (at := text.find(opening, start)) >= 0]
    return min(found, default=None)


def _end(text: str, closing: str, start: int) -> int:
    """Where a closing mark ends, or -1."""
    at = text.find(closing, start)
    return at if at < 0 else at + len(closing)
