"""What images are made of, in a few KB: a bundle with wheels of its own, and a base that is no Debian."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.bundles.image.base import ARCHITECTURES, Base, base_folder
from edgeml.bundles.image.layers import Entry, write_layer
from edgeml.wheels import own_python
from edgeml_runtime.records import write_record
from tiny.bundles import changed, tiny_bundle
from tiny.wheels import write_wheel

MACHINE = os.uname().machine


def bundle_with_wheels(root: Path) -> Path:
    """The folder of a bundle whose two wheels hold a module each."""

    def add(folder: Path) -> None:
        write_wheel(folder / "wheels", {"one.py": b"ONE = 1\n"}, name="one")
        write_wheel(folder / "wheels", {"two/__init__.py": b"TWO = 2\n"}, name="two")

    goal = root / "packed" / "tiny-onnx-fp32-laptop"
    goal.parent.mkdir(parents=True)
    return changed(tiny_bundle(root), goal, add, python=(own_python(),), machine=MACHINE)


def tiny_base(python: str = "") -> Base:
    """A base for this machine in the cache: one file."""
    folder = base_folder(ARCHITECTURES[MACHINE])
    folder.mkdir(parents=True, exist_ok=True)
    base = Base(
        architecture=ARCHITECTURES[MACHINE],
        python=python or own_python(),
        release="Tiny 1",
        packages=("python3 1.0",),
        layer=write_layer([Entry("usr/bin/python3", b"no python", 0o755)], folder),
    )
    write_record(folder / "base.json", base)
    return base
