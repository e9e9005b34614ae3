"""Whether two runs may stand side by side: the same data, asked the same way, on machines that do not differ."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from edgeml.errors import EdgemlError
from edgeml.types import Run
from edgeml_runtime.types import Environment, Generate, Record

_ANYWHERE = {"python"}  # changes neither answers nor their cost by anything that we could measure


class Asked(Record, frozen=True, kw_only=True):
    """What decides an answer, or which rows a check tries; names as in `Run`.

    `answers` is the number of rows, and `order` says whether they stand as in their file.
    """

    task: str
    dataset_sha256: str
    reference_sha256: str | None
    limit: int | None
    context_tokens: int
    generate: Generate
    columns: dict[str, str]
    seed: int
    batch_size: int
    answers: int
    order: str


def asked_of(run: Run) -> Asked:
    """What a run was asked."""
    names = [name for name in Asked.__struct_fields__ if name not in ("answers", "order")]
    own = {name: getattr(run, name) for name in names}
    return Asked(**own, answers=len(run.outcome.answers), order=order_of(run.numbers))


def order_of(numbers: Sequence[int]) -> str:
    """How the rows with these places in their file stand, in words; no places are those of the file."""
    return "drawn" if numbers else "that of the file"


def differing_question(ours: Run, theirs: Run) -> list[str]:
    """What the two runs were asked differently, each as `key: ours, not theirs`."""
    return _differing(asked_of(ours), asked_of(theirs))


def differing_machine(ours: Environment, theirs: Environment) -> list[str]:
    """How the two machines differ, each as `key: ours, not theirs`; integer kernels make even answers depend on it."""
    return _differing(ours, theirs, leaving_out=_ANYWHERE)


def require_comparable(ours: Run, theirs: Run) -> None:
    """Raise EdgemlError where a comparison would mean nothing, naming every key that differs."""
    require_same_question(asked_of(ours), theirs)
    require_same_machine(ours.outcome.environment, ours.target, theirs)


def require_same_question(ours: Asked, theirs: Run) -> None:
    """Raise EdgemlError for a run that was asked something else, naming every key that differs."""
    differing = _differing(ours, asked_of(theirs))
    if differing:
        raise EdgemlError(
            f"{theirs.file_name} was asked something else: {'; '.join(differing)}",
            hint="measure both on the same data and with the same options",
        )


def require_same_machine(ours: Environment, target: str, theirs: Run) -> None:
    """Raise EdgemlError for a run of another machine or target, naming every key that differs."""
    differing = differing_machine(ours, theirs.outcome.environment)
    if differing or target != theirs.target:
        what = differing or [_said("target", target, theirs.target)]
        raise EdgemlError(
            f"{theirs.file_name} was measured on another machine: {'; '.join(what)}",
            hint="measure the baseline here, in the same command: --baseline VARIANT",
        )


def _differing(ours: Record, theirs: Record, *, leaving_out: Collection[str] = ()) -> list[str]:
    pairs = {name: (getattr(ours, name), getattr(theirs, name)) for name in ours.__struct_fields__}
    return [_said(name, *pair) for name, pair in pairs.items() if name not in leaving_out and pair[0] != pair[1]]


def _said(key: str, ours: object, theirs: object) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        return ", ".join(f"{name} {ours.get(name, 'missing')}, not {theirs.get(name, 'missing')}" for name in names)
    return f"{key} {_plain(ours)}, not {_plain(theirs)}"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
