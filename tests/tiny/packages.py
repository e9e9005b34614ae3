"""Makers of Debian packages of a few hundred bytes, and of the folder that apt takes for an archive of them."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

CONTROL = "Package: {name}\nVersion: 1.0\nArchitecture: {architecture}\nMaintainer: nobody <nobody@example.org>\n"


def write_package(
    archive: Path, name: str, files: dict[str, str], *, architecture: str = "arm64", depends: str = ""
) -> Path:
    """A package with these files, added to the archive's index."""
    tree = archive / "trees" / name
    (tree / "DEBIAN").mkdir(parents=True)
    more = f"Depends: {depends}\n" if depends else ""
    control = CONTROL.format(name=name, architecture=architecture) + more + "Description: tiny\n"
    for path, content in {"DEBIAN/control": control, **files}.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_text(content)
    goal = archive / f"{name}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, goal], check=True, capture_output=True)
    content = goal.read_bytes()
    facts = f"Filename: ./{goal.name}\nSize: {len(content)}\nSHA256: {hashlib.sha256(content).hexdigest()}\n"
    with (archive / "Packages").open("a") as index:
        index.write(control + facts + "\n")
    return goal


def apt_config(folder: Path, source: str) -> Path:
    """A configuration with which apt knows one source alone, such as `copy:/archive`."""
    (folder / "parts").mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [trusted=yes] {source} ./\n")
    path = folder / "apt.conf"
    path.write_text(f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "{folder}/parts";\n')
    return path
