"""Keeps control words in what was said words, by a mark inside each that is taken out before they become tokens."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from edgeml_runtime.errors import UnfitError
from edgeml_runtime.session import Said

_MARKS = tuple(map(chr, range(0xE000, 0xF900)))  # Unicode's private use area: no text means these


def free_mark(turns: Sequence[Said]) -> str:
    """A character that stands in none of the turns; raises UnfitError where there is none."""
    free = (mark for mark in _MARKS if not any(mark in turn.words for turn in turns))
    mark = next(free, None)
    if mark is None:
        raise UnfitError("the text uses every character of the private use area", hint="leave one of them out")
    return mark


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """What finds one of the words; one of a single letter is none that could be broken."""
    return re.compile("|".join(re.escape(word) for word in words if len(word) > 1) or r"(?!)")


def broken(text: str, words: re.Pattern[str], mark: str) -> str:
    """The text with a mark inside every control word."""
    found = 1
    while found:  # what is left of words that overlapped
        text, found = words.subn(lambda word: word[0][0] + mark + word[0][1:], text)
    return text
