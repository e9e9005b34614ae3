"""Kinds of bundle. Each gives a finished folder the form in which it is copied to a device."""

from __future__ import annotations

from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeml.errors import EdgemlError

KINDS = ("dir", "tar")


class Kind(Protocol):
    """One module a kind. The same folder always becomes the same bytes."""

    SUFFIX: str

    def seal(self, folder: Path) -> Path:
        """What is to be copied, made of a bundle's folder, beside it."""

    def same(self, made: Path, present: Path) -> bool:
        """Whether a bundle that is there already is, byte for byte, the one just made."""


def kind_of(name: str) -> Kind:
    """The module of a kind; an unknown one is refused with the nearest known."""
    if name not in KINDS:
        near = get_close_matches(name, KINDS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known kinds: {', '.join(KINDS)}"
        raise EdgemlError(f"unknown kind of bundle {name!r}", hint=hint)
    return cast("Kind", import_module(f"edgeml.bundles.{name}"))
