"""Whether the values of a JSON answer were copied from the text that they were read from, or invented.

A value is grounded when it is a span of the input. Both are compared after this normalisation: Unicode NFKC, casefold,
every run of white space one space, punctuation at the value's ends dropped (Unicode categories P*). A span neither
begins nor ends inside a word or a number: "14" is no span of "214", but of "14th", "#14" and "14-A". Scripts without
capitals, of which many put no space between words, have no such ends. Words count only as they stand side by side in
the input.

Numbers are compared as the answer writes them: 12.5 is no span of "12.50". Empty strings, strings of punctuation,
null, true and false do not count, nor do values that the schema names as one of its own (`enum`, `const`).

Knows nothing of models.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

NO_JSON = object()  # stands for a text that is no JSON, since null is
Node = dict[str, Any]


class _Number(str):
    """A number as it was written."""

    __slots__ = ()


def parsed(text: str) -> Any:
    """The JSON value that a text is, or `NO_JSON`. NaN and Infinity, which Python reads, are no JSON."""
    return _parsed(text)


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
        before, after = text[start - 1 : start] + value[:1], value[-1:] + text[end : end + 1]
        if not (_is_inside(before) or _is_inside(after)):
            return True
        start = text.find(value, start + 1)
    return False


def _is_inside(pair: str) -> bool:
    """Whether both characters are letters of a script that has capitals, or both are digits."""
    return len(pair) == 2 and (all(map(str.islower, pair)) or all(map(str.isdecimal, pair)))


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
        return leaf in [json.dumps(one) for one in named]
    return leaf in named


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
