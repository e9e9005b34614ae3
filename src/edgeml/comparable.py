"""Whether two runs may stand side by side: the same data, asked the same way, on machines that do not differ."""

from __future__ import annotations

import msgspec

from edgeml.errors import EdgemlError
from edgeml.types import Run
from edgeml_runtime.types import Environment, Record

_QUESTION = ("task", "dataset_sha256", "reference_sha256", "limit", "context_tokens", "generate", "columns")
_ANYWHERE = {"python"}  # changes neither answers nor their cost by anything that we could measure


def differing_question(ours: Run, theirs: Run) -> list[str]:
    """What the two runs were asked differently, each as `key: ours, not theirs`."""
    return [_said(key, getattr(ours, key), getattr(theirs, key)) for key in _QUESTION if _differ(ours, theirs, key)]


def differing_machine(ours: Environment, theirs: Environment) -> list[str]:
    """How the two machines differ, each as `key: ours, not theirs`; integer kernels make even answers depend on it."""
    keys = [field.name for field in msgspec.structs.fields(Environment) if field.name not in _ANYWHERE]
    return [_said(key, getattr(ours, key), getattr(theirs, key)) for key in keys if _differ(ours, theirs, key)]


def require_comparable(ours: Run, theirs: Run) -> None:
    """Raise EdgemlError where a comparison would mean nothing, naming every key that differs."""
    question = differing_question(ours, theirs)
    if question:
        raise EdgemlError(
            f"{theirs.file_name} was asked something else: {'; '.join(question)}",
            hint="measure both on the same data and with the same options",
        )
    machine = differing_machine(ours.outcome.environment, theirs.outcome.environment)
    if machine or ours.target != theirs.target:
        what = machine or [_said("target", ours.target, theirs.target)]
        raise EdgemlError(
            f"{theirs.file_name} was measured on another machine: {'; '.join(what)}",
            hint="measure the baseline here, in the same command: --baseline VARIANT",
        )


def _differ(ours: Record, theirs: Record, key: str) -> bool:
    return bool(getattr(ours, key) != getattr(theirs, key))


def _said(key: str, ours: object, theirs: object) -> str:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
        return ", ".join(f"{name} {ours.get(name, 'missing')}, not {theirs.get(name, 'missing')}" for name in names)
    return f"{key} {_plain(ours)}, not {_plain(theirs)}"


def _plain(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "none"
    return "unknown" if value is None else str(value)
