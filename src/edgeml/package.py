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
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from shlex import quote
from typing import Any

import msgspec

import edgeml_runtime
from edgeml.bundles import Kind, kind_of
from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.formats.onnx.int8 import misfit
from edgeml.papers import bom, licences, origin
from edgeml.papers.data_card import data_card
from edgeml.papers.evidence import evidence
from edgeml.papers.model_card import model_card
from edgeml.papers.own import card_notes
from edgeml.papers.wheel_papers import copy_texts, packed
from edgeml.progress import Counter, Progress, beating, silent
from edgeml.signing import sign
from edgeml.store import Store, alone, scratch_folder, take_place, using
from edgeml.targets.types import Profile
from edgeml.types import Model, Variant
from edgeml.wheels import cached_wheels, default_python, missing_wheels, requirements, runtime_of, wheel_folder
from edgeml_runtime.bundle import GOLDENS, MANIFEST, SUMS, VARIANT, Bundle, checksums
from edgeml_runtime.records import decode, describe, describe_file, read_record, verify, write_record
from edgeml_runtime.types import File, Record, Refusal, VariantManifest


class Order(Record, frozen=True, kw_only=True):
    """What to pack. `manifest` is the variant's as the bundle will show it; `wheels` are files, by Python version."""

    name: str
    variant: Variant
    manifest: VariantManifest
    profile: Profile
    kind: str
    wheels: dict[str, tuple[Path, ...]]
    goldens: Path | None = None
    licence: Path | None = None
    key: Path | None = None
    recipe: dict[str, Any] = {}
    version: str = "1"


def ignored(text: str) -> None:
    """Nobody listens."""


def package(  # noqa: PLR0913 - the verb's options are its command's
    variant: Variant,
    *,
    store: Store,
    profile: Profile,
    kind: str,
    goldens: Path | None = None,
    wheels: bool = True,
    licence: Path | None = None,
    key: Path | None = None,
    recipe: Mapping[str, Any] | None = None,
    version: str = "1",
    force: bool = False,
    tell: Callable[[str], None] = ignored,
    progress: Progress = silent,
) -> Bundle:
    """The bundle written to `bundle_path`; one that exists stays, and must be equal unless `force` replaces it.

    `goldens` is a file of the user's own lines, which will travel in the bundle; otherwise the self-test's are
    synthetic. `licence` is the text of the model's licence, where its files hold none; `key` a private key in PEM
    that signs the bundle; `version` is the model's, `recipe` what asked for it; `tell` hears what a user must be
    warned of. Raises EdgemlError when the variant is not what its manifest says, cannot be run here, its answers do
    not depend on its input, or its licence is known to forbid this; nothing is left behind then.
    """
    form, read = kind_of(kind), Counter(progress, f"verify {variant.name}", variant.manifest.size_bytes)
    verify(variant.path, variant.manifest.files, tick=read)
    more = {"goldens": goldens, "licence": licence, "key": key, "recipe": dict(recipe or {}), "version": version}
    order = _order(variant, profile, kind, wheels=wheels, more=more)
    for text in (*_misfits(order), *licences.check(_asked(order, store))):
        tell(text)
    goal = store.root / "bundles" / (order.name + form.SUFFIX)
    with beating(progress) as alive, _workspace(goal) as space, using([variant.path]):
        bundle = _fill(space / order.name, order, store, alive)
        alive(f"write {goal.name}", 0, 1)
        made = _sealed(space / order.name, form, key)
        with alone(goal, alive, doing=f"packing {order.name}"):
            _put(made, goal, form, aside=space / "replaced", force=force)
    progress(f"write {goal.name}", 1, 1)
    return bundle


def _sealed(folder: Path, form: Kind, key: Path | None) -> Path:
    """What is to be copied; where that is a folder of other files than were signed, those are signed, too."""
    made = form.seal(folder)
    if key and made.is_dir() and made != folder:
        sign(made, key)
    return made


def _put(made: Path, goal: Path, form: Kind, *, aside: Path, force: bool) -> None:
    """Let what was made take its place, unless that is there already."""
    if goal.exists() and form.same(made, goal):
        return
    if goal.exists() and not force:
        raise EdgemlError(f"{goal} exists and differs", hint="add --force to replace it")
    take_place(made, goal, aside)


def bundle_path(store: Store, bundle: Bundle) -> Path:
    """Where a bundle of this store lies."""
    return store.root / "bundles" / (bundle.name + kind_of(bundle.kind).SUFFIX)


