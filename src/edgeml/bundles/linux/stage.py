"""The files of both packages as they will lie on a device, below a folder that stands for its root."""

from __future__ import annotations

import os
import re
import shutil
import zipfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import msgspec

from edgeml.bundles.dir import mode
from edgeml.bundles.linux.config import config_text
from edgeml.bundles.linux.dialect import OPENRC, Dialect
from edgeml.bundles.linux.names import Names
from edgeml.errors import EdgemlError
from edgeml_runtime.bundle import MANIFEST, SUMS, Bundle, checksums
from edgeml_runtime.records import describe, describe_file, sha256, write_record
from edgeml_runtime.types import File
from edgeml_runtime.unpack import serves

HOME = "usr/lib/edgeml"
YEAR_2000 = 946684800
_RUNTIME = re.compile(r"edgeml_runtime/.*|licences/runtime/.*|requirements\.txt")
# What is unpacked, or stands beside the packages, since it tells of both parts.
_IN_NEITHER = re.compile(r"wheels/.*|run\.sh|bom\.cdx\.json|provenance\.json")
# numpy's own tests, 7 MB, and scripts that pip would put on PATH.
_LEFT_OUT = re.compile(r"[^/]+/(.*/)?tests/.*|[^/]+\.data/.*")


def stage_model(folder: Path, bundle: Bundle, names: Names, root: Path, dialect: Dialect) -> str:
    """Lay out the model's package and give the digest of its files; a bundle's own checks hold in its folder."""
    goal = root / HOME / names.name
    kept = tuple(file for file in bundle.files if not (_RUNTIME.fullmatch(file.path) or is_beside(file)))
    for file in kept:
        _copy(folder / file.path, goal / file.path)
    parts = {part: digest for part, digest in bundle.parts.items() if part == "model"}
    write_record(goal / MANIFEST, msgspec.structs.replace(bundle, files=kept, parts=parts))
    digest = _write_sums(goal, (*kept, describe_file(goal / MANIFEST, MANIFEST)))
    texts = {
        f"{HOME}/users/{names.runtime}/{names.name}": "",
        f"usr/bin/{names.package}": template("command"),
        f"etc/edgeml/{names.name}.toml": config_text(names),
        f"usr/share/doc/{names.package}/copyright": _model_copyright(bundle, names),
    }
    if dialect.services == OPENRC:
        texts[f"etc/init.d/{names.package}"] = template("openrc")
    else:
        texts[f"usr/lib/systemd/system/{names.package}.service"] = template("service")
    words = words_of(names, names.package, bundle.variant, dialect)
    for path, text in texts.items():
        _write(root / path, filled(text, words))
    _settle(root)
    return digest


def stage_runtime(folder: Path, bundle: Bundle, names: Names, root: Path) -> str:
    """Lay out the runtime's package, its wheels unpacked for each Python that they serve, and give the digest."""
    goal = root / HOME / names.runtime
    for file in bundle.files:
        if _RUNTIME.fullmatch(file.path):
            _copy(folder / file.path, goal / file.path)
    for python in bundle.python:
        _unpack_wheels(folder / "wheels", python, goal / f"packages-{python}")
    _write(goal / "start", template("start"))
    text = (
        f"{names.runtime_package}\n\nWhat edgeml runs models with, and Python packages from the Python Package Index.\n"
    )
    text += f"Each has its licence below /{HOME}/{names.runtime}/packages-*/*.dist-info/.\nedgeml: Apache-2.0\n"
    _write(root / f"usr/share/doc/{names.runtime_package}/copyright", text)
    digest = _write_sums(goal, describe(goal))
    _settle(root)
    return digest


def is_beside(file: File) -> bool:
    """Whether a file of a bundle's lies in neither package."""
    return _IN_NEITHER.fullmatch(file.path) is not None


def template(name: str) -> str:
    """A file of this package's."""
    return (files("edgeml.bundles.linux") / name).read_text(encoding="utf-8")


def words_of(names: Names, package: str, title: str, dialect: Dialect) -> dict[str, str]:
    """What the templates' words stand for, in the package of that name."""
    return {
        "name": names.name,
        "package": package,
        "runtime": names.runtime,
        "title": title,
        "repair": dialect.repair,
        "add_user": dialect.add_user,
    }


def filled(text: str, words: Mapping[str, str]) -> str:
    """A template with its words. None of them can hold what a shell would take for its own."""
    return re.sub(r"@([a-z_]+)@", lambda found: words[found[1]], text)


def _unpack_wheels(wheels: Path, python: str, goal: Path) -> None:
    fitting = {path.name.partition("-")[0]: path for path in sorted(wheels.glob("*.whl")) if serves(path.name, python)}
    wanted = {path.name.partition("-")[0] for path in wheels.glob("*.whl")}
    if not wanted or fitting.keys() != wanted:
        lacking = ", ".join(sorted(wanted - fitting.keys())) or "all"
        hint = "pack it without --no-wheels: a package brings all that it needs"
        raise EdgemlError(f"the wheels for Python {python} are not in the bundle: {lacking}", hint=hint)
    for path in fitting.values():
        with zipfile.ZipFile(path) as wheel:  # which keeps every member below its goal
            wheel.extractall(goal, [name for name in wheel.namelist() if not _LEFT_OUT.fullmatch(name)])


def _write_sums(goal: Path, described: tuple[File, ...]) -> str:
    _write(goal / SUMS, checksums(described))
    return describe_file(goal / SUMS, SUMS).sha256[:8]


def _model_copyright(bundle: Bundle, names: Names) -> str:
    return (
        f"{names.package}\n\nThe model {bundle.model}, as {bundle.variant}.\n"
        f"Licence: {bundle.licence or 'not stated'}\n"
        f"Its texts lie in /{HOME}/{names.name}/licences, where its source has them.\n"
    )


def _copy(source: Path, goal: Path) -> None:
    goal.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, goal)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _settle(root: Path) -> None:
    """Modes and times that follow from what the files are, and from nothing else."""
    for path in sorted(root.rglob("*"), reverse=True):
        if path.is_dir():
            path.chmod(0o755)
            os.utime(path, (YEAR_2000, YEAR_2000))
        else:
            runs = path.read_bytes()[:2] == b"#!" and path.suffix != ".py"
            path.chmod(0o755 if runs else mode(path))
            seconds = YEAR_2000 + int(sha256(path)[:6], 16)  # as in tar.py: a changed file has another time
            os.utime(path, (seconds, seconds))
