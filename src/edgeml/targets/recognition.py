"""Which profile a machine fits, by what it says of itself, and where it contradicts one."""

from __future__ import annotations

import platform
import struct
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.targets.files import shipped
from edgeml.targets.types import Probe, Profile, memory_words
from edgeml_runtime.machine import chip, cores
from edgeml_runtime.meters.sysfs import text

_PRODUCT = Path("/sys/class/dmi/id/product_name")  # what the maker of a PC calls it
_TERMUX = "/data/data/com.termux"  # where Android puts that app's files, home included
_MACHINES = {"AMD64": "x86_64", "ARM64": "aarch64"}  # Windows' words, and Linux' for the same
_BITS_32 = ("armv6l", "armv7l", "armv8l", "i386", "i486", "i586", "i686")
# The words of /proc/cpuinfo that decide which kernels run; a machine may be without any other that a profile names.
_DECISIVE = ("asimddp", "i8mm", "sve", "avx2", "avx512_vnni", "avx_vnni", "amx_int8")
_SPARE = 1.02  # a size is sold in whole units: what a system reports is never more than that above it
_LEAST = 0.75  # of the sold size is what a system reports at least; the rest is the firmware's and the kernel's
_OWN = "write its profile: edgeml targets --template > mine.yaml, then --target ./mine.yaml"


@cache
def here() -> Probe:
    """What this machine says of itself, as a device over SSH would."""
    found = chip()
    return Probe(
        machine=platform.machine(),
        userland_bits=struct.calcsize("P") * 8,
        system=f"{'Android' if sys.platform == 'android' else platform.system()} {platform.release()}",
        pythons=(".".join(platform.python_version_tuple()[:2]),),
        home=str(Path.home()),
        model=found.cpu if sys.platform == "darwin" else found.device or text(_PRODUCT),
        cpu_features=found.features,
        cores=cores(),
        memory_bytes=found.memory_bytes,
        emulator=found.emulator,
    )


def recognised(probe: Probe) -> Profile | None:
    """The profile that a machine fits, its chip and memory size chosen where they are told; None where none fits."""
    found = _by_model(probe) or _by_kind(probe)
    if found is None:
        return None
    named = next((key for key, one in found.chips.items() if one.title == _model(probe)), None)
    found = chosen(found, chip_name=named)
    return replace(found, chosen_gb=_sold(found, probe))


def profile_of(probe: Probe) -> Profile:
    """The profile that a machine fits; raises EdgemlError where there is none."""
    found = recognised(probe)
    if found is None:
        raise EdgemlError(_no_profile(probe), hint=_OWN)
    return found


def chosen(found: Profile, *, chip_name: str | None) -> Profile:
    """The profile, with a chip's own facts in the place of those that differ between chips."""
    if chip_name is None:
        return found
    one = found.chips[chip_name]
    decode = {"decode": one.decode_gb_s} if one.decode_gb_s else {}
    return replace(
        found,
        chosen_chip=chip_name,
        memory_gb=one.memory_gb,
        bandwidth_gb_s={"spec": one.bandwidth_gb_s, **decode},
        idle_w=one.idle_w,
        busy_w=one.busy_w,
    )


def is_here(profile: Profile) -> bool:
    """Whether this machine is such a one, with the chip and memory size that were chosen."""
    own = recognised(here())
    named = profile.file is None and own is not None and own.name == profile.name
    if not named and not (profile.file and _is_called(profile, _model(here()))):
        return False
    return not [*_other_model(profile, here()), *_other_memory(profile, here())]


def contradictions(profile: Profile, probe: Probe) -> list[str]:
    """What a machine says of itself that such a target cannot say, a sentence each; none where it may be one."""
    return list(_contradictions(profile, probe))


def _contradictions(profile: Profile, probe: Probe) -> Iterator[str]:
    machine = _machine(probe)
    if probe.userland_bits == 32 or machine in _BITS_32:
        yield _why_not_32(probe)
    elif machine != profile.machine:
        yield f"it is a {machine} machine, and {profile.name} is {profile.machine}"
    if _is_bionic(profile) != _is_android(probe):
        yield "it runs Android, where no wheel for Linux installs" if _is_android(probe) else "it does not run Android"
    yield from _other_model(profile, probe)
    yield from _other_memory(profile, probe)
    missing = [name for name in profile.cpu_features if name in _DECISIVE and name not in probe.cpu_features]
    if missing and probe.cpu_features:
        yield f"its processor lacks {', '.join(missing)}, which {profile.name} has"


