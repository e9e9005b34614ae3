"""What the wheels in a bundle say of themselves: name, version, licence, and the texts of it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from edgeml.papers.licences import licence_of, spdx_of, standard_text
from edgeml.papers.origin import RUNTIME_LICENCES
from edgeml.sources.wheel import opened
from edgeml_runtime.records import sha256
from edgeml_runtime.types import Record

_BESIDE_CODE = re.compile(r"[^/]+/(licen[cs]e|notice|copying|third-?party-?notices)[^/]*", re.IGNORECASE)


class Packed(Record, frozen=True, kw_only=True):
    """One wheel; `licence` is the SPDX expression, or the words where there is none."""

    path: str
    name: str
    version: str
    sha256: str
    size_bytes: int
    licence: str | None = None


def packed(path: Path) -> Packed:
    """What a wheel's name and METADATA say."""
    name, version = path.name.split("-")[:2]
    with opened(path) as wheel:
        stated = wheel.licence() or wheel.classified()
    return Packed(
        path=f"wheels/{path.name}",
        name=name.replace("_", "-").lower(),
        version=version,
        sha256=sha256(path),
        size_bytes=path.stat().st_size,
        licence=spdx_of(stated) or stated,
    )


def copy_texts(wheels: Iterable[Path], folder: Path) -> None:
    """The licence texts of wheels, and that of edgeml's own runtime, below a bundle's `licences/runtime/`."""
    goal = folder / RUNTIME_LICENCES
    own = goal / "edgeml_runtime" / "LICENSE"
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_bytes(standard_text("Apache-2.0.txt"))
    for path in wheels:
        package = goal / path.name.partition("-")[0]
        if package.exists():  # the same package for another Python
            continue
        with opened(path) as wheel:
            for name in (*wheel.licence_files, *(name for name in wheel.names if _BESIDE_CODE.fullmatch(name))):
                wheel.extract(name, package / name.partition("/")[2])
        row = licence_of(packed(path).licence)
        if not package.exists() and row and row.ships:  # some wheels carry none
            package.mkdir()
            (package / row.ships).write_bytes(standard_text(row.ships))
