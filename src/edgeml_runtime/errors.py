"""The one error that a user may see. Anything else is a bug and keeps its traceback."""

from __future__ import annotations


class EdgemlError(Exception):
    """A request that cannot be met: one sentence of what is wrong and one of what to do next."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
