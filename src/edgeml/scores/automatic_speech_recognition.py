"""Speech recognition, judged by how many words, and letters, must be changed to get from the answer to what was said.

`wer` and `cer` are those of the whole data: all insertions, deletions and substitutions over all words, or characters,
that were said, so that a long sound counts more than a short one, and an answer that goes on and on may cost more
than 1. Source: Morris, Maier and Green, "From WER and RIL to MER and WIL", Interspeech 2004. Both are of texts in small
letters without punctuation and signs, as Whisper's own authors compare them in languages other than English (Radford et
al. 2022, appendix C, "basic" normaliser, but for brackets).
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score, score
from edgeml.scores.token_classification import share_of_all
from edgeml_runtime.types import Generate, Row

GOLD = "expected"
HEADLINE = "wer"


def read_gold(rows: Sequence[Row]) -> tuple[str, ...]:
    """What is said in each sound; a silent one has no text, and is left out of the data by its user."""
    return tuple(str(row[GOLD]) for row in rows)


def scores(answers: Sequence[Any], gold: Sequence[str], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`wer` and `cer`: a row has the changes that it needs and the words, or characters, that were said in it."""
    if not gold:
        return []
    pairs = [(plain(answer["text"]), plain(said)) for answer, said in zip(answers, gold, strict=True)]
    words = [(changes(heard.split(), said.split()), len(said.split())) for heard, said in pairs]
    letters = [(changes(heard, said), len(said)) for heard, said in pairs]
    return [
        score(name, list(zip(*rows, strict=True)), "rate", share_of_all)
        for name, rows in ((HEADLINE, words), ("cer", letters))
    ]


def essence(answer: Any) -> str:
    """The text as it is compared."""
    return plain(answer["text"])


def plain(text: str) -> str:
    """The text in small letters, with a space for everything that is neither letter nor digit."""
    letters = unicodedata.normalize("NFKC", text.lower())
    return " ".join("".join(" " if unicodedata.category(one)[0] in "MSP" else one for one in letters).split())


def changes(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """The fewest insertions, deletions and substitutions between two sequences (Levenshtein 1966)."""
    before = list(range(len(theirs) + 1))
    for row, one in enumerate(ours, 1):
        now = [row]
        for place, other in enumerate(theirs, 1):
            now.append(min(before[place] + 1, now[-1] + 1, before[place - 1] + (one != other)))
        before = now
    return before[-1]