def _other_model(profile: Profile, probe: Probe) -> Iterator[str]:
    """Each only where both sides say which board, chip or processor it is."""
    model = _model(probe)
    other = f", which is {found.name}" if (found := _by_model(probe)) and found.name != profile.name else ""
    beginnings = _beginnings(profile)
    if model and beginnings and not model.startswith(beginnings):
        yield f"it calls itself {model!r}{other}"
    elif model and profile.chosen_chip and model != profile.chips[profile.chosen_chip].title:
        yield f"its chip is {model!r}, not {profile.chips[profile.chosen_chip].title!r}"
    elif profile.cpu_part and probe.cpu_part and int(profile.cpu_part, 16) != int(probe.cpu_part, 16):
        yield f"its processor's part number is {probe.cpu_part}, and that of {profile.name} is {profile.cpu_part}"


def _other_memory(profile: Profile, probe: Probe) -> Iterator[str]:
    if not profile.chosen_gb or not probe.memory_bytes or probe.emulator:  # that tells the memory of its host
        return
    size, said = profile.chosen_gb, probe.memory_bytes / 2**30
    if not _LEAST * size <= said <= _SPARE * size:
        yield f"it has {said:.1f} GiB of memory, not {memory_words(size)}"


def _by_model(probe: Probe) -> Profile | None:
    return next((found for found in shipped() if _is_called(found, _model(probe))), None)


def _by_kind(probe: Probe) -> Profile | None:
    """The profile of a whole kind of machines, for one that does not say which it is."""
    kinds = {("Linux", "x86_64"): "laptop", ("Windows", "x86_64"): "laptop", ("Linux", "aarch64"): "arm64-linux"}
    kinds |= {("Darwin", "arm64"): "apple-silicon"}
    name = kinds.get((probe.system.partition(" ")[0], _machine(probe)))
    if _is_android(probe):
        name = "android"
    return next((found for found in shipped() if found.name == name), None)


def _no_profile(probe: Probe) -> str:
    machine, system = _machine(probe), probe.system.partition(" ")[0]
    if system == "Darwin" and machine == "x86_64":
        return "this is an Intel Mac, and edgeml has no profile of one"
    if machine in _BITS_32:
        return f"edgeml has no profile of this machine: {_why_not_32(probe)}"
    return f"edgeml has no profile of a {machine} machine with {system}"


def _why_not_32(probe: Probe) -> str:
    kernel = "a 64-bit kernel" if _machine(probe) in ("aarch64", "x86_64", "armv8l") else "a 32-bit kernel"
    programs = f"its programs are 32-bit, on {kernel}, and there are no such wheels of ONNX Runtime"
    arm = _machine(probe).startswith(("arm", "aarch64"))
    return f"{programs} (armv7l): install the 64-bit system" if arm else f"{programs}: install the 64-bit system"


def _is_called(profile: Profile, model: str | None) -> bool:
    return bool(model and (beginnings := _beginnings(profile)) and model.startswith(beginnings))


def _beginnings(profile: Profile) -> tuple[str, ...]:
    own = (profile.device_tree_model,) if profile.device_tree_model else ()
    return (*own, *profile.known_by)


def _model(probe: Probe) -> str | None:
    return probe.model.strip("\0 \n") if probe.model else None


def _machine(probe: Probe) -> str:
    return _MACHINES.get(probe.machine, probe.machine)


def _is_android(probe: Probe) -> bool:
    return probe.system.startswith("Android") or probe.home.startswith(_TERMUX)


def _is_bionic(profile: Profile) -> bool:
    return any(name.startswith("android") for name in profile.wheel_platforms)


def _sold(profile: Profile, probe: Probe) -> float | None:
    """The size that a machine's memory was sold as: the smallest that holds what the system reports."""
    if not probe.memory_bytes or probe.emulator:
        return None
    said = probe.memory_bytes / 2**30
    return next((size for size in sorted(profile.memory_gb) if _LEAST * size <= said <= _SPARE * size), None)
