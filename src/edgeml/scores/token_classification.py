"""Token classification, judged by whole entities (CoNLL-2003; Tjong Kim Sang and De Meulder), and by single words.

Tags are read as the CoNLL evaluation reads them, and seqeval without its strict mode: `B-` begins an entity, `I-`
continues one of its own type and else begins one, `E-` ends one, `S-` is one by itself, `O` is none. A tag without
such a beginning is that of a type whose neighbours form one entity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.scores import Score, as_text, known_label, score
from edgeml_runtime.errors import counted
from edgeml_runtime.tasks.token_classification import OUTSIDE, items
from edgeml_runtime.types import Generate, Row

GOLD = "tags"
HEADLINE = "entity_f1"


def read_gold(rows: Sequence[Row]) -> tuple[tuple[str, ...], ...]:
    """The tags of each row, one a word; raises EdgemlError for a row that has more or fewer."""
    found = []
    for number, row in enumerate(rows, 1):
        tags = tuple(as_text(tag) for tag in items(row[GOLD]))
        if len(tags) != len(row["tokens"]):
            problem = f"row {number} has {counted(len(tags), 'tag')} for {counted(len(row['tokens']), 'token')}"
            raise EdgemlError(problem, hint='give one tag a token, as a JSON list such as ["O", "B-LOC"]')
        found.append(tags)
    return tuple(found)


def named(gold: Sequence[Sequence[str]], labels: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The right tags as the model's own, which may also be given by their place, such as `3` or `LABEL_3`."""
    return tuple(tuple(known_label(tag, labels, row) for tag in tags) for row, tags in enumerate(gold, 1))


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`entity_f1`: harmonic mean of precision and recall of entities; `token_accuracy`: the share of right tags.

    An entity is right when its type, its first and its last word are. Both are over all rows together.
    """
    if not gold:
        return []
    pairs = [(answer["tags"], list(tags)) for answer, tags in zip(answers, gold, strict=True)]
    found = [(entities(given), entities(wanted)) for given, wanted in pairs]
    spans = [[len(given & wanted), len(given), len(wanted)] for given, wanted in found]
    words = [[sum(map(str.__eq__, given, wanted)), len(wanted)] for given, wanted in pairs]
    return [
        score(HEADLINE, _columns(spans), "f1", f1),
        score("token_accuracy", _columns(words), "share", share_of_all),
    ]


def essence(answer: Any) -> str:
    """The tags, one after the other."""
    return " ".join(answer["tags"])


def entities(tags: Sequence[str]) -> set[tuple[str, int, int]]:
    """Type, first and last word of each entity."""
    return set(_entities(tags))


def f1(right: Any, given: Any, wanted: Any) -> Any:
    """The F1 of counts, over the last axis; NaN where there is neither an entity given nor one wanted."""
    return _ratio(2 * right.sum(axis=-1), given.sum(axis=-1) + wanted.sum(axis=-1))


def share_of_all(right: Any, all: Any) -> Any:
    """The share of counts, over the last axis; NaN where there is nothing to count."""
    return _ratio(right.sum(axis=-1), all.sum(axis=-1))


def _entities(tags: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    start, kind, open_ = 0, "", False
    for place, tag in enumerate([*tags, OUTSIDE]):
        mark, type = _split(tag)
        continues = open_ and mark in "IE" and type == kind
        if not continues:
            if open_:
                yield kind, start, place - 1
            start, kind, open_ = place, type, mark != OUTSIDE
        if open_ and mark in "ES":
            yield kind, start, place
            open_ = False


def _split(tag: str) -> tuple[str, str]:
    """One letter of B, I, E, S and O, and the type, which may be empty."""
    if tag == OUTSIDE:
        return OUTSIDE, ""
    mark, _, type = tag.partition("-")
    return (mark, type) if mark in ("B", "I", "E", "S") else ("I", tag)


def _columns(rows: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    return list(zip(*rows, strict=True))


def _ratio(part: Any, whole: Any) -> Any:
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        return part / whole
