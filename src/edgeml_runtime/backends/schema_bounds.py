"""Whether what a JSON Schema counts to is little enough for a grammar, which writes every count out.

llama.cpp's parser ends the process on a grammar that is nested some 100000 deep, which
`{"type": "string", "maxLength": 100000}` becomes, and larger counts take all memory before that. The endpoint is
stricter still with what its clients send.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from edgeml_runtime.errors import EdgemlError

MOST = 1000  # llama.cpp refuses grammars that repeat more than some 1000 times
_MOST_IN_PATTERN = 10_000  # characters, once a pattern's counts are written out
_MOST_PLACES = 128  # at which a letter may stand next: some 10 ms a token, and that grows by the cube
_COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SINGLE = (
    *("items", "additionalProperties", "additionalItems", "unevaluatedItems", "unevaluatedProperties", "contains"),
    *("propertyNames", "not", "if", "then", "else"),
)
_WHOLE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}", re.DOTALL)  # an escape, a set of letters, a count
_REPEATED = re.compile(r"\{([^}]*)\}|[?*+]")
_NO_DIGIT = re.compile(r"\D")  # the converter's numbers may have a sign, blanks and underscores in them


class Written(NamedTuple):
    """A part of a regular expression with its counts written out: its characters, and whether nothing at all fits it.

    `first` are the places of it at which a text may begin, `most` those at which the next letter may stand at once
    where parts are left out, and `tail` the same after one of its letters, where all the rest may be left out.
    """

    size: int
    empty: bool
    first: int
    most: int
    tail: int


_NOTHING = Written(size=0, empty=True, first=0, most=1, tail=0)
_LETTER = Written(size=1, empty=False, first=1, most=1, tail=0)


def check_bounds(schema: Any) -> None:
    """Raise EdgemlError for a schema whose counts are beyond what a grammar can hold."""
    for part in schemas_in(schema):
        for key in _COUNTS:
            if isinstance(count := part.get(key), int | float) and not 0 <= count <= MOST:
                problem = f"the schema counts to {count} by {key}, and a grammar to {MOST}"
                raise EdgemlError(problem, hint=f"leave {key} out, or ask for 0 to {MOST}")
        if isinstance(pattern := part.get("pattern"), str):
            _check_pattern(pattern)


def schemas_in(schema: Any) -> Iterator[dict[str, Any]]:
    """A schema and every one in it or that it refers to; what stands in `default` or `const` is none, but a value."""
    pending, seen = [schema], set()
    while pending:
        part = pending.pop()
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        pending += [part.get(key) for key in _SINGLE]
        pending.append(_referred(schema, part.get("$ref")))
        for inner in (part.get(key) for key in (*_OF_NAMES, *_LISTS, "items")):
            pending += inner.values() if isinstance(inner, dict) else inner if isinstance(inner, list) else ()


def _referred(schema: Any, reference: Any) -> Any:
    """What a reference leads to, which may be any place of the schema; None where it leads to nothing in it."""
    if not isinstance(reference, str) or not reference.startswith("#/"):
        return None
    for key in reference.split("/")[1:]:
        schema = schema.get(key) if isinstance(schema, dict) else None
    return schema


def _check_pattern(pattern: str) -> None:
    written = written_out(pattern)
    if written.size > _MOST_IN_PATTERN:
        problem = f"the pattern {pattern[:60]!r} stands for too many characters to become a grammar"
        raise EdgemlError(problem, hint="count less in it, such as [a-z]+ for [a-z]{1,5000}")
    if written.most > _MOST_PLACES:
        problem = f"the pattern {pattern[:60]!r} repeats what may be left out too often to become a grammar"
        raise EdgemlError(problem, hint="write [a-z]{0,100} for ([a-z]?){100}")
    rest = _WHOLE.sub("", pattern)
    if "]" in rest or "}" in rest:  # at which the converter never ends
        problem = f"the pattern {pattern[:60]!r} closes a bracket that nothing opened"
        raise EdgemlError(problem, hint="write \\] or \\} for the character itself")


def written_out(pattern: str) -> Written:
    """What a regular expression amounts to, with what stands before a count as often as that says."""
    groups, place = [_Group()], 0  # those that are open
    while place < len(pattern):
        letter, repeated = pattern[place], _REPEATED.match(pattern, place)
        if repeated:
            groups[-1].repeat(repeated)
            place = repeated.end()
            continue
        if letter == "(":
            groups.append(_Group())
        elif letter == ")" and len(groups) > 1:
            closed = groups.pop().whole()
            groups[-1].add(closed)
        elif letter == "|":
            groups[-1].other()
        else:
            groups[-1].add(_LETTER)
        place = _end(pattern, place)
    whole = groups.pop().whole()
    while groups:  # that nothing closes
        groups[-1].add(whole)
        whole = groups.pop().whole()
    return whole


class _Group:
    """What has been read of a group: its finished alternatives, the one that goes on, and the last part of that."""

    def __init__(self) -> None:
        self._others: Written | None = None
        self._before = self._last = _NOTHING

    def add(self, part: Written) -> None:
        """One more part."""
        self._before, self._last = _followed(self._before, self._last), part

    def repeat(self, count: re.Match[str]) -> None:
        """The last part as often as a count says, or a sign, which is no more to write."""
        numbers = [_NO_DIGIT.sub("", one)[:7] for one in (count[1] or "").split(",")]
        least = int(numbers[0] or 0) if count[1] is not None else int(count[0] == "+")
        times = max(int(one or 1) for one in numbers)
        size, empty, first, most, tail = self._last
        if empty:  # so that any of the copies may be the next
            most, tail = max(most, first * times), tail + first * (times - 1)
            first *= times
        elif tail:
            most = max(most, tail + first)
        self._last = Written(size * times, empty or not least, first, most, tail)

    def other(self) -> None:
        """Another alternative begins."""
        self._others = self.whole()
        self._before = self._last = _NOTHING

    def whole(self) -> Written:
        """All of it."""
        one, others = _followed(self._before, self._last), self._others
        if others is None:
            return one
        most, tail = max(one.most, others.most), max(one.tail, others.tail)
        return Written(one.size + others.size, one.empty or others.empty, one.first + others.first, most, tail)


def _followed(one: Written, next: Written) -> Written:
    """One part and the next."""
    run = one.tail + next.first if one.tail else 1
    begun = one.first + next.first if one.empty else one.first
    most = max(one.most, next.most, run, begun if one.first and one.empty else 1)
    tail = max(next.tail, one.tail + next.first) if next.empty else next.tail
    return Written(one.size + next.size, one.empty and next.empty, begun, most, tail)


def _end(pattern: str, place: int) -> int:
    """Where the next part begins: an escaped letter and a set of letters are one."""
    if pattern[place] == "\\":
        return place + 2
    if pattern[place] != "[":
        return place + 1
    place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
