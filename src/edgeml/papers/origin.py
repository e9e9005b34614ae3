"""`provenance.json`: from what, how and by which tools a bundle was made; and the digests of its two parts."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import edgeml_runtime
from edgeml.types import ModelRef
from edgeml_runtime.bundle import GOLDENS, VARIANT, checksums
from edgeml_runtime.types import File, Record, VariantManifest

FILE = "provenance.json"
RUNTIME_LICENCES = "licences/runtime/"
_RUNTIME = ("edgeml_runtime/", "wheels/", RUNTIME_LICENCES)
_RUNTIME_FILES = ("requirements.txt", "run.sh")
_MODEL = (f"{VARIANT}/", "licences/")
_MODEL_FILES = (GOLDENS, "MODEL_CARD.md", "DATA_CARD.md")
_PATHS = ("data", "reference", "json_schema")  # keys of a recipe whose folders say who works where

Part = Literal["model", "runtime"]


class Provenance(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.provenance/1"):
    """What a bundle was made from. `model` is pinned; `source_files` are the files that were read, with their digests.

    `scheme`, `built_for` and `calibration_sha256` are how its weights were quantized, `tools` what did it, `recipe` the
    file that asked for it. `packed_by` is what packed the bundle, on which kind of machine; `runtime_sha256` is the
    digest of its `edgeml_runtime`.
    """

    model: str
    source_files: tuple[File, ...]
    scheme: str
    target: str
    weights_sha256: str
    runtime: str
    runtime_sha256: str
    packed_by: dict[str, str]
    tools: dict[str, str] = {}
    built_for: str | None = None
    source_quantized: str | None = None
    calibration_sha256: str | None = None
    recipe: dict[str, Any] = {}


def provenance(
    manifest: VariantManifest, target: str, files: Iterable[File], *, recipe: Mapping[str, Any] | None = None
) -> Provenance:
    """The record of a bundle with these files; it names neither a person nor a path of this machine."""
    return Provenance(
        model=manifest.model,
        source_files=manifest.source_files,
        scheme=manifest.scheme,
        target=target,
        weights_sha256=manifest.weights_sha256,
        runtime=f"edgeml_runtime {edgeml_runtime.__version__}",
        runtime_sha256=digest(of_runtime(files)),
        packed_by={
            "edgeml": edgeml_runtime.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        tools=manifest.tools,
        built_for=manifest.built_for,
        source_quantized=manifest.source_quantized,
        calibration_sha256=manifest.calibration_sha256,
        recipe=_without_folders(recipe or {}),
    )


def public_ref(ref: str) -> str:
    """A model's reference without a path of this machine: `local:` and the last part, where it is a path."""
    parsed = ModelRef.parse(ref)
    return f"local:{Path(parsed.id).resolve().name}" if parsed.source == "local" else ref


def of_runtime(files: Iterable[File]) -> tuple[File, ...]:
    """Those of a bundle's files that are `edgeml_runtime` itself."""
    return tuple(file for file in files if file.path.startswith("edgeml_runtime/"))


def parts(files: Iterable[File]) -> dict[str, str]:
    """The digests of a bundle's parts: a fix of the runtime leaves that of the model as it was."""
    members: dict[Part, list[File]] = {"model": [], "runtime": []}
    for file in files:
        part = part_of(file.path)
        if part:
            members[part].append(file)
    return {part: digest(found) for part, found in members.items()}


def part_of(path: str) -> Part | None:
    """The part that a file belongs to; None of one that tells of both."""
    if path.startswith(_RUNTIME) or path in _RUNTIME_FILES:
        return "runtime"
    return "model" if path.startswith(_MODEL) or path in _MODEL_FILES else None


def digest(files: Iterable[File]) -> str:
    """SHA-256 of the lines that `sha256sum` writes of these files, sorted by path."""
    return hashlib.sha256(checksums(files).encode()).hexdigest()


def _without_folders(value: Any, key: str = "") -> Any:
    """A recipe as it was written, but for the folders of its paths and of a model that is a local one."""
    if isinstance(value, Mapping):
        return {name: _without_folders(item, name) for name, item in sorted(value.items())}
    is_path = key in _PATHS or (key in ("download", "target") and str(value).startswith((".", "/", "~")))
    return PurePosixPath(value).name if is_path and isinstance(value, str) else value
