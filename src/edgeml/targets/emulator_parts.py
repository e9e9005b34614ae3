"""Fetches what every emulated device shares: the emulator, and the Python of this machine's release for ARM64.

Both are packages of the machine's own distribution, opened in the cache; nothing is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources.apt import check_apt, fetch_packages, unpack
from edgeml.targets.emulator import check_possible, made_once, python_command, python_of, qemu_file, root_folder
from edgeml.targets.types import Profile

_PROGRAMS = ("usr/bin/qemu-aarch64-static", "usr/bin/qemu-aarch64")  # in the packages until Debian 12, and since 13
_PACKAGE = "qemu-user-static"
_PYTHON_PACKAGES = ("python3", "libstdc++6", "libgomp1")
_LOADED = ("usr/bin/python3", "usr/lib/", "lib/")  # what a process reads of those and of what they depend on
_OLDEST = (7, 2)  # of QEMU, that edgeml was tried with


def prepare(profile: Profile, *, progress: Progress) -> str:
    """Fetch what is missing; gives the version (`3.11`) of the Python for ARM64.

    With Debian's package lists, of two architectures, it takes about 100 MB from the network. Raises EdgemlError where
    the profile's device cannot be emulated here or its parts cannot be had, and leaves nothing that looks complete.
    """
    check_possible(profile)
    assert profile.emulated_cpu
    cpu = profile.emulated_cpu
    if not qemu_file().exists():
        shutil.rmtree(qemu_file().parent, ignore_errors=True)  # a link to what this machine had
        made_once(qemu_file().parent, lambda folder: _add_qemu(folder, progress))
    made_once(root_folder(), lambda folder: _add_root(folder, cpu, progress))
    return python_of(root_folder())


def _add_qemu(folder: Path, progress: Progress) -> None:
    file = folder / qemu_file().name
    if own := next(filter(_is_fine, filter(None, (shutil.which(Path(name).name) for name in _PROGRAMS))), None):
        file.symlink_to(own)
        return
    check_apt()
    packages, tree = folder.parent / "packages", folder.parent / "tree"
    for package in fetch_packages(
        [_PACKAGE], "amd64", packages, step="download the emulator (65 MB)", progress=progress
    ):
        unpack(package, tree, lambda name: name in _PROGRAMS)
    found = [path for name in _PROGRAMS if (path := tree / name).is_file() and not path.is_symlink()]
    if not found or not _is_fine(str(found[0])):
        hint = "install QEMU's user mode, version 7.2 or newer, so that qemu-aarch64 is on PATH"
        raise EdgemlError(f"this machine's package {_PACKAGE} holds no emulator that can be used", hint=hint)
    found[0].rename(file)


def _add_root(folder: Path, cpu: str, progress: Progress) -> None:
    check_apt()
    packages, step = folder.parent / "packages", "download Python for ARM64 (16 MB)"
    found = fetch_packages(_PYTHON_PACKAGES, "arm64", packages, step=step, progress=progress)
    for number, package in enumerate(found):
        progress("unpack Python for ARM64", number, len(found))
        unpack(package, folder, lambda name: name.startswith(_LOADED))
    if not (folder / "lib").exists():  # since Debian 13 only a link, of a package that nothing depends on
        (folder / "lib").symlink_to("usr/lib")
    code, said = _said([*python_command(qemu_file(), cpu, folder), "-B", "-c", "import ctypes, hashlib, json"])
    if code:
        raise EdgemlError(f"the emulated Python does not start: {said or code}", hint="run it again, or report it")


def _is_fine(qemu: str) -> bool:
    code, said = _said([qemu, "--version"])
    found = re.search(r"version (\d+)\.(\d+)", said)
    return code == 0 and found is not None and (int(found[1]), int(found[2])) >= _OLDEST


def _said(command: Sequence[str]) -> tuple[int, str]:
    """The exit code of a short command, and what it said."""
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with started(command, **quiet) as child:
        said = child.communicate()[0]
    return child.returncode, said.strip()
