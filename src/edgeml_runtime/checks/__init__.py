"""What is tried beside the answers: whether they stay the same when something changes that should not matter.

One module a check; each gives one value a row, so that checks can be sliced and paired like any metric.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol, cast

from edgeml_runtime.errors import unknown

if TYPE_CHECKING:
    from edgeml_runtime.session import Session
    from edgeml_runtime.tasks import Answers, Tick
    from edgeml_runtime.types import Job

NAMES: tuple[str, ...] = ()


class Check(Protocol):
    """One module a check."""

    def run(self, session: Session, job: Job, answers: tuple[Any, ...], tick: Tick) -> Answers:
        """Samples with one value a row (`unit_of_sample` is `row`), and warnings; `values` stays empty."""


def check_of(name: str) -> Check:
    """The module of a check, by its name; an unknown one is refused with the nearest known."""
    if name not in NAMES:
        raise unknown("check", name, NAMES, plural="checks")
    return cast("Check", import_module(f"edgeml_runtime.checks.{name.replace('-', '_')}"))
