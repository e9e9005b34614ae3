"""Folders that hold an image's archive and the texts that tell a platform how to run it."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

from edgeml.bundles import oci
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.types import Record

ARCHIVE = "image.oci.tar"


class Image(Record, frozen=True, kw_only=True):
    """An image by the tag that its archive loads under, and by the digest that a registry gives it."""

    tag: str
    digest: str
    platform: str
    bundle: Bundle


def folder_around(folder: Path, suffix: str, texts: Callable[[Image], dict[str, str]]) -> Path:
    """A folder beside the bundle's, of its image and the texts that `texts` makes for it."""
    goal = folder.with_name(folder.name + suffix)
    goal.mkdir()
    oci.seal(folder).rename(goal / ARCHIVE)
    for name, text in texts(image_of(goal / ARCHIVE)).items():
        (goal / name).write_text(text, encoding="utf-8")
    return goal


def image_of(path: Path) -> Image:
    """The image in an archive."""
    with oci.opened(path) as image:
        parts = (image.config[key] for key in ("os", "architecture", "variant") if key in image.config)
        platform, tag, digest = "/".join(parts), image.tag, image.image_digest
    return Image(tag=tag, digest=digest, platform=platform, bundle=oci.read(path))


def read(path: Path) -> Bundle:
    """The manifest of the bundle in such a folder."""
    return oci.read(path / ARCHIVE)


def same(made: Path, present: Path) -> bool:
    """Whether two folders hold equal files of equal names."""
    names = [path.name for path in made.iterdir()]
    if not present.is_dir():
        return False
    equal, _, _ = filecmp.cmpfiles(made, present, names, shallow=False)
    return len(equal) == len(names)


def unpack(path: Path, folder: Path) -> Path:
    """The bundle's folder, of the image."""
    found = oci.unpack(path / ARCHIVE, folder)
    return found.rename(found.with_name(path.resolve().name.removesuffix(path.suffix)))
