"""Whether the values of a JSON answer were copied from the text that they were read from, or invented.

A value is grounded when it is a span of the input. Both are compared after this normalisation: Unicode NFKC, casefold,
every run of white space one space, punctuation at the value's ends dropped (Unicode categories P*). A span neither
begins nor ends inside a word or a number: "14" is no span of "214", but of "14th", "#14" and "14-A". Scripts without
capitals, of which many put no space between words, have no such ends. Words count only as they stand side by side in
the input.

Digits joined by `.`, `,` or an apostrophe are one number where they are written as one: two groups with a point or a
comma between them ("12.5", "12,50"), or groups of thousands, with or without a fraction ("1,250.00", "1.250,00",
"1'250", "1,00,000"). So "250" is no span of "1,250.00". Other rows of digits are parts that each stand for themselves:
those of dates ("26.11.2026", "2026-11-26"), times, versions, and whatever a hyphen, a slash or a space joins
("62701-1234", "14-A", "1 250").

Numbers are compared as the answer writes them: 12.5 is no span of "12.50". Empty strings, strings of punctuation,
null, true and false do not count, nor do values that the schema names as one of its own (`enum`, `const`).

Knows nothing of models.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

NO_JSON = object()  # stands for a text that is no JSON, since null is
Node = dict[str, Any]
# Points, commas, apostrophes and Arabic's own separators between digits.
_DIGITS = re.compile(r"\d+(?:[.,'\u2019\u066b\u066c]\d+)*")
_NUMBER = re.compile(r"\d+(?:[.,\u066b]\d+)?|\d{1,3}([.,'\u2019\u066c])(?:\d{2,3}\1)*\d{3}(?:[.,\u066b]\d+)?")
_STEP = re.compile(r"\.|\[\d+\]")  # between the names of a place such as lines[0].price


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def parsed(text: str) -> Any:
    """The JSON value that a text is, or `NO_JSON`. NaN and Infinity, which Python reads, are no JSON."""
    return _parsed(text)


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0, but neither is true, whatever Python says."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


def named_place(place: str, schema: Any) -> str | None:
    """The names of a place, such as `lines.price`, where a schema names every one; a model may name a key anything.

    So an answer's own key, which may be a customer's name, is never told.
    """
    names = [name for name in _STEP.split(place) if name]
    return ".".join(names) if names and set(names) <= _properties(schema) else None


def ungrounded(answer: str, source: str, schema: Node | None = None) -> list[tuple[str, str]]:
    """The values of a JSON answer that are no span of `source`, each with its place, such as `lines[0].price`.

    Empty where all are grounded, and for an answer that is no JSON.
    """
    value = _parsed(answer, parse_int=_Number, parse_float=_Number)
    text, root = normalised(source), schema or {}
    return [
        (place, str(leaf))
        for place, leaf, nodes in _leaves(value, "", _offers(root, root), root)
        if not _is_named(leaf, nodes) and not is_span(_without_ends(normalised(leaf)), text)
    ]


def normalised(text: str) -> str:
    """NFKC, casefold, and one space for every run of white space, none at the ends."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    return " ".join(folded.split())


def is_span(value: str, text: str) -> bool:
    """Whether a normalised value stands in a normalised text and cuts no word or number there; an empty one does."""
    start = text.find(value)
    while start >= 0:
        end = start + len(value)
        if not (_cuts(text, start) or _cuts(text, end)):
            return True
        start = text.find(value, start + 1)
    return False


def _cuts(text: str, place: int) -> bool:
    """Whether a place between two characters is inside a word of a script that has capitals, or inside a number."""
    pair = text[place - 1 : place + 1] if place else ""
    if len(pair) < 2:
        return False
    if all(map(str.islower, pair)) or all(map(str.isdecimal, pair)):
        return True
    return any(map(str.isdecimal, pair)) and any(
        found.start() < place < found.end() and _NUMBER.fullmatch(found[0]) for found in _DIGITS.finditer(text)
    )


def _without_ends(text: str) -> str:
    kept = [index for index, letter in enumerate(text) if not (letter == " " or _is_punctuation(letter))]
    return text[kept[0] : kept[-1] + 1] if kept else ""


def _is_punctuation(letter: str) -> bool:
    return unicodedata.category(letter).startswith("P")


def _parsed(text: str, **readers: Any) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(word)

    try:
        return json.loads(text, parse_constant=refuse, **readers)
    except (ValueError, RecursionError):
        return NO_JSON


def _leaves(value: Any, place: str, nodes: list[Node], root: Node) -> Iterator[tuple[str, str, list[Node]]]:
    """Every string and number of a value, with its place and the parts of the schema that speak of it."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, f"{place}.{key}" if place else key, _children(nodes, key, root), root)
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _leaves(child, f"{place}[{index}]", _items(nodes, index, root), root)
    elif isinstance(value, str):
        yield place, value, nodes


def _is_named(leaf: str, nodes: list[Node]) -> bool:
    named = [one for node in nodes for one in (*node.get("enum", ()), *([node["const"]] if "const" in node else []))]
    if isinstance(leaf, _Number):
        return any(equal(json.loads(leaf), one) for one in named)
    return leaf in named


def _properties(schema: Any) -> set[str]:
    """Every name of a property in a JSON Schema."""
    if isinstance(schema, list):
        return {name for part in schema for name in _properties(part)}
    if not isinstance(schema, dict):
        return set()
    own = schema.get("properties")
    return {*(own if isinstance(own, dict) else ()), *(name for part in schema.values() for name in _properties(part))}


def _children(nodes: list[Node], key: str, root: Node) -> list[Node]:
    return [
        offer
        for node in nodes
        for offer in _offers(node.get("properties", {}).get(key, node.get("additionalProperties")), root)
    ]


def _items(nodes: list[Node], index: int, root: Node) -> list[Node]:
    found: list[Node] = []
    for node in nodes:
        first: Sequence[Any] = node.get("prefixItems", ())
        found += _offers(first[index] if index < len(first) else node.get("items"), root)
    return found


def _offers(node: Any, root: Node) -> list[Node]:
    """A part of a schema and all parts that it refers to or offers as choices."""
    found: list[Node] = []
    ahead = [node]
    while ahead:
        one = ahead.pop()
        if isinstance(one, dict) and not any(one is known for known in found):
            found.append(one)
            ahead += [choice for word in ("allOf", "anyOf", "oneOf") for choice in one.get(word, ())]
            ahead += [one.get("then"), one.get("else"), local(one.get("$ref"), root)]
    return found


def local(reference: Any, root: Node) -> Any:
    """The part of a schema that `#/...` points to; None where it points elsewhere or nowhere."""
    if not isinstance(reference, str) or not reference.startswith("#"):
        return None
    found: Any = root
    for step in filter(None, reference[1:].split("/")):
        key = step.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict):
            found = found.get(key)
        else:
            return None
    return found
