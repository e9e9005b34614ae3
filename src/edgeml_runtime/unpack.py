"""Makes a bundle's own packages importable: unpacks those of its wheels that fit this Python.

Uses the standard library alone, since nothing else is there yet. Neither pip nor venv is needed, which Debian ships
apart and which would fetch what they miss: the wheels that edgeml packs are plain files, so unpacking installs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from edgeml_runtime.errors import EdgemlError

_TAGS = re.compile(r"[^-]+-[^-]+(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl")
_COPY_AGAIN = "copy the bundle again"


class Packed(NamedTuple):
    """What a bundle's manifest says that matters here; `wheels` are digests by file name."""

    machine: str
    python: list[str]
    wheels: dict[str, str]


def unpack(folder: Path) -> Path:
    """The folder to put on PYTHONPATH, made the first time: beside the bundle, or in the user's cache.

    A bundle without wheels needs none and gets its own folder. A folder under its final name is complete. Raises
    EdgemlError when the wheels are for another Python or machine, are not those that were packed, or find no room.
    """
    packed = _read(folder / "bundle.json")
    wheels = _fitting(packed)
    if not wheels:
        return folder
    name = f".site-{_version()}-{_digest(wheels)}"
    homes = (folder, _cache())
    found = [home / name for home in homes if (home / name).is_dir()]
    return found[0] if found else _make(homes, name, folder / "wheels", wheels)


def fits(wheel: str) -> bool:
    """Whether a wheel of that name runs here: its tags against this interpreter, C library and machine."""
    tags = _TAGS.fullmatch(wheel)
    if not tags:
        return False
    return serves(wheel, _version()) and any(map(_platform_fits, tags["platform"].split(".")))


def _fitting(packed: Packed) -> dict[str, str]:
    """One wheel a package, with its digest."""
    fitting = {_package(wheel): wheel for wheel in sorted(packed.wheels) if fits(wheel)}
    if platform.machine() != packed.machine or sys.maxsize < 2**32 or set(fitting) != set(map(_package, packed.wheels)):
        raise _unfit(packed)
    return {wheel: packed.wheels[wheel] for wheel in fitting.values()}


def serves(wheel: str, version: str) -> bool:
    """Whether a wheel of that name is for that version of Python (`3.11`), whatever the machine."""
    tags, minor = _TAGS.fullmatch(wheel), int(version.partition(".")[2])
    return tags is not None and any(_python_fits(one, tags["abi"], minor) for one in tags["python"].split("."))


def _python_fits(python: str, abi: str, minor: int) -> bool:
    if abi == "abi3" and python.startswith("cp3"):
        return int(python[3:]) <= minor
    return python in ("py3", f"cp3{minor}") and abi in ("none", f"cp3{minor}")


def _platform_fits(name: str) -> bool:
    if name == "any":
        return True
    system = ("macosx_",) if sys.platform == "darwin" else ("linux_", "manylinux")
    if not (name.startswith(system) and name.endswith(f"_{platform.machine()}")):
        return False
    needed = re.match(r"manylinux_(\d+)_(\d+)_", name)
    return sys.platform == "darwin" or _glibc() >= ((int(needed[1]), int(needed[2])) if needed else (2, 17))


def _glibc() -> tuple[int, ...]:
    library, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if library == "glibc" else ()


def _make(homes: tuple[Path, ...], name: str, folder: Path, wheels: dict[str, str]) -> Path:
    for home in homes:
        try:
            home.mkdir(parents=True, exist_ok=True)
            part = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=home))
        except OSError:  # not ours to write, or a read-only disk: try the next
            continue
        try:
            for wheel, digest in wheels.items():
                _extract(folder / wheel, digest, part)
            part.chmod(0o755)
            if hasattr(os, "sync"):  # a power cut must not leave a final name on files that are not on the disk
                os.sync()
            return _take_name(part, home / name)
        finally:
            shutil.rmtree(part, ignore_errors=True)
    raise EdgemlError(
        f"neither {homes[0]} nor {homes[1]} can be written", hint="set XDG_CACHE_HOME to a folder that can"
    )


def _extract(wheel: Path, digest: str, goal: Path) -> None:
    try:
        with wheel.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != digest:
                raise EdgemlError(f"{wheel} is not the file that was packed", hint=_COPY_AGAIN)
            with zipfile.ZipFile(file) as archive:
                archive.extractall(goal)
    except OSError as error:
        raise EdgemlError(f"cannot unpack {wheel}: {error.strerror}", hint="make room, or " + _COPY_AGAIN) from error


def _take_name(part: Path, goal: Path) -> Path:
    try:
        part.rename(goal)
    except OSError:
        if not goal.is_dir():  # otherwise another process was as quick, with the same files
            raise
    return goal


def _read(path: Path) -> Packed:
    try:
        found = json.loads(path.read_bytes())
        files = {file["path"]: file["sha256"] for file in found["files"]}
        wheels = {name.removeprefix("wheels/"): digest for name, digest in files.items() if name.startswith("wheels/")}
        words = [found["machine"], *found["python"], *wheels.values()]
        if not all(isinstance(word, str) and word.isprintable() for word in words):
            raise TypeError("a name in it is none")
        return Packed(found["machine"], found["python"], wheels)
    except OSError as error:
        raise EdgemlError(
            f"cannot read {path}: {error.strerror}", hint="name the folder that run.sh lies in"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise EdgemlError(f"{path} is no bundle's manifest", hint=_COPY_AGAIN) from error


def _package(wheel: str) -> str:
    return wheel.partition("-")[0]


def _digest(wheels: dict[str, str]) -> str:
    """Names a set of wheels by its contents, so that a bundle copied over an older one unpacks its own."""
    return hashlib.sha256("".join(wheels.values()).encode()).hexdigest()[:12]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgeml"


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def _unfit(packed: Packed) -> EdgemlError:
    here = [f"Python {_version()}", platform.machine()]
    here += ["32 bits"] if sys.maxsize < 2**32 else []
    here += [" ".join(platform.libc_ver()).strip() or "no glibc"] if sys.platform != "darwin" else []
    return EdgemlError(
        f"this bundle is for Python {' or '.join(packed.python)} on {packed.machine}, and this is {', '.join(here)}",
        hint="install such a Python, or pack for this machine: edgeml package --target TARGET",
    )