def _order(variant: Variant, profile: Profile, kind: str, *, wheels: bool, more: dict[str, Any]) -> Order:
    model, _, folder_name = variant.name.partition("/")
    return Order(
        name=f"{model}-{folder_name}-{profile.name}",
        variant=variant,
        manifest=msgspec.structs.replace(variant.manifest, model=origin.public_ref(variant.manifest.model)),
        profile=profile,
        kind=kind,
        wheels=_wheels(variant, profile) if wheels else {},
        **more,
    )


def _misfits(order: Order) -> Iterator[str]:
    """What a user should know of weights that were made for another processor than the target's."""
    manifest, target = order.manifest, order.profile
    if cost := misfit(manifest.built_for, target.integer_kernels):
        model = manifest.name.partition("/")[0]
        fits = f"edgeml quantize {model} --to {manifest.scheme} --target {quote(target.asked)}"
        what = f"{manifest.name} was made for {manifest.built_for}, and {target.name} is {target.integer_kernels}"
        yield f"{what}, where {cost}: {fits} --force replaces it by one that fits"


def _fill(folder: Path, order: Order, store: Store, progress: Progress) -> Bundle:
    _copy_variant(order, folder / VARIANT, progress)
    _copy_runtime(folder / "edgeml_runtime")
    licences.write(_asked(order, store), folder / licences.FOLDER)
    for paths in order.wheels.values():
        _copy_wheels(paths, folder / "wheels")
    copy_texts(_distinct_wheels(order), folder)
    (folder / "run.sh").write_bytes((files("edgeml.bundles") / "run.sh").read_bytes())
    pins = "".join(f"{pin}\n" for pin in sorted(requirements(runtime_of(order.manifest))))
    (folder / "requirements.txt").write_text(pins, encoding="utf-8")
    progress("goldens", 0, 1)
    _record_goldens(folder, order)
    progress("digest", 0, 1)
    packed_files = describe(folder)  # large ones are read once
    described = _write_papers(folder, order, store, packed_files)
    bundle = _seal_manifest(folder, order, described)
    if order.key:
        sign(folder, order.key)
    return bundle


def _write_papers(folder: Path, order: Order, store: Store, known: tuple[File, ...]) -> tuple[File, ...]:
    """Cards, bill of materials and provenance of the folder, whose files are `known`; gives back all that it made."""
    found = evidence(order.variant, store)
    notes = card_notes(store.root / order.variant.name.partition("/")[0])
    papers = {
        "MODEL_CARD.md": model_card(order.manifest, order.profile, found=found, notes=notes),
        "DATA_CARD.md": data_card(found, order.manifest.calibration_sha256),
        bom.FILE: bom.bill(
            bom.Parts(
                name=order.name,
                manifest=order.manifest,
                wheels=tuple(packed(path) for path in _distinct_wheels(order)),
                runtime_files=origin.of_runtime(known),
                found=found,
            )
        ),
    }
    for name, text in papers.items():
        (folder / name).write_text(text, encoding="utf-8")
    made_of = describe(folder, known=known)
    write_record(
        folder / origin.FILE, origin.provenance(order.manifest, order.profile.name, made_of, recipe=order.recipe)
    )
    return made_of


def _asked(order: Order, store: Store) -> licences.Asked:
    """What decides the licence's duties; its texts are those among the model's own files, where they are still here."""
    name = order.variant.name.partition("/")[0]
    record = store.root / name / "model.json"
    model = read_record(record, Model) if record.is_file() else None
    texts = licences.texts_in([file.path for file in model.files], Path(model.path)) if model else ()
    return licences.Asked(name=name, stated=order.manifest.licence, texts=texts, given=order.licence)


def _distinct_wheels(order: Order) -> list[Path]:
    return sorted({path.name: path for paths in order.wheels.values() for path in paths}.values())


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


def _seal_manifest(folder: Path, order: Order, known: tuple[File, ...]) -> Bundle:
    files = describe(folder, known=known)
    bundle = Bundle(
        name=order.name,
        variant=order.manifest.name,
        model=order.manifest.model,
        target=order.profile.name,
        kind=order.kind,
        runtime=edgeml_runtime.__version__,
        files=files,
        machine=order.profile.machine,
        python=tuple(order.wheels) or order.profile.python,
        licence=order.manifest.licence,
        parts=origin.parts(files),
        version=order.version,
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
