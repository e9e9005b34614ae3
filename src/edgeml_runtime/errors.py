"""The one error that a user may see. Anything else is a bug and keeps its traceback."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

_LONGEST = 4000  # characters; a sentence that repeats a name out of a hostile file may have any length


class EdgemlError(Exception):
    """A request that cannot be met: one sentence of what is wrong and one of what to do next.

    What they repeat of somebody's file stands there escaped, where a terminal would obey it or could not show it, and
    is cut where it is endless.
    """

    exit_code = 3

    def __init__(self, message: str, *, hint: str) -> None:
        self.message, self.hint = _shown(message.replace("\n", " ")), _shown(hint)
        super().__init__(self.message)


class UnfitError(EdgemlError):
    """The refusal of one text that a model cannot take: whoever knows its row says which that is, with `of_row`."""

    def of_row(self, number: int) -> EdgemlError:
        """The same, of the row with that place in the data's file."""
        return EdgemlError(f"row {number}: {self.message}", hint=self.hint)


def _shown(text: str) -> str:
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 4 :]}"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)


def why(error: Exception) -> str:
    """Why something failed, without the number and the file that an error of the system begins and ends with."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def counted(count: int, noun: str) -> str:
    """A number of things: 1 file, 2 files."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def unknown(noun: str, wanted: str, known: Iterable[str], *, plural: str) -> EdgemlError:
    """The refusal of a name that is not among the known ones: with the nearest of them, or with them all."""
    names = list(known)
    near = get_close_matches(wanted, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known {plural}: {', '.join(names)}"
    return EdgemlError(f"unknown {noun} {wanted!r}", hint=hint)
