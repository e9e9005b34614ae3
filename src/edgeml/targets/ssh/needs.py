"""What jobs need on a device, each file by its digest.

A variant, the runtime, the wheels and the pictures of the data are a `Tree` each: a folder that the device makes of
files that it keeps by their sha256, so that nothing is sent twice.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import edgeml_runtime
from edgeml.errors import EdgemlError
from edgeml.targets.ssh.calls import STAYS, Reached
from edgeml_runtime.bundle import checksums
from edgeml_runtime.records import read_record, sha256
from edgeml_runtime.types import File, VariantManifest


class Piece(NamedTuple):
    """One file to be on the device: a path here, or bytes."""

    content: Path | bytes
    size_bytes: int
    sha256: str

    def read(self, offset: int, count: int) -> bytes:
        """That many of its bytes."""
        if isinstance(self.content, bytes):
            return self.content[offset : offset + count]
        with self.content.open("rb") as file:
            file.seek(offset)
            return file.read(count)


class Tree(NamedTuple):
    """A folder to be on the device, by relative path."""

    pieces: dict[str, Piece]

    @property
    def digest(self) -> str:
        """Names the folder by its content."""
        listed = (File(path=path, size_bytes=0, sha256=piece.sha256) for path, piece in self.pieces.items())
        return hashlib.sha256(checksums(listed).encode()).hexdigest()


class Needs(NamedTuple):
    """All that jobs need: the variants' and pictures' folders, the runtime, and the wheels of each format."""

    folders: dict[Path, Tree]
    pictures: Tree
    runtime: Tree
    wheels: dict[str, Tree]

    @property
    def trees(self) -> tuple[Tree, ...]:
        """Every folder that is to be made."""
        return (*self.folders.values(), self.pictures, self.runtime, *self.wheels.values())


def needs(device: Reached, variants: Sequence[Path], pictures: Sequence[Path] = ()) -> Needs:
    """What runs those variants' folders on a device; wheels that are not here yet are fetched by `wheels_for`."""
    from edgeml.wheels import runtime_of

    manifests = {folder: read_record(folder / "variant.json", VariantManifest) for folder in variants}
    formats = dict.fromkeys(runtime_of(manifest) for manifest in manifests.values())
    return Needs(
        folders={folder: _variant_tree(folder, manifest) for folder, manifest in manifests.items()},
        pictures=_pictures_tree(pictures),
        runtime=_runtime_tree(),
        wheels={
            format: _wheels_tree(device, device.wheels_for(device.profile, device.python, format)) for format in formats
        },
    )


def remote_folder(device: Reached, tree: Tree) -> str:
    """Where a tree is on the device."""
    return f"{device.probe.home}/{STAYS.removeprefix('~/')}/trees/{tree.digest}"


def unpacked_bytes(tree: Tree) -> int:
    total = 0
    for piece in tree.pieces.values():
        if isinstance(piece.content, Path):
            with zipfile.ZipFile(piece.content) as wheel:
                total += sum(member.file_size for member in wheel.infolist())
    return total


def _runtime_tree() -> Tree:
    """Our own runtime, as a bundle carries it."""
    root = Path(edgeml_runtime.__path__[0])
    paths = sorted([*root.rglob("*.py"), root / "py.typed"])
    return Tree({f"edgeml_runtime/{path.relative_to(root).as_posix()}": _piece(path) for path in paths})


def _variant_tree(folder: Path, manifest: VariantManifest) -> Tree:
    own = {file.path: Piece(folder / file.path, file.size_bytes, file.sha256) for file in manifest.files}
    return Tree({**own, "variant.json": _piece(folder / "variant.json")})


def _pictures_tree(pictures: Sequence[Path]) -> Tree:
    """Each under its number, since names and contents may be equal; with its ending, by which some tell what it is."""
    endings = (path.suffix if path.suffix[1:].isalnum() else "" for path in pictures)
    return Tree(
        {f"{n:06}{ending}": _piece(path) for n, (path, ending) in enumerate(zip(pictures, endings, strict=True))}
    )


def _wheels_tree(device: Reached, wheels: Sequence[Path]) -> Tree:
    """Wheels with the manifest of a bundle that has nothing else, so that they are unpacked as a bundle's are."""
    pieces = {f"wheels/{path.name}": _piece(path) for path in wheels}
    listed = [{"path": path, "sha256": piece.sha256} for path, piece in pieces.items()]
    manifest = {"machine": device.probe.machine, "python": [device.python], "files": listed}
    content = json.dumps(manifest).encode()
    return Tree({**pieces, "bundle.json": Piece(content, len(content), hashlib.sha256(content).hexdigest())})


def _piece(path: Path) -> Piece:
    try:
        return Piece(path, path.stat().st_size, sha256(path))
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
