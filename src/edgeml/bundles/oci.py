"""A bundle as an OCI image in one archive: for `podman load`, `docker load`, skopeo, and any registry."""

from __future__ import annotations

import filecmp
import gzip
import hashlib
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.bundles.extraction import Intake, first_file, limit_of, unpack_tar
from edgeml.bundles.image.archive import Opened, write_archive
from edgeml.bundles.image.base import base_for
from edgeml.bundles.image.contents import HOME, PARTS, packages
from edgeml.bundles.image.layers import tar_digest
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, SITE, WHEELS, Bundle, read_bundle
from edgeml_runtime.records import decode

SUFFIX = ".oci.tar"
_PACKAGES = PARTS.index("packages") + 1  # which layer they are, above the base


def seal(folder: Path) -> Path:
    """The archive of the image, beside the folder."""
    bundle = read_bundle(folder)
    goal = folder.with_name(folder.name + SUFFIX)
    write_archive(folder, bundle, base_for(bundle), goal)
    return goal


def read(path: Path) -> Bundle:
    """The manifest in the image's topmost layer."""
    with opened(path) as image:
        digest = image.manifest["layers"][-1]["digest"]
        with gzip.GzipFile(fileobj=image.layer(digest)) as layer:
            content = first_file(layer, path, lambda name: name == f"{HOME}/{MANIFEST}")
        if content is not None:
            return decode(content, Bundle, where=f"{path.name}/{MANIFEST}")
    raise EdgemlError(f"{path} holds no {MANIFEST}", hint="move it elsewhere: it is no bundle")


def same(made: Path, present: Path) -> bool:
    """Whether the two archives are equal."""
    return present.is_file() and filecmp.cmp(made, present, shallow=False)


def unpack(path: Path, folder: Path) -> Path:
    """The bundle's folder, of the image's layers and the wheels beside them.

    Refused where the packages in the image are not those of the wheels. What the image stands on, Debian's Python, is
    no part of the bundle: nothing here vouches for it but the image's digest.
    """
    intake = Intake(folder, path.name, limit_of(path))
    with opened(path) as image:
        layers = [layer["digest"] for layer in image.manifest["layers"]]
        for number, digest in enumerate(layers):
            if number != _PACKAGES:
                with gzip.GzipFile(fileobj=image.layer(digest)) as stream:
                    unpack_tar(stream, intake, keep=_is_of_bundle)
        for name in image.members:
            if name.startswith(WHEELS):
                intake.add(f"{HOME}/{name}", image.file(name))
        found = folder / HOME
        if len(layers) != len(PARTS) + 1 or not (found / MANIFEST).is_file():
            raise image.refused(f"it has other layers, or no {MANIFEST}")
        if any(found.glob(f"{SITE}*")) or not _holds_packages(image, layers[_PACKAGES], found):
            raise image.refused("its packages are not those of its wheels")
    goal = found.rename(folder / path.name.removesuffix(SUFFIX))
    found.parent.rmdir()
    return goal


def _is_of_bundle(name: str) -> bool:
    return name.startswith(f"{HOME}/")


def _holds_packages(image: Opened, digest: str, folder: Path) -> bool:
    """Whether a layer is what the wheels of the bundle in `folder` make, for one of its versions of Python."""
    with gzip.GzipFile(fileobj=image.layer(digest)) as stream:
        present = hashlib.file_digest(stream, "sha256").hexdigest()
    bundle = read_bundle(folder)
    made = (tar_digest(packages(folder / WHEELS, bundle, python)) for python in bundle.python)
    return any(one == f"sha256:{present}" for one in made)


@contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """An archive, for reading; what is wrong with it is told in one sentence."""
    try:
        with tarfile.open(path, mode="r:") as archive:
            yield Opened(path, archive)
    except (tarfile.TarError, EOFError, gzip.BadGzipFile, KeyError, ValueError, TypeError, AttributeError) as error:
        hint = "edgeml package --force makes it again"
        raise EdgemlError(f"{path} is no complete archive of an image", hint=hint) from error
