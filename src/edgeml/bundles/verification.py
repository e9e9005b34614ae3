"""What was checked of a bundle, and what was not and why."""

from __future__ import annotations

from typing import Literal

from edgeml.privacy.types import Privacy
from edgeml_runtime.types import Record


class Check(Record, frozen=True, kw_only=True):
    """One check. A check that fails is no record: it refuses the bundle."""

    name: str
    result: Literal["done", "not done"]
    detail: str


class Verification(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.verification/1"):
    """A bundle that no check refused. `signed_by` is the fingerprint of a key that was seen to have signed it."""

    bundle: str
    kind: str
    target: str
    runtime: str
    checks: tuple[Check, ...]
    parts: dict[str, str] = {}
    signed_by: str | None = None
    privacy: Privacy | None = None


def done(name: str, detail: str) -> Check:
    """A check that was passed."""
    return Check(name=name, result="done", detail=detail)


def left_out(name: str, reason: str) -> Check:
    """A check that was not made."""
    return Check(name=name, result="not done", detail=reason)
