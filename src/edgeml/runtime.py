"""The verb that compiles what the index has no wheel of: llama.cpp for a device, once, on this machine.

Everything that takes wheels for a target finds it in their folder afterwards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from time import monotonic

import msgspec

from edgeml import __version__
from edgeml.crossbuild import fit, llama
from edgeml.crossbuild.elf import Library
from edgeml.crossbuild.toolchain import install
from edgeml.crossbuild.wheel import WheelName, member_of
from edgeml.errors import EdgemlError
from edgeml.progress import Progress, beating, silent
from edgeml.store import cache_folder, scratch_folder
from edgeml.targets import profiles
from edgeml.targets.types import Profile, Runtime
from edgeml.wheels import COMPILED, can_build_for, is_own, put_wheel, requirements, shared_wheel, wheel_folder

_FORMAT = "gguf"


def build(profile: Profile, *, wheel: Path | None = None, force: bool = False, progress: Progress = silent) -> Runtime:
    """The llama.cpp runtime for a target, in the folder of its wheels: compiled here, or taken from a file.

    One wheel serves every 64-bit Arm Linux: it loads dot-product kernels where the processor has them. Nothing is
    built where the same was built before, or a wheel of the user's own lies, unless by `force`. Raises EdgemlError, and
    leaves what was there, for a target that cannot be built for and for a wheel that would not run on it.
    """
    wanted = next(one for one in requirements(_FORMAT) if one.startswith(f"{COMPILED}=="))
    if wheel is not None:
        return _taken(wheel, profile, wanted)
    _refuse_others(profile, wanted)
    found = shared_wheel(profile, _FORMAT, wanted)
    if found and not force and _built_with(found) in ({}, llama.recipe()):
        return _placed(found, profile, fit.libraries_of(found))
    began_s = monotonic()
    with beating(progress) as alive, scratch_folder(cache_folder() / "runtime-build") as scratch:
        path = _built(wanted.partition("==")[2], scratch, alive)
        runtime = _placed(path, profile, fit.libraries_of(path))
    return msgspec.structs.replace(runtime, seconds=round(monotonic() - began_s, 1))


def _refuse_others(profile: Profile, wanted: str) -> None:
    if can_build_for(profile):
        return
    if is_own(profile):
        message = f"{wanted} for this machine is compiled by this machine's own compiler"
        raise EdgemlError(message, hint=f"edgeml download --runtime {_FORMAT}")
    raise EdgemlError(
        f"{wanted} cannot be built here for {profile.title}: only for 64-bit Arm Linux",
        hint=f"build it there (pip wheel --no-deps {wanted}), then add --wheel FILE here",
    )


def _built(version: str, scratch: Path, progress: Progress) -> Path:
    log = cache_folder() / "runtime-build.log"  # outlives a build that fails, and no other
    log.unlink(missing_ok=True)
    tools = install(scratch / "toolchain", progress)
    source = llama.fetch(version, scratch / "source", progress)
    try:
        libraries = llama.compiled(source, tools, scratch / "build", log=log, progress=progress)
    except BaseException as error:
        if not isinstance(error, EdgemlError):
            log.unlink(missing_ok=True)
        raise
    log.unlink()
    return llama.packed(source, libraries, scratch, version=version, generator=f"edgeml {__version__}")


def _taken(path: Path, profile: Profile, wanted: str) -> Runtime:
    """A user's own wheel in its place, if it is the right one."""
    name, version = WheelName.parse(path.name), wanted.partition("==")[2]
    if (name.package, name.version) != (COMPILED, version):
        message = f"{path.name} is not {wanted}, the version that goes with this edgeml"
        raise EdgemlError(message, hint=f"pip wheel --no-deps {wanted}")
    if not fit.tag_fits(name, profile):
        hint = f"it must end in py3-none-{profile.wheel_platforms[0]}.whl, or in another version of that platform"
        raise EdgemlError(f"{path.name} is not for {profile.title}", hint=hint)
    libraries = fit.libraries_of(path)
    if why := fit.unfit(libraries, profile):
        hint = f"edgeml runtime build --target {profile.asked}, without --wheel, builds one that does"
        hint = hint if can_build_for(profile) else "build it on such a device"
        raise EdgemlError(f"{path.name} does not run on {profile.title}: {why}", hint=hint)
    return _placed(path, profile, libraries)


def _placed(path: Path, profile: Profile, libraries: Mapping[str, Library]) -> Runtime:
    """The wheel where each target that it serves looks for it."""
    name, glibc = WheelName.parse(path.name), fit.newest(libraries)
    targets = tuple(_put(path, profile, libraries))
    return Runtime(
        package=COMPILED,
        version=name.version,
        targets=tuple(sorted(targets)),
        file=path.name,
        size_bytes=path.stat().st_size,
        sha256=sha256(path.read_bytes()).hexdigest(),
        cpus=fit.cpus(libraries),
        dot_products=sum(one.dot_products for one in libraries.values()),
        glibc=".".join(map(str, glibc)) if any(glibc) else None,
        built_with=_built_with(path),
        warnings=tuple(fit.doubts(libraries, profile)),
    )


def _put(path: Path, profile: Profile, libraries: Mapping[str, Library]) -> Iterator[str]:
    """Every target on which the wheel runs; where it was not asked for, a wheel of the user's own stays."""
    name, content = WheelName.parse(path.name), path.read_bytes()
    for one in (profile, *(other for other in profiles() if other.name != profile.name)):
        if not fit.tag_fits(name, one) or fit.unfit(libraries, one):
            continue
        folders = [wheel_folder(one, python, _FORMAT) for python in one.python]
        others = [other for folder in folders for other in folder.glob(f"{name.name}-{name.version}-*.whl")]
        kept = [other for other in others if not _built_with(other) and other.read_bytes() != content]
        if one.name == profile.name or not kept:
            for folder in folders:
                put_wheel(path, folder)
            yield one.name


def _built_with(path: Path) -> dict[str, str]:
    """What edgeml built a wheel with; empty for one of another origin."""
    found = member_of(path, f"{WheelName.parse(path.name).info}/{llama.BUILT}")
    return msgspec.json.decode(found, type=dict[str, str]) if found else {}
