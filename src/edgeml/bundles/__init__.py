"""Kinds of bundle. Each gives a finished folder the form in which it is copied to a device."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeml.errors import EdgemlError
from edgeml.store import PART
from edgeml_runtime.bundle import MANIFEST, Bundle
from edgeml_runtime.errors import unknown

KINDS = ("dir", "tar", "deb", "rpm", "apk", "oci", "compose", "ollama", "greengrass", "iotedge")


class Kind(Protocol):
    """One module a kind. The same folder always becomes the same bytes."""

    SUFFIX: str

    def seal(self, folder: Path) -> Path:
        """What is to be copied, made of a bundle's folder, beside it."""

    def read(self, path: Path) -> Bundle:
        """The manifest of a bundle of this kind; only as much is read as that takes."""

    def same(self, made: Path, present: Path) -> bool:
        """Whether a bundle that is there already is, byte for byte, the one just made."""

    def unpack(self, path: Path, folder: Path) -> Path:
        """The bundle's folder, written below `folder` with no more trust than `edgeml.bundles.extraction` has."""


def bundles_in(folder: Path) -> list[Bundle]:
    """The bundles in a store's folder, by name; what is not finished, or is something else, is passed over."""
    return [kind_of(kind).read(path) for path, kind in _kinds_in(folder).items()]


def bundle_at(text: str, folder: Path, *, kinds: Sequence[str] = KINDS) -> Path:
    """A bundle's path: what the text names, or in a store's folder the one whose file has, or begins with, that name.

    Where several do, those of `kinds` count first. Raises EdgemlError with the names of those that are meant.
    """
    if Path(text).exists():
        return Path(text)
    known = _kinds_in(folder)
    begun = [path for path in known if path.name == text] or [
        path for path, kind in known.items() if path.name == text + kind_of(kind).SUFFIX
    ]
    begun = begun or [path for path in known if path.name.startswith(text)]
    begun = [path for path in begun if known[path] in kinds] or begun
    if len(begun) == 1:
        return begun[0]
    names = ", ".join(path.name for path in begun or known)
    if begun:
        raise EdgemlError(f"{text!r} begins {len(begun)} bundles", hint=f"name one: {names}")
    raise EdgemlError(f"no bundle {text!r}", hint=f"bundles here: {names}" if known else "edgeml package makes one")


def _kinds_in(folder: Path) -> dict[Path, str]:
    """The finished bundles in a store's folder, each with its kind."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    return {path: kind for path in paths if path.suffix != PART and (kind := _kind(path))}


def kind_at(path: Path) -> str:
    """The name of the kind that a path's bundle is of, by what it is called, or by what lies in it."""
    if not path.exists():
        raise EdgemlError(f"there is no {path}", hint="give its path, such as artifacts/bundles/NAME")
    if found := _kind(path):
        return found
    endings = ", ".join(filter(None, (kind_of(kind).SUFFIX for kind in KINDS)))
    hint = f"a folder with {MANIFEST}, or a file or folder that ends in {endings}"
    raise EdgemlError(f"{path} is no bundle", hint=hint)


def _kind(path: Path) -> str | None:
    endings = {kind: kind_of(kind).SUFFIX for kind in KINDS}
    found = [kind for kind, suffix in endings.items() if suffix and path.name.endswith(suffix)]
    if not found:
        return "dir" if (path / MANIFEST).is_file() else None
    return max(found, key=lambda kind: len(endings[kind]))


def kind_of(name: str) -> Kind:
    """The module of a kind; an unknown one is refused with the nearest known."""
    if name not in KINDS:
        raise unknown("kind of bundle", name, KINDS, plural="kinds")
    return cast("Kind", import_module(f"edgeml.bundles.{name}"))
