"""Whether a bundle's papers tell of the files that lie beside them: checksums, bill of materials, provenance, parts."""

from __future__ import annotations

import re
from pathlib import Path

from edgeml.bundles.dir import SIGNATURE
from edgeml.bundles.verification import Check, done, left_out
from edgeml.errors import EdgemlError
from edgeml.papers import bom, origin
from edgeml.sources.contents import is_inside
from edgeml_runtime.bundle import MANIFEST, SUMS, VARIANT, Bundle, check_files, read_bundle
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest

_VARIANT = re.compile(r"\w[\w.+-]*(/\w[\w.+-]*)*")
_HINT = "copy the bundle again; where it stays so, do not use it"


def check_whole(folder: Path) -> tuple[Bundle, list[Check]]:
    """The manifest of a bundle's folder, once every file is the one that was packed and none came later.

    Raises EdgemlError naming the first file that is not.
    """
    try:
        stated = read_bundle(folder)
        for file in stated.files:
            if not is_inside(file.path):
                raise EdgemlError(f"{MANIFEST} lists {file.path!r}, which is outside of the bundle", hint=_HINT)
        words = (stated.name, stated.variant, stated.target, stated.runtime, stated.version, stated.machine)
        if not "".join((*words, stated.model, stated.licence or "", *stated.parts)).isprintable():
            raise EdgemlError(f"{MANIFEST} has names that a terminal would obey", hint=_HINT)
        if not _VARIANT.fullmatch(stated.variant):  # becomes a folder's name on devices, and a unit's
            raise EdgemlError(f"{MANIFEST} names a variant {stated.variant!r}, which none is called", hint=_HINT)
        bundle = check_files(folder)
    except EdgemlError as error:
        raise EdgemlError(error.message.replace(f"{folder}/", ""), hint=_HINT) from error
    listed = {file.path for file in bundle.files} | {MANIFEST, SUMS, SIGNATURE}
    present = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    extra = [name for name in present if name not in listed]
    if extra:
        raise EdgemlError(f"{extra[0]} was not packed into {bundle.name}", hint="remove it, or " + _HINT)
    found = [
        done("checksums", f"{len(bundle.files)} files are those that were packed"),
        done("no other files", "nothing was added"),
    ]
    return bundle, found


def check_around(path: Path) -> None:
    """Raise EdgemlError for a file beside a bundle's packages that was not packed: whoever installs them takes all."""
    listed = {line.partition("  ")[2] for line in (path / SUMS).read_text(encoding="utf-8").splitlines()}
    present = {one.relative_to(path).as_posix() for one in path.rglob("*") if one.is_symlink() or not one.is_dir()}
    if extra := sorted(present - listed - {SUMS, SIGNATURE}):
        raise EdgemlError(f"{extra[0]} was not packed into {path.name}", hint="remove it, or " + _HINT)


def check_papers(folder: Path, bundle: Bundle, around: Path) -> list[Check]:
    """What the bill of materials, the provenance and the parts' digests say is so; EdgemlError where it is not.

    Some kinds of bundle have their papers `around` what is unpacked of them.
    """
    homes = (folder, around)
    papers = {
        name: next((one / name for one in homes if (one / name).is_file()), None) for name in (bom.FILE, origin.FILE)
    }
    return [_bill(papers[bom.FILE], bundle), _provenance(papers[origin.FILE], folder, bundle), _parts(bundle)]


def _bill(path: Path | None, bundle: Bundle) -> Check:
    if path is None:
        return left_out("bill of materials", f"there is no {bom.FILE} to compare with")
    try:
        stated = bom.listed(path.read_bytes())
    except ValueError as error:
        raise EdgemlError(f"{bom.FILE} cannot be read: {error}", hint=_HINT) from error
    parts = (f"{VARIANT}/", "wheels/")
    present = {file.path: file.sha256 for file in bundle.files if file.path.startswith(parts)}
    present.pop(f"{VARIANT}/variant.json", None)  # describes the model, and is no part of it
    # Where the runtime is a package of its own, its wheels are unpacked there, and this manifest knows none of it.
    apart = not origin.of_runtime(bundle.files)
    unpacked = {name for name in stated if apart and name.startswith("wheels/")}
    compared = {name: sha256 for name, sha256 in stated.items() if name not in unpacked}
    differing = sorted(set(compared.items()) ^ set(present.items()))
    if differing:
        raise EdgemlError(f"{bom.FILE} and the bundle disagree on {differing[0][0]}", hint=_HINT)
    wheels = sum(name.startswith("wheels/") for name in present)
    told = f"all listed; its {len(unpacked)} wheels are unpacked, and not compared" if unpacked else "all listed"
    return done("bill of materials", f"{len(present) - wheels} files of the model and {wheels} wheels, {told}")


def _provenance(path: Path | None, folder: Path, bundle: Bundle) -> Check:
    if path is None:
        return left_out("provenance", f"there is no {origin.FILE} to compare with")
    stated = read_record(path, origin.Provenance)
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    listed = {file.path.removeprefix(f"{VARIANT}/"): file.sha256 for file in bundle.files}
    for file in manifest.files:
        if listed.get(file.path) != file.sha256:
            raise EdgemlError(f"variant.json and the bundle disagree on {file.path}", hint=_HINT)
    pairs: dict[str, tuple[object, object]] = {
        "the model": (stated.model, manifest.model),
        "the source's files": (stated.source_files, manifest.source_files),
        "the weights": (stated.weights_sha256, manifest.weights_sha256),
    }
    if own := origin.of_runtime(bundle.files):  # else it lies in a package of its own
        pairs["the runtime"] = (stated.runtime_sha256, origin.digest(own))
    for what, (said, found) in pairs.items():
        if said != found:
            raise EdgemlError(f"{origin.FILE} and the bundle disagree on {what}", hint=_HINT)
    return done("provenance", f"made from {stated.model}, stored as {stated.scheme}")


def _parts(bundle: Bundle) -> Check:
    if not bundle.parts:
        return left_out("parts", "no digests of its parts are stated")
    found = origin.parts(bundle.files)
    for part, stated in bundle.parts.items():
        if found.get(part) != stated:
            raise EdgemlError(f"{MANIFEST} and the files disagree on the part {part}", hint=_HINT)
    return done("parts", ", ".join(f"{part} {stated[:12]}" for part, stated in sorted(bundle.parts.items())))
