"""The one verb that fetches: a model from a source, or the wheels of a runtime for a target.

Knows nothing of how any source works.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeml.bundles.image.base import Base, architecture_of, prepare_base
from edgeml.errors import EdgemlError
from edgeml.progress import Progress, beating, silent
from edgeml.sources import Consent, Fetched, source_of
from edgeml.sources.pip import run_pip
from edgeml.store import Store, alone
from edgeml.targets import emulator_parts, instructions
from edgeml.targets.emulator import Emulator, emulator
from edgeml.targets.types import Profile
from edgeml.types import Model, ModelRef
from edgeml.wheels import (
    COMPILED,
    cached_wheels,
    can_build_for,
    default_python,
    is_own,
    missing_wheels,
    put_wheel,
    shared_wheel,
    wheel_folder,
)
from edgeml_runtime.records import read_record

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_TAKEN = "bundles"  # the store keeps bundles in a folder of that name
# Portable instructions and no OpenMP library: a bundle must run on the next machine of the same kind, too.
_BUILD = "-DGGML_NATIVE=OFF -DGGML_OPENMP=OFF -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TOOLS=OFF"


def download(
    ref: ModelRef,
    *,
    store: Store,
    name: str | None = None,
    consent: Consent = Consent(),  # noqa: B008 - frozen
    progress: Progress = silent,
) -> Model:
    """The model behind a reference: pinned, fetched, verified, and known to the store by a short name.

    The same reference keeps its name. Raises EdgemlError and leaves nothing that looks complete.
    """
    _check_name(name, ref)
    with _room(progress) as alive:
        fetched = source_of(ref).fetch(ref, consent=consent, progress=alive)
        with alone(store.root / "names", alive, doing="naming a model"):  # or two models might get one name
            model = _model(fetched, _free_name(store, name, fetched.ref))
            store.add_model(model)
    return model


def runtime_wheels(profile: Profile, format: str, *, python: str | None = None, progress: Progress = silent) -> Path:
    """The folder with every wheel that runs `format` on a target; what is there already is not fetched again.

    `python` is a version such as `3.11`. llama-cpp-python has no wheels on the index: it is compiled for this machine,
    and for another one `edgeml.runtime` has to have built or taken it before.
    """
    wanted_python = python or default_python(profile)
    folder = wheel_folder(profile, wanted_python, format)
    missing = missing_wheels(folder, format)
    compiled = [wanted for wanted in missing if wanted.startswith(f"{COMPILED}==")]
    for wanted in tuple(compiled):
        if shared := shared_wheel(profile, format, wanted):
            put_wheel(shared, folder)
            compiled.remove(wanted)
    if compiled and not is_own(profile):
        hint = f"edgeml runtime build --target {profile.asked}"
        if not can_build_for(profile):
            hint = f"build it there (pip wheel --no-deps {compiled[0]}), then {hint} --wheel FILE"
        raise EdgemlError(f"the index has no {compiled[0]} wheel for {profile.title}", hint=hint)
    with _room(progress) as alive:
        ready = [wanted for wanted in missing if not wanted.startswith(f"{COMPILED}==")]
        if ready:
            arguments = ["download", "--only-binary=:all:", *_platform(profile, wanted_python), "--dest"]
            _add(folder, arguments, ready, step="download wheels", progress=alive)
        for wanted in compiled:
            step = f"compile {wanted} (minutes, once)"
            _add(folder, ["wheel", "--wheel-dir"], [wanted], step=step, progress=alive)
    return folder


def wheels_for(profile: Profile, python: str, format: str, *, progress: Progress = silent) -> Sequence[Path]:
    """The wheels that run `format` on a target and a Python version, one a requirement; those missing are fetched."""
    runtime_wheels(profile, format, python=python, progress=progress)
    return cached_wheels(profile, python, format)


def emulated_device(
    profile: Profile, format: str, *, count_instructions: bool = False, progress: Progress = silent
) -> Emulator:
    """All that runs `format` as on a device of that profile, from packages only; what is there is not fetched again.

    With `count_instructions`, also an emulator that counts them. Raises EdgemlError where the device cannot be emulated
    here, or its parts cannot be had.
    """
    with _room(progress) as alive:
        python = emulator_parts.prepare(profile, progress=alive)
        runtime_wheels(profile, format, python=python, progress=alive)
        if count_instructions:
            instructions.prepare_counter(profile, progress=alive)
        return emulator(profile, format)


def image_base(profile: Profile, *, progress: Progress = silent) -> Base:
    """What an image for that target stands on: the newest Python and libraries of this machine's Debian.

    Raises EdgemlError where no image runs on the target, or apt cannot be had or reached.
    """
    with _room(progress) as alive:
        return prepare_base(architecture_of(profile.machine, profile.name), alive)


def _platform(profile: Profile, python: str) -> list[str]:
    platforms = [word for platform in profile.wheel_platforms for word in ("--platform", platform)]
    return [*platforms, "--python-version", python, "--implementation", "cp"]


def _add(folder: Path, arguments: Sequence[str], wanted: Sequence[str], *, step: str, progress: Progress) -> None:
    """Let pip work in a folder beside, then move what is complete."""
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="pip-", dir=folder.parent) as scratch:
        command = [*arguments, scratch, "--no-deps", *wanted]
        flags = {"CMAKE_ARGS": f"{_BUILD} {os.environ.get('CMAKE_ARGS', '')}".strip()}
        run_pip(command, Path(scratch), step=step, progress=progress, environment=flags)
        for wheel in Path(scratch).glob("*.whl"):
            os.replace(wheel, folder / wheel.name)


def _model(fetched: Fetched, name: str) -> Model:
    return Model(
        name=name,
        ref=str(fetched.ref),
        path=str(fetched.path),
        files=fetched.files,
        format=fetched.format,
        downloaded=datetime.now(UTC).isoformat(timespec="seconds"),
        licence=fetched.licence,
        task=fetched.task,
        source_sha256=fetched.source_sha256,
    )


def _check_name(name: str | None, ref: ModelRef) -> None:
    wanted = ref.short_name if name is None else name
    if _NAME.fullmatch(wanted) and wanted != _TAKEN:
        return
    if name is None:
        raise EdgemlError(f"no short name can be made of {ref}", hint="name it: --name NAME")
    hint = "use lower-case letters, digits, dots, dashes and underscores"
    raise EdgemlError(f"{name!r} cannot be a model's name", hint=hint)


def _free_name(store: Store, name: str | None, ref: ModelRef) -> str:
    if name is None:
        return store.free_name(ref)
    path = store.root / name / "model.json"
    if path.exists() and (taken := read_record(path, Model).ref) != str(ref):
        raise EdgemlError(f"{name} is the name of {taken}", hint="choose another: --name NAME")
    return name


@contextmanager
def _room(progress: Progress) -> Iterator[Progress]:
    """What fetches and compiles report to; a full disk is said in one sentence."""
    try:
        with beating(progress) as alive:
            yield alive
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise EdgemlError("the disk is full", hint="make room, or set EDGEML_CACHE to another disk") from error
