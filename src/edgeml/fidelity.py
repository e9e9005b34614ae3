"""How alike a variant and its baseline answer the same rows: what can be told without any right answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeml.errors import EdgemlError
from edgeml.scores import Score, score, scorer_of, scores_by_baseline, share
from edgeml.scores.sentence_similarity import spearman
from edgeml.stats import statistic_of
from edgeml.types import Run

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml_runtime.types import Vectors


def fidelity(run: Run, baseline: Run) -> list[Score]:
    """What compares the two runs' answers, one value a row; empty where the task gives no answers.

    `fidelity.agreement` is the share of rows with the same answer, where answers are the same or not;
    `fidelity.spearman` the rank correlation of the two runs' cosines of pairs; `fidelity.cosine` the mean cosine of
    both runs' vectors of a text, a row's texts averaged. Then what the baseline's answers show to be demanded of the
    run's, such as the keys of JSON, where those alone would not. Raises EdgemlError where nothing pairs the rows of the
    two.
    """
    _require_same_rows(run, baseline)
    if not run.outcome.answers:
        return []
    found = [_agreement(run, baseline), _ranks(run, baseline), _cosines(run, baseline)]
    return [*(one for one in found if one is not None), *_demanded(run, baseline)]


def essences(run: Run) -> list[str] | None:
    """The part of each answer that is the same as another's or not; None where answers only differ by degree."""
    essence = scorer_of(run.task).essence
    found = [part for part in (essence(answer) for answer in run.outcome.answers) if part is not None]
    return found if len(found) == len(run.outcome.answers) else None


def _require_same_rows(run: Run, baseline: Run) -> None:
    ours, theirs = ((one.task, one.dataset_sha256, len(one.outcome.answers)) for one in (run, baseline))
    if ours != theirs:
        raise EdgemlError(
            f"{run.variant} and {baseline.variant} answered different rows: nothing pairs them",
            hint="measure both on the same data, with the same --task and --limit",
        )


def _agreement(run: Run, baseline: Run) -> Score | None:
    ours, theirs = essences(run), essences(baseline)
    if ours is None or theirs is None:
        return None
    return share("fidelity.agreement", [one == other for one, other in zip(ours, theirs, strict=True)])


def _ranks(run: Run, baseline: Run) -> Score | None:
    if run.task != "sentence-similarity":
        return None
    columns = (run.outcome.answers, baseline.outcome.answers)
    return score("fidelity.spearman", columns, "spearman", spearman)


def _cosines(run: Run, baseline: Run) -> Score | None:
    ours, theirs = run.outcome.vectors, baseline.outcome.vectors
    if ours is None or theirs is None:
        return None
    if ours.width != theirs.width:
        raise EdgemlError(
            f"vectors of {run.variant} are {ours.width} wide, those of {baseline.variant} {theirs.width}",
            hint="compare variants of one model",
        )
    cosines = (_unit(ours) * _unit(theirs)).sum(axis=1)
    by_row = cosines.reshape(len(run.outcome.answers), -1).mean(axis=1)
    return score("fidelity.cosine", [by_row.tolist()], "mean", statistic_of("mean"))


def _demanded(run: Run, baseline: Run) -> list[Score]:
    return scores_by_baseline(run.task, run.outcome.answers, run.gold, run.generate, baseline.outcome.answers)


def _unit(vectors: Vectors) -> NDArray[np.float64]:
    """`(texts, width)`, each of length 1."""
    import numpy as np

    rows = np.frombuffer(vectors.data, dtype="<f2").reshape(-1, vectors.width).astype(np.float64)
    found: NDArray[np.float64] = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return found
