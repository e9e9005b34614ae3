"""Verb: pack a variant with all that runs it on a target, offline: one folder or archive to copy, with a self-test."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import msgspec

import edgeml_runtime
from edgeml.bundles import kind_of
from edgeml.cards import model_card
from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.measurements import measurements
from edgeml.progress import Counter, Progress, silent
from edgeml.store import Store, scratch_folder, take_place
from edgeml.targets.types import Profile
from edgeml.types import Measurement, Model, ModelRef, Run, Variant
from edgeml.wheels import cached_wheels, default_python, missing_wheels, requirements, runtime_of, wheel_folder
from edgeml_runtime.bundle import GOLDENS, MANIFEST, SUMS, VARIANT, checksums
from edgeml_runtime.records import decode, describe, describe_file, read_record, verify, write_record
from edgeml_runtime.types import Bundle, File, Record, Refusal, VariantManifest

_LICENCE = re.compile(r"(licen[cs]e|copying|notice)\b.*", re.IGNORECASE)


class Order(Record, frozen=True, kw_only=True):
    """What to pack. `manifest` is the variant's as the bundle will show it; `wheels` are files, by Python version."""

    name: str
    variant: Variant
    manifest: VariantManifest
    profile: Profile
    kind: str
    wheels: dict[str, tuple[Path, ...]]
    goldens: Path | None = None


def package(  # noqa: PLR0913 - the verb's options are its command's
    variant: Variant,
    *,
    store: Store,
    profile: Profile,
    kind: str,
    goldens: Path | None = None,
    wheels: bool = True,
    force: bool = False,
    progress: Progress = silent,
) -> Bundle:
    """The bundle written to `bundle_path`; one that exists stays, and must be equal unless `force` replaces it.

    `goldens` is a file of the user's own lines, which will travel in the bundle; otherwise the self-test's are
    synthetic. Raises EdgemlError when the variant is not what its manifest says, cannot be run here, or its answers
    do not depend on its input; nothing is left behind then.
    """
    form, read = kind_of(kind), Counter(progress, f"verify {variant.name}", variant.manifest.size_bytes)
    verify(variant.path, variant.manifest.files, tick=read)
    order = _order(variant, profile, kind, goldens=goldens, wheels=wheels)
    goal = store.root / "bundles" / (order.name + form.SUFFIX)
    with _workspace(goal) as space:
        folder = space / order.name
        bundle = _fill(folder, order, store, progress)
        progress(f"write {goal.name}", 0, 1)
        made = form.seal(folder)
        if goal.exists() and form.same(made, goal):
            return bundle
        if goal.exists() and not force:
            raise EdgemlError(f"{goal} exists and differs", hint="add --force to replace it")
        take_place(made, goal, space / "replaced")
    progress(f"write {goal.name}", 1, 1)
    return bundle


def bundle_path(store: Store, bundle: Bundle) -> Path:
    """Where a bundle of this store lies."""
    return store.root / "bundles" / (bundle.name + kind_of(bundle.kind).SUFFIX)


def _order(variant: Variant, profile: Profile, kind: str, *, goldens: Path | None, wheels: bool) -> Order:
    model, _, folder_name = variant.name.partition("/")
    return Order(
        name=f"{model}-{folder_name}-{profile.name}",
        variant=variant,
        manifest=msgspec.structs.replace(variant.manifest, model=public_ref(variant.manifest.model)),
        profile=profile,
        kind=kind,
        wheels=_wheels(variant, profile) if wheels else {},
        goldens=goldens,
    )


def public_ref(ref: str) -> str:
    """A model's reference without a path of this machine: `local:` and the last part, where it is a path."""
    parsed = ModelRef.parse(ref)
    return f"local:{Path(parsed.id).resolve().name}" if parsed.source == "local" else ref


def _fill(folder: Path, order: Order, store: Store, progress: Progress) -> Bundle:
    _copy_variant(order, folder / VARIANT, progress)
    _copy_runtime(folder / "edgeml_runtime")
    _copy_licences(order, store, folder / "licences")
    for paths in order.wheels.values():
        _copy_wheels(paths, folder / "wheels")
    (folder / "run.sh").write_bytes((files("edgeml.bundles") / "run.sh").read_bytes())
    pins = "".join(f"{pin}\n" for pin in sorted(requirements(runtime_of(order.manifest))))
    (folder / "requirements.txt").write_text(pins, encoding="utf-8")
    card = model_card(order.manifest, order.profile, measurements=_measured(order.variant, store))
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    progress("goldens", 0, 1)
    _record_goldens(folder, order)
    return _seal_manifest(folder, order)


def _copy_variant(order: Order, goal: Path, progress: Progress) -> None:
    copied = Counter(progress, "copy", order.manifest.size_bytes)
    for file in order.manifest.files:
        path = goal / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(order.variant.path / file.path, path)
        copied(file.size_bytes)
    write_record(goal / "variant.json", order.manifest)


