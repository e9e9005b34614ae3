"""Bundles of a few KB, and the same with one thing changed and sealed again, as if that had been packed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from msgspec.structs import replace

from edgeml.bundles.dir import seal
from edgeml.package import bundle_path, package
from edgeml.store import Store
from edgeml.targets import profile
from edgeml_runtime.bundle import MANIFEST, SUMS, checksums, read_bundle
from edgeml_runtime.records import describe, describe_file, write_record
from tiny.variants import onnx_variant


def tiny_bundle(root: Path) -> Path:
    """The folder of a bundle without wheels, for a machine like this one."""
    store = Store(root / "artifacts")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    here = replace(profile("laptop"), machine=os.uname().machine)
    return bundle_path(store, package(variant, store=store, profile=here, kind="dir", wheels=False))


def changed(bundle: Path, goal: Path, change: Callable[[Path], object], **manifest: object) -> Path:
    """A copy of a bundle that `change` was let at before it was sealed; `manifest` replaces what bundle.json says."""
    shutil.copytree(bundle, goal, ignore=shutil.ignore_patterns("__pycache__", ".site-*"))
    change(goal)
    files = tuple(file for file in describe(goal) if file.path not in (MANIFEST, SUMS))
    made = replace(read_bundle(goal), files=files, **manifest)
    write_record(goal / MANIFEST, made)
    text = checksums((*files, describe_file(goal / MANIFEST, MANIFEST)))
    (goal / SUMS).write_text(text, encoding="utf-8")
    return seal(goal)


def runtime_fixed(folder: Path) -> None:
    """As a fix of a line of the runtime would leave a bundle."""
    with (folder / "edgeml_runtime" / "pixels.py").open("a", encoding="utf-8") as file:
        file.write("\n# fixed\n")


def goldens_broken(folder: Path) -> None:
    """As a model that answers otherwise would leave it: the goldens are not what it says."""
    path = folder / "goldens.json"
    goldens = json.loads(path.read_bytes())
    goldens["vectors"] = [[-value for value in vector] for vector in goldens["vectors"]]
    path.write_text(json.dumps(goldens), encoding="utf-8")
