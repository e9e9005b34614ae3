"""A bundle that is ready to go to devices: found, unpacked, checked, and known to fit one or not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from edgeml.bundles import bundle_at, kind_at, kind_of
from edgeml.bundles.dir import SIGNATURE
from edgeml.errors import EdgemlError
from edgeml.inventory import newest_python
from edgeml.papers.contents import check_whole
from edgeml.progress import Progress, silent
from edgeml.signing import check_signature
from edgeml.store import Store, scratch_folder
from edgeml.targets.ssh.needs import Piece
from edgeml.targets.types import Probe
from edgeml_runtime.bundle import MANIFEST, SUMS, Bundle
from edgeml_runtime.records import describe_file

_KINDS = ("dir", "tar")
_INSTEAD = {
    "deb": "copy it there, then: sudo apt install ./FILE",
    "rpm": "copy it there, then: sudo dnf install ./FILE",
    "apk": "copy it there, then: sudo apk add --allow-untrusted ./FILE",
    "oci": "push it to a registry that the device pulls from",
    "compose": "copy it there, then: docker compose up",
    "ollama": "copy it there, then: ollama create NAME -f Modelfile",
}
_GLIBC = re.compile(r"manylinux_(\d+)_(\d+)_")


class Parcel(NamedTuple):
    """A bundle that was unpacked and checked here. `version` is its digest, `name` that of its installations."""

    bundle: Bundle
    pieces: dict[str, Piece]
    version: str

    @property
    def name(self) -> str:
        """What versions of the same variant share."""
        return self.bundle.variant.replace("/", "-")


@contextmanager
def opened(text: str, *, store: Store, key: Path | None = None, progress: Progress = silent) -> Iterator[Parcel]:
    """A bundle by its path, or by its name in a store, as long as the block lasts.

    `key` is the public key of whoever must have signed it. Raises EdgemlError for a file that is not what was packed,
    a wrong signature, and a kind that installs itself in another way.
    """
    path = bundle_at(text, store.root / "bundles", kinds=_KINDS)
    kind = kind_at(path)
    if kind not in _KINDS:
        hint = _INSTEAD.get(kind, "see the page of that kind in docs/")
        hint += ", or pack it as a folder: edgeml package --as dir"
        raise EdgemlError(f"{path.name} is of the kind {kind}, which installs itself in another way", hint=hint)
    with scratch_folder(store.root / "deploy") as space:
        progress(f"unpack and check {path.name}", 0, 1)
        folder = kind_of(kind).unpack(path, space)
        bundle, _ = check_whole(folder)
        if key:
            check_signature(folder, key)
        listed = [*bundle.files, *(describe_file(folder / name, name) for name in (MANIFEST, SUMS))]
        if (folder / SIGNATURE).is_file():
            listed.append(describe_file(folder / SIGNATURE, SIGNATURE))
        pieces = {file.path: Piece(folder / file.path, file.size_bytes, file.sha256) for file in listed}
        yield Parcel(bundle, pieces, pieces[SUMS].sha256)


def fitting(bundle: Bundle, found: Probe, host: str) -> str:
    """The Python version there that runs a bundle; raises EdgemlError where its machine or its system runs none."""
    if found.machine != bundle.machine or found.userland_bits != 64:
        bits = "" if found.userland_bits == 64 else f" with {found.userland_bits}-bit programs"
        hint = "pack it for this device: edgeml package --target, and edgeml targets shows which"
        message = f"{bundle.name} is for {bundle.machine}, and {host} is {found.machine}{bits}"
        raise EdgemlError(message, hint=hint)
    wheels = [file.path for file in bundle.files if file.path.startswith("wheels/")]
    needed = max((tuple(map(int, least.groups())) for name in wheels if (least := _GLIBC.search(name))), default=None)
    has = found.libc or ""
    if needed and has.startswith("glibc ") and tuple(map(int, has.split()[1].split(".")[:2])) < needed:
        message = f"{bundle.name} needs glibc {needed[0]}.{needed[1]}, and {host} has {has.split()[1]}"
        raise EdgemlError(message, hint="update its system, or pack with older wheels")
    if needed and has and not has.startswith("glibc "):
        raise EdgemlError(f"{bundle.name} needs glibc, and {host} has {has}", hint="use a system with glibc there")
    return newest_python(host, [one for one in found.pythons if not wheels or one in bundle.python], found.pythons)