def _copy_runtime(goal: Path) -> None:
    source = Path(edgeml_runtime.__path__[0])
    for path in (*source.rglob("*.py"), source / "py.typed"):
        copy = goal / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


def _copy_licences(order: Order, store: Store, goal: Path) -> None:
    """The licence texts among the model's own files, where the model is still here."""
    record = store.root / order.variant.name.partition("/")[0] / "model.json"
    model = read_record(record, Model) if record.is_file() else None
    for file in model.files if model else ():
        source = Path(model.path) / file.path if model else Path()
        if _LICENCE.fullmatch(source.name) and source.is_file():
            copy = goal / file.path  # two texts may have one name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)


def _wheels(variant: Variant, profile: Profile) -> dict[str, tuple[Path, ...]]:
    """The wheels of each Python version that were downloaded for this target; at least one version's must be."""
    found, format = {}, runtime_of(variant.manifest)
    for python in dict.fromkeys((default_python(profile), *profile.python)):
        if not missing_wheels(wheel_folder(profile, python, format), format):
            found[python] = cached_wheels(profile, python, format)
    return found or {default_python(profile): cached_wheels(profile, default_python(profile), format)}


def _copy_wheels(paths: Sequence[Path], goal: Path) -> None:
    goal.mkdir(exist_ok=True)
    for path in paths:
        with zipfile.ZipFile(path) as wheel:
            if any(re.match(r"[^/]+\.data/(pure|plat)lib/", name) for name in wheel.namelist()):
                raise EdgemlError(f"{path.name} needs an installer", hint="bundles unpack wheels: use another version")
        shutil.copyfile(path, goal / path.name)


def _measured(variant: Variant, store: Store) -> list[Measurement]:
    """Of each task and target the latest run of exactly these weights, over all rows: a slice names a group."""
    model, _, folder_name = variant.name.partition("/")
    weights = variant.manifest.weights_sha256
    paths = sorted((store.root / model / "measurements").glob(f"{folder_name}.*.json"))
    runs = [run for run in (read_record(path, Run) for path in paths) if run.variant_sha256 == weights]
    latest = {(run.task, run.target): run for run in sorted(runs, key=lambda run: run.started)}
    size_bytes = variant.manifest.size_bytes
    found = [one for key in sorted(latest) for one in measurements(latest[key], size_bytes=size_bytes)]
    return [one for one in found if one.slice is None]


def _record_goldens(folder: Path, order: Order) -> None:
    """Run the bundle's own copy of runtime and variant, in a child since llama.cpp may abort its process."""
    texts = ["--texts", str(order.goldens)] if order.goldens else []
    output = ["--output", str(folder / GOLDENS)]
    command = [sys.executable, "-P", "-B", "-m", "edgeml_runtime", "goldens", str(folder), "--json", *output, *texts]
    environment = os.environ | {"PYTHONPATH": str(folder)}
    with started(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        said, complaints = child.communicate()
    if child.returncode == EdgemlError.exit_code:
        refusal = decode(said.strip().rpartition("\n")[2], Refusal, where="the answer of goldens")
        raise EdgemlError(refusal.message, hint=refusal.hint)
    if child.returncode < 0:
        ended, words = signal.Signals(-child.returncode).name, complaints.strip().rpartition("\n")[2]
        hint = f"its last words: {words or 'none'}"
        raise EdgemlError(f"{order.manifest.name} cannot be run: its process died of {ended}", hint=hint)
    if os.strerror(errno.ENOSPC) in complaints:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if child.returncode:  # a traceback: a bug of ours, shown whole
        raise RuntimeError(f"making goldens failed:\n{complaints}")


def _seal_manifest(folder: Path, order: Order) -> Bundle:
    bundle = Bundle(
        name=order.name,
        variant=order.manifest.name,
        model=order.manifest.model,
        target=order.profile.name,
        kind=order.kind,
        runtime=edgeml_runtime.__version__,
        files=describe(folder),
        machine=order.profile.machine,
        python=tuple(order.wheels) or order.profile.python,
        licence=order.manifest.licence,
    )
    write_record(folder / MANIFEST, bundle)
    everything: tuple[File, ...] = (*bundle.files, describe_file(folder / MANIFEST, MANIFEST))
    (folder / SUMS).write_text(checksums(everything), encoding="utf-8")
    return bundle


@contextmanager
def _workspace(goal: Path) -> Iterator[Path]:
    """A folder beside the goal that is gone in the end, come what may."""
    try:
        with scratch_folder(goal) as space:
            yield space
    except OSError as error:
        what = f"cannot write {goal}: {error.strerror}"
        raise EdgemlError(what, hint="make room on the disk, or name another --artifacts folder") from error
