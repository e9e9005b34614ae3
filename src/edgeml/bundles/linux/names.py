"""What a bundle is called on a device: its packages, folders, command and service."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import NamedTuple

from edgeml.targets import profile
from edgeml.wheels import runtime_name, runtime_of
from edgeml_runtime.bundle import VARIANT, Bundle
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest

# Go's words, which nfpm turns into those of each kind of package.
_ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}
ANY = "all"
# What else lies where models do; and what such a model gets before its name, which so is no other model's.
_TAKEN = re.compile(r"(runtime|users|live|model)(-|$)")
_INSTEAD = "model-"


class Names(NamedTuple):
    """`name` is the model's folder below /usr/lib/edgeml, `package` its package, command and service.

    `runtime` and `runtime_package` are those of what runs it. `architecture` is the machine's; `model_architecture`
    that of the model's own files, which are data, but for integer weights that are laid out for one kind of processor.
    """

    name: str
    package: str
    runtime: str
    runtime_package: str
    architecture: str
    model_architecture: str


def names_of(folder: Path, bundle: Bundle) -> Names:
    """The names that follow from a bundle's folder; its target is no part of them, for a device knows what it is."""
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    slug = _slug(bundle.variant)
    name = f"{_INSTEAD}{slug}" if _TAKEN.match(slug) else slug
    runtime = f"runtime-{runtime_name(profile(bundle.target), runtime_of(manifest))}"
    architecture = _ARCHITECTURES.get(bundle.machine, bundle.machine)
    own = architecture if manifest.built_for else ANY
    return Names(name, f"edgeml-{name}", runtime, f"edgeml-{runtime}", architecture, own)


def _slug(variant: str) -> str:
    """A variant's name in letters, digits and single hyphens, which every kind of package takes.

    Where that changes the model's own name, a piece of its digest tells it from others that become the same.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", variant.lower()).strip("-")
    model = variant.partition("/")[0]
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", model):
        return slug
    return f"{slug}-{hashlib.sha256(model.encode()).hexdigest()[:8]}"
