"""What a model is asked to do. One module a task, named as the Hub names it; answers are scored elsewhere."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, Literal, Protocol, TypeVar, cast

from edgeml_runtime.errors import unknown
from edgeml_runtime.rows import check_texts
from edgeml_runtime.session import Session
from edgeml_runtime.types import Absent, Generate, Job, Record, Row, Samples, Vectors

T = TypeVar("T")
NAMES = (
    "automatic-speech-recognition",
    "feature-extraction",
    "image-classification",
    "perplexity",
    "sentence-similarity",
    "text-classification",
    "text-generation",
    "text2text-generation",
    "token-classification",
)

# What is repeated while energy is read: by the kind of window, a call that does some and says how many units it did.
Work = dict[Literal["steady", "prefill", "decode"], Callable[[], int]]


class Tick(Protocol):
    """Told how many of a step's units are done; called between measurements, never inside one."""

    def __call__(self, step: str, done: int, total: int) -> None: ...


class Answers(Record, frozen=True, kw_only=True):
    """One answer a row, in order, and what was sampled on the way."""

    values: tuple[Any, ...]
    samples: tuple[Samples, ...] = ()
    warnings: tuple[str, ...] = ()
    vectors: Vectors | None = None
    absent: tuple[Absent, ...] = ()


class Task(Protocol):
    """One module a task; `cost` is timed alone, `answers` may batch and take its time.

    `STEADY_IN_ANSWERS` says that the answers themselves are the plain use whose memory and time are measured.

    A module may also say how its answers follow from others', for the checks: `again(session, job, changed, tick)`
    answers changed rows, each given with the index of the row that it replaces, where an answer depends on other rows;
    `from_vectors(session, job, found)` are the answers that vectors stand for, one a text of `texts_of`, where that is
    all that they depend on; `together(session, items)` are such vectors of one batch, where texts are not just embedded
    or classified.
    """

    COLUMNS: tuple[str, ...]
    DEFAULT_REPEATS: int
    STEADY_IN_ANSWERS: bool

    def first(self, session: Session, job: Job) -> None:
        """The very first inference of a process."""

    def cost(self, session: Session, job: Job) -> list[Samples]:
        """Steady single-row timings: warm-ups, then repeats."""

    def answers(self, session: Session, job: Job, tick: Tick) -> Answers:
        """The model's answer to every row."""

    def work(self, session: Session, job: Job) -> Work:
        """Whole inferences to repeat: `steady` counts answers, `prefill` tokens read, `decode` tokens written.

        A task that leaves it out has no energy.
        """

    def predict(self, session: Session, row: Row, options: Generate) -> Any:
        """The answer to one row, as plain JSON."""


def shuffled(items: Sequence[T], job: Job) -> list[T]:
    """The items in the order that the job's seed draws: lengths that follow the file's order would look like drift."""
    return random.Random(job.seed).sample(items, len(items))  # noqa: S311 - an order, not a secret


def task_of(name: str) -> Task:
    """The module of a task, by its Hub name; an unknown one is refused with the nearest known."""
    if name not in NAMES:
        raise unknown("task", name, NAMES, plural="tasks")
    return cast("Task", import_module(f"edgeml_runtime.tasks.{name.replace('-', '_')}"))


def work_of(task: Task, session: Session, job: Job) -> Work:
    """What a task repeats while energy is read; empty for a task that names nothing."""
    named: Callable[[Session, Job], Work] | None = getattr(task, "work", None)
    return named(session, job) if named else {}


def ready(name: str, rows: Sequence[Row], where: str) -> list[Row]:
    """Rows of `where`, a file's path, whose columns hold what the task reads.

    That is text, unless the task's module brings them to its own form by a function `ready(rows, where)`. Raises
    EdgemlError for the first row that cannot be.
    """
    task = task_of(name)
    own = getattr(task, "ready", None)
    if own is not None:
        return cast("list[Row]", own(rows, where))
    check_texts(rows, task.COLUMNS, where)
    return list(rows)
