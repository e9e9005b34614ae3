"""Whether a wheel runs on a target, by its tag and by what is in its libraries; nothing is run for that."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from edgeml.crossbuild.elf import AARCH64, X86_64, Library, read_library
from edgeml.crossbuild.llama import PAGE_BYTES, SYSTEM
from edgeml.crossbuild.wheel import WheelName, libraries_in
from edgeml.errors import EdgemlError
from edgeml.targets.types import Profile

_MACHINES = {"aarch64": AARCH64, "x86_64": X86_64}
_DISPATCHED = re.compile(r"libggml-cpu-(?P<cpu>.+)\.so")  # loaded only where the processor can run it
_PLATFORM = re.compile(r"(many)?(?P<system>[a-z]+?)\d*(_\d+)*_(?P<machine>[a-z].*)")  # manylinux_2_28_aarch64
_PROMISED = re.compile(r"manylinux_(\d+)_(\d+)_")


def libraries_of(path: Path) -> dict[str, Library]:
    """What is in each library of a wheel for Linux, by file name; none in a wheel for another system.

    Raises EdgemlError when it does not hold llama.cpp.
    """
    if "linux" not in WheelName.parse(path.name).platform:
        return {}
    try:
        found = {name.rpartition("/")[2]: read_library(content) for name, content in libraries_in(path).items()}
    except ValueError as error:
        raise EdgemlError(f"{path.name} holds {error}", hint="build or copy it again") from error
    if "libllama.so" not in found:
        raise EdgemlError(f"{path.name} holds no libllama.so", hint="build or copy it again")
    return found


def tag_fits(name: WheelName, profile: Profile) -> bool:
    """Whether a wheel's tag is that of any Python on the target's system and machine, however old that system is."""
    own, *found = (_PLATFORM.fullmatch(part) for part in (profile.wheel_platforms[0], *name.platform.split(".")))
    kinds = [match.groupdict() for match in found if match]
    return own is not None and own.groupdict() in kinds and (name.python, name.abi) == ("py3", "none")


def cpus(libraries: Mapping[str, Library]) -> tuple[str, ...]:
    """The kinds of CPU that the libraries have kernels for and choose among; empty where they have one kind alone."""
    return tuple(found["cpu"] for name in sorted(libraries) if (found := _DISPATCHED.fullmatch(name)))


def unfit(libraries: Mapping[str, Library], profile: Profile) -> str | None:
    """Why such libraries do not run on a target; None where nothing speaks against it."""
    if foreign := [name for name, one in libraries.items() if one.machine != _MACHINES.get(profile.machine)]:
        return f"{foreign[0]} is for another processor"
    if profile.machine != "aarch64" or profile.integer_kernels == "arm64-dotprod":
        return None
    always = [name for name, one in libraries.items() if one.dot_products and not _DISPATCHED.fullmatch(name)]
    chosen = [one for name, one in libraries.items() if _DISPATCHED.fullmatch(name)]
    if always or (chosen and all(one.dot_products for one in chosen)):
        return "its processor lacks the dot-product instructions that are in it"
    return None


def doubts(libraries: Mapping[str, Library], profile: Profile) -> Iterator[str]:
    """What a wheel asks of a target that cannot be told from here."""
    asked = {need for one in libraries.values() for need in one.needs}
    if missing := sorted(asked - SYSTEM - set(libraries)):
        yield f"the device must have {', '.join(missing)}: the wheel does not bring them"
    promised = _PROMISED.match(profile.wheel_platforms[0])
    latest = newest(libraries)
    if promised and latest > (int(promised[1]), int(promised[2])):
        yield f"it needs glibc {latest[0]}.{latest[1]}: compare `getconf GNU_LIBC_VERSION` on the device"
    if profile.machine == "aarch64" and any(one.page_bytes < PAGE_BYTES for one in libraries.values()):
        yield f"it does not load where memory pages have {PAGE_BYTES} bytes, as Raspberry Pi OS has on a Pi 5"
    fast = any(one.dot_products for one in libraries.values())
    if libraries and profile.integer_kernels == "arm64-dotprod" and not fast:
        yield f"it holds no dot-product instructions, with which {profile.title} would be faster"


def newest(libraries: Mapping[str, Library]) -> tuple[int, int]:
    """The oldest glibc that has all that the libraries ask for; (0, 0) where there is none to read."""
    return max((one.glibc for one in libraries.values()), default=(0, 0))
