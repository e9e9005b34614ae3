"""Text classification, judged by the share of right labels, and by the F1 of each label with all labels equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgeml.scores import Score, as_text, known_label, score, share
from edgeml_runtime.types import Generate, Row

GOLD = "label"
HEADLINE = "accuracy"


def read_gold(rows: Sequence[Row]) -> tuple[str, ...]:
    """The label of each row."""
    return tuple(as_text(row[GOLD]) for row in rows)


def named(gold: Sequence[str], labels: Sequence[str]) -> tuple[str, ...]:
    """The right answers as the model's own labels, which may also be given by their place, such as `3` or `LABEL_3`."""
    return tuple(known_label(label, labels, row) for row, label in enumerate(gold, 1))


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:  # noqa: ARG001 - one signature for all
    """`accuracy`, and `macro_f1`: the mean over labels of the harmonic mean of precision and recall.

    As scikit-learn's `f1_score(average="macro")`, over the labels that are in the data or were answered.
    """
    if not gold:
        return []
    given = [answer["label"] for answer in answers]
    places = {label: place for place, label in enumerate(sorted({*given, *gold}))}
    columns = [[places[label] for label in given], [places[label] for label in gold]]
    right = [one == want for one, want in zip(given, gold, strict=True)]
    return [share(HEADLINE, right), score("macro_f1", columns, "macro_f1", macro_f1)]


def essence(answer: Any) -> str:
    """The label."""
    return str(answer["label"])


def macro_f1(given: Any, wanted: Any) -> Any:
    """The mean F1 over the labels, whole numbers from 0, that either column holds, over the last axis."""
    import numpy as np

    given, wanted = given.astype(np.intp), wanted.astype(np.intp)
    labels = int(max(given.max(initial=0), wanted.max(initial=0))) + 1
    right = _counts(np.where(given == wanted, wanted, labels), labels + 1)[..., :labels]
    both = _counts(given, labels) + _counts(wanted, labels)  # twice the right ones, and once each of the wrong ones
    with np.errstate(invalid="ignore"):
        return np.nanmean(2 * right / both, axis=-1)


def _counts(column: Any, labels: int) -> Any:
    """How often each label is in each row of `(..., n)`: `(..., labels)`."""
    import numpy as np

    rows = column.reshape(-1, column.shape[-1])
    places = rows + np.arange(len(rows))[:, None] * labels
    return np.bincount(places.ravel(), minlength=len(rows) * labels).reshape(*column.shape[:-1], labels)
