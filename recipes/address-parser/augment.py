"""Other addresses made of labelled ones: parts exchanged, digits changed, ends cut off, punctuation left out.

Only rows of the training split go in, so nothing of dev and test can come out. Every choice is the given generator's.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import Any

Span = tuple[str, list[str]]  # a label and its words

EXCHANGED = 0.3  # of the parts, each by one of the same label from another address
RENUMBERED = 0.3  # of the numbered parts
CUT = 0.1  # of the addresses lose their last part or two
NO_COMMAS, NO_MARKS = 0.2, 0.1  # of the addresses; marks are commas, semicolons and full stops
NUMBERED = frozenset({"AddressNumber", "ZipCode", "USPSBoxID", "OccupancyIdentifier", "USPSBoxGroupID"})
_COMMAS = re.compile(r"[,;]+$")


def spans(tokens: Sequence[str], tags: Sequence[str]) -> list[Span]:
    """The parts of an address: neighbouring words of one label."""
    found: list[Span] = []
    for token, tag in zip(tokens, tags, strict=True):
        if found and found[-1][0] == tag:
            found[-1][1].append(token)
        else:
            found.append((tag, [token]))
    return found


class Augmenter:
    """Makes new addresses of old ones, with the parts of `rows`."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        self._parts: dict[str, list[list[str]]] = {}
        for row in rows:
            for tag, words in spans(row["tokens"], row["tags"]):
                self._parts.setdefault(tag, []).append(words)

    def made(self, row: dict[str, Any], rng: random.Random) -> tuple[list[str], list[str]]:
        """Words and labels of an address that is like `row`."""
        parts = spans(row["tokens"], row["tags"])
        if len(parts) > 3 and rng.random() < CUT:
            parts = parts[: rng.randint(len(parts) - 2, len(parts) - 1)]
        new = [(tag, self._changed(tag, words, rng)) for tag, words in parts]
        words = unmarked([word for _, part in new for word in part], rng)
        return words, [tag for tag, part in new for _ in part]

    def _changed(self, tag: str, words: list[str], rng: random.Random) -> list[str]:
        if rng.random() < EXCHANGED:
            words = _as_marked(rng.choice(self._parts[tag]), words)
        if tag in NUMBERED and rng.random() < RENUMBERED:
            words = [re.sub(r"\d", lambda _: str(rng.randint(0, 9)), word) for word in words]
        return words


def unmarked(words: list[str], rng: random.Random) -> list[str]:
    """Mostly the same words; at times without the commas after them, or without any marks. No word is lost."""
    chance = rng.random()
    if chance < NO_COMMAS:
        return [_COMMAS.sub("", word) or word for word in words]
    if chance < NO_COMMAS + NO_MARKS:
        return [re.sub(r"[.,;]", "", word) or word for word in words]
    return words


def _as_marked(words: list[str], like: list[str]) -> list[str]:
    """The words with the comma that `like` ends in, or with none."""
    comma = _COMMAS.search(like[-1])
    last = _COMMAS.sub("", words[-1]) or words[-1]
    return [*words[:-1], last + (comma[0] if comma else "")]
