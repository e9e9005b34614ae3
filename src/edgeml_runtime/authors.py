"""Texts that know who wrote each of their characters, whatever is done to them. Knows nothing about tokens.

What is cut out of such a text, or joined to it, knows it too. Where characters cannot be followed (JSON, a change of
case that makes them more), the whole result belongs to the least trusted of all who wrote any part of what it was made
of. So nobody's words can pass for those of somebody who is trusted more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Any

ANYBODY, ASSISTANT, TEMPLATE = range(3)  # ever more trusted
_LETTERS = 4096  # whose texts of one letter are shared: a list of a text's letters is little longer than the text


class Traced(str):
    """A text and the author of each character. Plain texts that are joined to it count as anybody's."""

    __slots__ = ("_authors",)
    _authors: bytes

    def __new__(cls, text: str, author: int = ANYBODY) -> Traced:
        return cls._of(text, bytes((author,)) * len(text))

    @classmethod
    def _of(cls, text: str, authors: bytes) -> Traced:
        made = super().__new__(cls, text)
        made._authors = authors
        return made

    def __str__(self) -> str:
        return self  # else the authors would be forgotten

    def __getitem__(self, key: Any) -> Traced:
        if isinstance(key, slice):
            return self._of(super().__getitem__(key), self._authors[key])
        return _letter(super().__getitem__(key), self._authors[key])

    def __iter__(self) -> Iterator[Traced]:
        return map(_letter, super().__iter__(), self._authors)

    def __add__(self, other: object) -> Traced:
        return joined((self, other)) if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> Traced:
        return joined((other, self)) if isinstance(other, str) else NotImplemented

    def strip(self, letters: str | None = None, /) -> Traced:
        """Without the letters, or white space, at both ends."""
        return self.lstrip(letters).rstrip(letters)

    def lstrip(self, letters: str | None = None, /) -> Traced:
        """Without them at the beginning."""
        return self[len(self) - len(super().lstrip(letters)) :]

    def rstrip(self, letters: str | None = None, /) -> Traced:
        """Without them at the end."""
        return self[: len(super().rstrip(letters))]

    def removeprefix(self, prefix: str, /) -> Traced:
        """Without a beginning."""
        return self[len(prefix) :] if self.startswith(prefix) else self

    def removesuffix(self, suffix: str, /) -> Traced:
        """Without an end."""
        return self[: len(self) - len(suffix)] if self.endswith(suffix) else self

    def split(self, sep: str | None = None, maxsplit: int = -1) -> list[Traced]:  # type: ignore[override]
        """The parts between separators."""
        return self._parts(super().split(sep, maxsplit), sep)

    def rsplit(self, sep: str | None = None, maxsplit: int = -1) -> list[Traced]:  # type: ignore[override]
        """The same from the end."""
        return self._parts(super().rsplit(sep, maxsplit), sep)

    def splitlines(self, keepends: bool = False) -> list[Traced]:  # type: ignore[override] # noqa: FBT001, FBT002
        """The lines."""
        return self._parts(super().splitlines(keepends), None)

    def replace(self, old: str, new: str, count: int = -1, /) -> Traced:  # type: ignore[override]
        """With another text in place of each of those."""
        text = super().replace(old, new, count)
        if not old:
            return Traced(text, author_of((self, new)))
        pieces, start = list[bytes](), 0
        while count != len(pieces) and (place := self.find(old, start)) >= 0:
            pieces.append(self._authors[start:place])
            start = place + len(old)
        return self._of(text, _authors(new).join((*pieces, self._authors[start:])))

    def join(self, parts: Iterable[str], /) -> Traced:
        """The parts with this text between them."""
        return joined(parts, self)

    def lower(self) -> Traced:
        """In small letters."""
        return self._changed(super().lower())

    def upper(self) -> Traced:
        """In capitals."""
        return self._changed(super().upper())

    def capitalize(self) -> Traced:
        """With a capital at the beginning."""
        return self._changed(super().capitalize())

    def title(self) -> Traced:
        """With a capital at the beginning of each word."""
        return self._changed(super().title())

    def _changed(self, text: str) -> Traced:
        # A change of case never leaves letters out, so that each stands where it stood if there are as many as before.
        return self._of(text, self._authors) if len(text) == len(self) else Traced(text, author_of(self))

    def _parts(self, parts: list[str], separator: str | None) -> list[Traced]:
        """The parts as they follow each other; white space between them is no part of any."""
        found, start = [], 0
        for part in parts:
            place = start if separator is not None else self.find(part, start)
            found.append(self[place : place + len(part)])
            start = place + len(part) + len(separator or "")
        return found


def joined(parts: Iterable[str], by: str = "") -> Traced:
    """The parts, with a text between them."""
    parts = list(parts)
    return Traced._of(str.join(by, parts), _authors(by).join(map(_authors, parts)))


def traced(value: Any) -> Traced:
    """The value's text."""
    return value if isinstance(value, Traced) else Traced(str(value), author_of(value))


def author_of(value: Any) -> int:
    """The least trusted author of a value: anybody where it is not known.

    Numbers are the template's, and so is a text without characters.
    """
    waiting, found = [value], TEMPLATE
    while waiting and found > ANYBODY:
        one = waiting.pop()
        if isinstance(one, Traced):
            found = min(found, min(one._authors, default=TEMPLATE))
        elif isinstance(one, dict):
            waiting += [part for pair in one.items() for part in pair]
        elif isinstance(one, list | tuple):
            waiting += one
        elif one is not None and not isinstance(one, int | float | slice):
            return ANYBODY
    return found


def _authors(text: str) -> bytes:
    return text._authors if isinstance(text, Traced) else bytes((ANYBODY,)) * len(text)


@lru_cache(_LETTERS)
def _letter(letter: str, author: int) -> Traced:
    return Traced(letter, author)
