"""Text generation, judged by what a program that reads the answers relies on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score, as_text, share
from edgeml_runtime.types import Generate, Row

GOLD = "expected"
HEADLINE = "exact_match"


def read_gold(rows: Sequence[Row]) -> tuple[str, ...]:
    """The expected answer of each row, as text."""
    return tuple(as_text(row[GOLD]) for row in rows)


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`contract.valid`, and with right answers `exact_match`."""
    found = [share("contract.valid", [_json(answer["text"]) is not None for answer in answers])]
    if gold:
        right = [_matches(answer["text"], str(want)) for answer, want in zip(answers, gold, strict=True)]
        found.append(share(HEADLINE, right))
    return found


def essence(answer: Any) -> str:
    """The text; JSON in one spelling."""
    value = _json(answer["text"])
    return answer["text"].strip() if value is None else as_text(value)


def _matches(text: str, want: str) -> bool:
    ours, theirs = _json(text), _json(want)
    return ours == theirs if theirs is not None else text.strip() == want.strip()


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
