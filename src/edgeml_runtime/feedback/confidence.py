"""How sure a model was of an answer, read from the answer itself."""

from __future__ import annotations

from typing import Any

# Why a task has none, told wherever somebody asks for it.
NONE = {
    "automatic-speech-recognition": "a written answer comes without a probability that it is right",
    "feature-extraction": "a vector says nothing of how sure the model is",
    "perplexity": "perplexity is of a whole text, and answers no single rows",
    "sentence-similarity": "a cosine says how alike two texts are, not how sure the model is of that",
    "text-generation": "a written answer comes without a probability that it is right",
    "text2text-generation": "a written answer comes without a probability that it is right",
    "token-classification": "its answers hold a tag a word, without probabilities",
}


def confidence_of(task: str, answer: Any) -> float | None:
    """The probability, from 0 to 1, that the model gives its own answer; None where the answer has none.

    Classifiers answer the likeliest label's softmax. It is no probability of being right: models are often too sure.
    """
    if task in NONE or not isinstance(answer, dict):
        return None
    found = answer.get("score")
    if isinstance(found, bool) or not isinstance(found, int | float):
        return None
    return float(found) if 0 <= found <= 1 else None
