"""Both packages of a bundle in one folder, with the bundle's manifest and checksums beside them."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import edgeml_runtime
from edgeml.bundles.linux.dialect import Dialect
from edgeml.bundles.linux.extract import extract
from edgeml.bundles.linux.libraries import libraries_of
from edgeml.bundles.linux.names import Names, names_of
from edgeml.bundles.linux.nfpm import Package, build
from edgeml.bundles.linux.stage import HOME, filled, is_beside, stage_model, stage_runtime, template, words_of
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, SUMS, Bundle, checksums
from edgeml_runtime.records import describe, read_record, sha256

_VERSION = re.compile(r"\d+(\.\d+)*")


def packages_of(folder: Path, dialect: Dialect, suffix: str) -> Path:
    """The folder with both packages, beside the bundle's. Raises EdgemlError for a bundle that no package can hold."""
    bundle = read_record(folder / MANIFEST, Bundle)
    _check(bundle)
    names = names_of(folder, bundle)
    goal, space = folder.with_name(folder.name + suffix), folder.with_name(folder.name + ".staged")
    made = space / "made"
    try:
        made.mkdir(parents=True)
        for package in (_model(folder, bundle, names, dialect, space), _runtime(folder, bundle, names, dialect, space)):
            build(package, dialect, made)
        for name in (
            MANIFEST,
            *(file.path for file in bundle.files if is_beside(file) and file.path.endswith(".json")),
        ):
            shutil.copyfile(folder / name, made / name)
        (made / SUMS).write_text(checksums(describe(made)), encoding="utf-8")
        made.rename(goal)
    finally:
        shutil.rmtree(space, ignore_errors=True)
    return goal


def read_packages(path: Path) -> Bundle:
    """The manifest beside the packages."""
    return read_record(path / MANIFEST, Bundle)


def same_packages(made: Path, present: Path) -> bool:
    """Whether both folders hold the same files."""
    return present.is_dir() and describe(made) == describe(present)


def unpacked(path: Path, folder: Path) -> Path:
    """The model's folder, and the runtime's beside it, as a device would have them, below the empty `folder`.

    Raises EdgemlError where the packages are not those that were made, or hold anything but plain files in their place.
    """
    for line in (path / SUMS).read_text(encoding="utf-8").splitlines():
        digest, _, name = line.partition("  ")
        if Path(name).name != name or not (path / name).is_file() or sha256(path / name) != digest:
            raise EdgemlError(f"{name} is not the file that was packed", hint="edgeml package --force makes it again")
    found = sorted(one for one in path.iterdir() if one.suffix in (".deb", ".rpm", ".apk"))
    for package in found:
        extract(package, folder)
    (manifest,) = folder.glob(f"{HOME}/*/{MANIFEST}")
    return manifest.parent


def _check(bundle: Bundle) -> None:
    if not _VERSION.fullmatch(bundle.version):
        hint = "give numbers with dots, such as 2 or 1.4"
        raise EdgemlError(f"{bundle.version!r} is no version of a package", hint=hint)
    if bundle.machine not in ("aarch64", "x86_64") or "apple" in bundle.target:
        what = f"{bundle.target} has no Linux packages"
        raise EdgemlError(what, hint="pack it with --as dir, or for another --target")


def _model(folder: Path, bundle: Bundle, names: Names, dialect: Dialect, space: Path) -> Package:
    root = space / "model"
    digest = stage_model(folder, bundle, names, root, dialect)
    return Package(
        name=names.package,
        architecture=names.model_architecture,
        version=dialect.version(bundle.version, digest),
        summary=f"{bundle.variant}, a model that edgeml packed\n{bundle.model}, for {bundle.target}.",
        licence=bundle.licence or "not stated",
        depends=(dialect.at_least(names.runtime_package, edgeml_runtime.__version__), *dialect.others),
        root=root,
        steps=_steps("model.sh", words_of(names, names.package, bundle.variant, dialect), dialect),
        config=f"etc/edgeml/{names.name}.toml",
    )


def _runtime(folder: Path, bundle: Bundle, names: Names, dialect: Dialect, space: Path) -> Package:
    root = space / "runtime"
    digest = stage_runtime(folder, bundle, names, root)
    return Package(
        name=names.runtime_package,
        architecture=names.architecture,
        version=dialect.version(bundle.runtime, digest),
        summary=f"what runs edgeml's models of kind {names.runtime.removeprefix('runtime-')}\nNothing is fetched.",
        licence="Apache-2.0",
        depends=(dialect.pythons(bundle.python), *libraries_of(root, dialect), *dialect.others),
        root=root,
        steps=_steps("runtime.sh", words_of(names, names.runtime_package, "", dialect), dialect),
    )


def _steps(own: str, words: dict[str, str], dialect: Dialect) -> dict[str, str]:
    """The whole text of each script: what they share, and one line that calls what it is for."""
    shared = filled("".join(template(name) for name in ("common.sh", f"{dialect.services}.sh", own)), words)
    return {step: f"{shared}{call}\n" for step, call in dialect.steps.items()}
