"""What is tried beside the answers: whether they stay the same when something changes that should not matter.

One module a check; each gives one value a row, so that checks can be sliced and paired like any metric.
"""

from __future__ import annotations

import random
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgeml_runtime.errors import unknown
from edgeml_runtime.grounding import NO_JSON, equal, parsed

if TYPE_CHECKING:
    from edgeml_runtime.session import Session
    from edgeml_runtime.tasks import Answers, Tick
    from edgeml_runtime.types import Job

NAMES: tuple[str, ...] = ("batch-invariance", "constrained", "determinism", "sensitivity")
AT_MOST_ROWS = 200  # for checks that run the model several times a row: half a minute on a slow device
_ESSENCE = ("nearest", "label", "tags", "text")  # the key of an answer that holds what it says


class Check(Protocol):
    """One module a check."""

    def run(self, session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:
        """Samples with one value a row (`unit_of_sample` is `row`), warnings, absences; `values` stays empty.

        A check that tries only some rows says so: its `unit_of_sample` is `sampled row`, as `sampled` chooses them.
        """


def check_of(name: str) -> Check:
    """The module of a check, by its name; an unknown one is refused with the nearest known."""
    if name not in NAMES:
        raise unknown("check", name, NAMES, plural="checks")
    return cast("Check", import_module(f"edgeml_runtime.checks.{name.replace('-', '_')}"))


def sampled(job: Job, most: int = AT_MOST_ROWS) -> tuple[list[int], str]:
    """Rows to try, counted from 0 and in order, and what one value of them is: all of them, or as the seed draws."""
    rows = range(len(job.rows))
    if len(rows) <= most:
        return list(rows), "row"
    return sorted(random.Random(job.seed).sample(rows, most)), "sampled row"  # noqa: S311 - a sample, not a secret


def moved(before: Any, after: Any) -> float:
    """1 for another answer than before, 0 for the same; the absolute change of one that is a number."""
    if isinstance(before, float):
        return abs(float(after) - before)
    return float(not equal(_essence(before), _essence(after)))


def _essence(answer: Any) -> Any:
    """The part of an answer that is the same as another's or not: no score, no count of tokens, no spacing of JSON."""
    key = next((key for key in _ESSENCE if isinstance(answer, dict) and key in answer), None)
    if key is None:
        return answer
    return _json(answer[key]) if key == "text" else answer[key]


def _json(text: str) -> Any:
    value = parsed(text)
    return text.strip() if value is NO_JSON else value
