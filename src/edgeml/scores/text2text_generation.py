"""Text to text, judged by whether the answer is the expected one, and by how many letters in a row they share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score, score, share
from edgeml.scores.text_generation import GOLD, HEADLINE, read_gold
from edgeml.stats import statistic_of
from edgeml_runtime.types import Generate

__all__ = ["GOLD", "HEADLINE", "essence", "read_gold", "scores"]


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`exact_match`, but for space around, and `chrf`: the mean over rows of the sentence's chrF2, from 0 to 1.

    Popović, "chrF: character n-gram F-score for automatic MT evaluation", WMT 2015, as sacrebleu computes it.
    """
    if not gold:
        return []
    from sacrebleu.metrics.chrf import CHRF

    pairs = [(answer["text"].strip(), str(want).strip()) for answer, want in zip(answers, gold, strict=True)]
    likeness = [CHRF().sentence_score(text, [want]).score / 100 for text, want in pairs]
    return [
        share(HEADLINE, [text == want for text, want in pairs]),
        score("chrf", [likeness], "mean", statistic_of("mean")),
    ]


def essence(answer: Any) -> str:
    """The text."""
    return str(answer["text"]).strip()
