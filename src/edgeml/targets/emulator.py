"""An emulated device: what it consists of, and where that lies below `EDGEML_CACHE/emulator/`.

`qemu/` holds the emulator, `root/` the Python of this machine's release for ARM64 and its libraries, `site-<digest>/`
the unpacked wheels of a runtime, and `<profile>-<digest>/` a device: links to the root's folders and the files in which
a kernel describes the processor. All of it is made once and never changed, so any number of devices may be in use.
Nothing here fetches; `edgeml.targets.emulator_parts` does.
"""

from __future__ import annotations

import hashlib
import os
import platform
import re
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from edgeml.errors import EdgemlError
from edgeml.store import cache_folder, scratch_folder
from edgeml.targets import profiles
from edgeml.targets.types import Profile
from edgeml.wheels import COMPILED, cached_wheels, missing_wheels, wheel_folder

_PYTHON = re.compile(r"python(3\.\d+)")


class Emulator(NamedTuple):
    """A device that is emulated: `root` is what its programs see first, `site` its packages, `cpu` QEMU's word."""

    profile: Profile
    qemu: Path
    root: Path
    site: Path
    python: str

    @property
    def cpu(self) -> str:
        """The processor, as QEMU names it."""
        assert self.profile.emulated_cpu
        return self.profile.emulated_cpu

    def command(self, *arguments: str) -> list[str]:
        """Runs the device's Python; PYTHONPATH has to name `site`."""
        return [*python_command(self.qemu, self.cpu, self.root), *arguments]


def emulator(profile: Profile, format: str) -> Emulator:
    """The device that runs `format`, a key of `edgeml.wheels.PACKAGES`, as on the profile's.

    What is here is put together where it was not yet. Raises EdgemlError with the command that fetches what is missing.
    """
    check_possible(profile)
    qemu, root = qemu_file(), root_folder()
    flags = f"{'' if format == 'onnx' else f' --runtime {format}'} --target {profile.asked}"
    get = f"edgeml download --emulator{flags}"
    if not (qemu.exists() and root.is_dir()):
        raise EdgemlError(f"the emulator of a {profile.title} is not here yet", hint=get)
    python = python_of(root)
    missing = missing_wheels(wheel_folder(profile, python, format), format)
    if missing:
        compiled = any(wanted.startswith(f"{COMPILED}==") for wanted in missing)
        message = f"what runs {format} on an emulated {profile.title} is not all here: {', '.join(missing)}"
        raise EdgemlError(message, hint=f"edgeml runtime build --target {profile.asked}" if compiled else get)
    site = _site(cached_wheels(profile, python, format))
    return Emulator(profile, qemu, _device(profile), site, python)


def check_possible(profile: Profile) -> None:
    """Raises EdgemlError where this profile's device cannot be emulated, or not here."""
    if profile.emulated_cpu is None:
        known = ", ".join(found.name for found in profiles() if found.emulated_cpu)
        raise EdgemlError(f"{profile.title}: nothing here runs its programs", hint=f"these can be emulated: {known}")
    if platform.system() != "Linux" or platform.machine() not in ("x86_64", "AMD64"):
        here = f"{platform.system()} on {platform.machine()}"
        hint = f"measure on the device itself: edgeml bench --target {profile.asked} --host USER@ADDRESS"
        raise EdgemlError(f"devices are emulated on Linux on x86_64 alone, and this is {here}", hint=hint)
    if os.pathsep in str(_home()):  # PYTHONPATH knows no way to quote it
        hint = "set EDGEML_CACHE to a folder without one"
        raise EdgemlError(f"no device is emulated in a folder with a colon in its name: {_home()}", hint=hint)


def qemu_file() -> Path:
    """Where the emulator lies, or a link to the one that this machine has."""
    return _home() / "qemu" / "qemu-aarch64"


def root_folder() -> Path:
    """Where the Python for ARM64 and its libraries lie."""
    return _home() / "root"


def python_of(root: Path) -> str:
    """The version (`3.11`) of a root's Python."""
    (version,) = {found[1] for path in (root / "usr/bin").iterdir() if (found := _PYTHON.fullmatch(path.name))}
    return version


def python_command(qemu: Path, cpu: str, root: Path) -> list[str]:
    """Starts a root's Python, which sees no packages but those of PYTHONPATH (-s, -S), nor the working folder (-P).

    It dies without leaving its memory in a file, which QEMU would write into the working folder.
    """
    bare = ["sh", "-c", 'ulimit -c 0; exec "$@"', "sh"]
    python = root / "usr/bin" / f"python{python_of(root)}"
    return [*bare, str(qemu), "-cpu", cpu, "-L", str(root), str(python), "-P", "-s", "-S"]


def cpuinfo(profile: Profile, cores: int) -> str:
    """`/proc/cpuinfo` as a kernel writes it for the profile's processor.

    QEMU before version 8.2 shows this machine's own, in which onnxruntime finds no ARM processor, and crashes. The
    words must agree with the emulated processor: onnxruntime and llama.cpp choose their instructions by them. `cores`
    are this machine's, since everything else in /proc and /sys is of this machine.
    """
    lines = {
        "BogoMIPS": "100.00",
        "Features": " ".join(profile.cpu_features),
        "CPU implementer": "0x41",  # Arm
        "CPU architecture": "8",
        "CPU variant": "0x0",
        "CPU part": profile.cpu_part,
        "CPU revision": "0",
    }
    each = "".join(f"{key}\t: {value}\n" for key, value in lines.items())
    return "".join(f"processor\t: {number}\n{each}\n" for number in range(cores))


def made_once(goal: Path, make: Callable[[Path], None]) -> Path:
    """The folder `goal`, made beside it and renamed; whoever is second takes that of the first."""
    if not goal.is_dir():
        with scratch_folder(goal) as scratch:
            whole = scratch / "whole"
            whole.mkdir()
            make(whole)
            try:
                whole.rename(goal)
            except OSError:
                if not goal.is_dir():
                    raise
    return goal


def _home() -> Path:
    return cache_folder().absolute() / "emulator"


def _device(profile: Profile) -> Path:
    """What the device's programs see: QEMU looks here first for every absolute path that they open."""
    files = {
        "proc/cpuinfo": cpuinfo(profile, os.cpu_count() or 1),
        "proc/device-tree/model": f"{profile.device_tree_model or profile.title}, emulated\0",
    }
    digest = hashlib.sha256("".join(files.values()).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content, encoding="utf-8")
        for name in ("usr", "lib"):
            (folder / name).symlink_to(Path("..") / root_folder().name / name)

    return made_once(_home() / f"{profile.name}-{digest}", make)


def _site(wheels: Sequence[Path]) -> Path:
    """The packages of these wheels, unpacked once: named by what the wheels hold."""
    digests = []
    for wheel in wheels:
        with wheel.open("rb") as file:
            digests.append(hashlib.file_digest(file, "sha256").hexdigest())
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        for wheel in wheels:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder)

    return made_once(_home() / f"site-{digest}", make)
