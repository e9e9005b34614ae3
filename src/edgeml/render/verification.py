"""Verifications as text: each check on a line, and why one was not made."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from edgeml.bundles.verification import Check, Verification

_WORD, _NAME = 10, 19


def verifications(found: Sequence[Verification], width: int) -> list[str]:
    """One block a bundle."""
    return ["\n".join([_title(one), *(line for check in one.checks for line in _lines(check, width))]) for one in found]


def _title(one: Verification) -> str:
    return f"{one.bundle} ({one.kind}, for {one.target}, edgeml {one.runtime})"


def _lines(check: Check, width: int) -> list[str]:
    start = f"{check.result:<{_WORD}}{check.name:<{_NAME}}"
    return textwrap.wrap(check.detail, width, initial_indent=start, subsequent_indent=" " * (_WORD + _NAME))
