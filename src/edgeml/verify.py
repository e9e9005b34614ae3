"""Verb: find out whether a bundle is what was packed, by whom, from what, and whether it works."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import edgeml_runtime
from edgeml.bundles import kind_at, kind_of
from edgeml.bundles.dir import SIGNATURE, was_left
from edgeml.bundles.greengrass import ARTIFACT
from edgeml.bundles.image.around import ARCHIVE
from edgeml.bundles.verification import Check, Verification, done, left_out
from edgeml.calibration import read_calibration
from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.formats import Calibration, Request, Wishes, format_of, matrix_digest
from edgeml.papers.contents import check_around, check_papers, check_whole
from edgeml.papers.origin import public_ref
from edgeml.privacy.check import check_privacy, in_short
from edgeml.privacy.confinement import reason_against
from edgeml.privacy.types import Privacy
from edgeml.progress import Progress, beating, silent, within
from edgeml.signing import check_signature, signed_by
from edgeml.store import Store, scratch_folder
from edgeml.targets import profile, profiles
from edgeml.targets.types import Profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme
from edgeml.wheels import own_python, runtime_of
from edgeml_runtime.bundle import SUMS, VARIANT, Bundle, SelfTest
from edgeml_runtime.records import build, decode, describe_file, read_record
from edgeml_runtime.records import verify as verify_files
from edgeml_runtime.types import Refusal, VariantManifest

_TEXTS_AROUND = {"compose": ARCHIVE, "iotedge": ARCHIVE, "greengrass": ARTIFACT}  # by kind, what holds the bundle
_UNASKED = "not asked for: --rebuild makes the weights again from their source"


class Rebuild(NamedTuple):
    """What making weights again needs beside their source: what of the user's they were made with.

    `calibration` is the file of inputs, whose `columns` are mapped; `imatrix` that of llama.cpp's importance matrix.
    """

    calibration: Path | None = None
    imatrix: Path | None = None
    columns: Mapping[str, str] = MappingProxyType({})


def verify(
    path: Path,
    *,
    store: Store,
    key: Path | None = None,
    rebuild: Rebuild | None = None,
    private: bool = False,
    progress: Progress = silent,
) -> Verification:
    """What was checked of the bundle at a path. `key` is the public key of whoever is said to have signed it.

    With `rebuild`, its weights are made again from the pinned source, which must have been downloaded, and with the
    calibration inputs where such were used: those are asked for. What was chosen then is not chosen anew.
    With `private`, it runs without a network, and what it was asked must be found nowhere. Raises EdgemlError naming
    the file, as soon as a check fails. Code that came with a bundle runs only where `key` vouches for it; otherwise
    edgeml's own runtime tests the model.
    """
    kind = kind_at(path)
    with beating(progress) as alive, scratch_folder(store.root / "verify") as space:
        alive(f"unpack {path.name}", 0, 1)
        folder = kind_of(kind).unpack(path, space)
        alive("check its files", 0, 1)
        bundle, found = check_whole(folder)
        signed = _signed_folder(path, kind, folder)
        found += [*_left(path, kind), *_unread(path, kind, key), _signature(signed, key)]
        found += check_papers(folder, bundle, around=signed)
        alive("self-test", 0, 1)
        found.append(_selftest(folder, bundle, trusted=key is not None))
        found.append(_rebuild(folder, bundle, store, space / "rebuilt", rebuild, alive))
        privacy = _privacy(folder, bundle, space, found, alive, trusted=key is not None) if private else None
        return Verification(
            bundle=bundle.name,
            kind=kind,
            target=bundle.target,
            runtime=bundle.runtime,
            checks=tuple(found),
            parts=bundle.parts,
            signed_by=signed_by(signed) if key else None,
            privacy=privacy,
        )


def _left(path: Path, kind: str) -> list[Check]:
    """What runs left in a bundle that lies as a folder: it belongs to no check."""
    if kind != "dir":
        return []
    names = sorted({name.parts[0] for one in path.rglob("*") if was_left(name := one.relative_to(path))})
    if not names:
        return []
    return [left_out("what a run left", f"not looked at: {', '.join(names)}; it may be deleted, and is made again")]


def _unread(path: Path, kind: str, key: Path | None) -> list[Check]:
    """The texts around a bundle in an archive, which are a user's to change: a signature alone covers them."""
    if key or kind not in _TEXTS_AROUND:
        return []
    names = sorted({one.relative_to(path).as_posix() for one in path.rglob("*")} - {_TEXTS_AROUND[kind], SIGNATURE})
    return [left_out("files around it", f"not looked at without --key: {', '.join(names)}")]


def _signed_folder(path: Path, kind: str, folder: Path) -> Path:
    """What was signed: the bundle's folder, or where it lies in other files the folder of those."""
    if kind == "dir" or not path.is_dir():
        return folder
    if kind != "ollama" and (path / SUMS).is_file():  # Ollama's is the bundle's own folder, and its checksums
        check_around(path)
    return path


def _signature(folder: Path, key: Path | None) -> Check:
    if key:
        return done("signature", f"of every file, by the key {check_signature(folder, key)[:16]} ({key.name})")
    names = signed_by(folder)
    if names is None:
        return left_out("signature", f"it has none: {SIGNATURE} is written by edgeml package --sign KEY")
    return left_out("signature", f"it names the key {names[:16]}; whose it is and whether it fits, --key PUB tells")


@dataclass(frozen=True)
class _Way:
    """How a bundle's self-test can be run here."""

    command: Sequence[str]
    environment: Mapping[str, str]
    detail: str


def _selftest(folder: Path, bundle: Bundle, *, trusted: bool) -> Check:
    """The bundle's self-test where this machine can run it, or emulates one that can."""
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    if bundle.machine == platform.machine():
        library = "llama_cpp" if manifest.scheme.startswith("gguf:") else "onnxruntime"
        if _runs_itself(folder, bundle, trusted=trusted):
            return _run(_by_itself(folder), folder)
        if find_spec(library) is None:
            return left_out("self-test", f"the Python package {library} is not installed here")
        return _run(_by_us(folder), folder)
    from edgeml.targets.emulated import environment_of
    from edgeml.targets.emulator import emulator

    try:
        device = emulator(profile(bundle.target), runtime_of(manifest))
    except EdgemlError as error:
        return left_out("self-test", f"it is for {bundle.machine}, and this is {platform.machine()}: {error.message}")
    with environment_of(device) as environment:
        command = device.command("-B", "-m", "edgeml_runtime", "selftest", str(folder), "--json")
        return _run(_Way(command, environment, f"emulated as {device.cpu}, by edgeml's own runtime"), folder)


def _runs_itself(folder: Path, bundle: Bundle, *, trusted: bool) -> bool:
    fits = own_python() in bundle.python or not (folder / "wheels").is_dir()
    return trusted and fits and (folder / "run.sh").is_file()


def _privacy(
    folder: Path, bundle: Bundle, space: Path, found: list[Check], progress: Progress, *, trusted: bool
) -> Privacy | None:
    """Whether marked inputs stay nowhere, by a run without a network; EdgemlError says where they do."""
    against = reason_against()
    if bundle.machine != platform.machine():
        against = f"it is for {bundle.machine}, and this is {platform.machine()}"
    if against:
        found.append(left_out("privacy", against))
        return None
    progress("run it without a network, and search", 0, 1)
    privacy = check_privacy(folder, space / "private", own=_runs_itself(folder, bundle, trusted=trusted))
    found.append(done("privacy", in_short(privacy)))
    return privacy


def _by_itself(folder: Path) -> _Way:
    """As on a device: its own script, runtime and wheels, which the signature vouches for."""
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    environment = {"PATH": path, "HOME": str(folder.parent), "XDG_CACHE_HOME": str(folder.parent)}
    return _Way(("sh", str(folder / "run.sh"), "selftest", "--json"), environment, "by its own runtime and wheels")


def _by_us(folder: Path) -> _Way:
    home = str(Path(edgeml_runtime.__path__[0]).parent)
    command = (sys.executable, "-P", "-B", "-m", "edgeml_runtime", "selftest", str(folder), "--json")
    return _Way(command, os.environ | {"PYTHONPATH": home}, "by edgeml's own runtime and this machine's libraries")


def _run(way: _Way, folder: Path) -> Check:
    with started(way.command, env=dict(way.environment), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        said, complaints = child.communicate()
    last = said.strip().rpartition("\n")[2]
    if child.returncode == 0:
        passed = decode(last, SelfTest, where="the answer of the self-test")
        return done("self-test", f"{passed.texts} {passed.read}, agreement {passed.agreement:.6f}, {way.detail}")
    hint = "do not ship this bundle: pack it again"
    if child.returncode == EdgemlError.exit_code and last:
        refusal = decode(last, Refusal, where="the answer of the self-test")
        message = refusal.message.replace(f"{folder}/", "")
        raise EdgemlError(f"the self-test fails: {message}", hint=hint)
    words = complaints.strip().rpartition("\n")[2] or "no word"
    raise EdgemlError(f"the self-test ended with code {child.returncode}: {words}", hint=hint)


def _rebuild(
    folder: Path, bundle: Bundle, store: Store, space: Path, asked: Rebuild | None, progress: Progress
) -> Check:
    """The weights, made again from the pinned source, equal byte for byte; EdgemlError names the first that differ."""
    if asked is None:
        return left_out("rebuild", _UNASKED)
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    if lacking := _lacking(manifest, asked):
        return left_out("rebuild", f"it needs the {lacking}")
    model = _source(manifest, store)
    verify_files(Path(model.path), model.files)
    scheme = Scheme.parse(manifest.scheme)
    traits = read_traits(model)
    request = Request(
        model=model,
        traits=traits,
        scheme=scheme,
        profile=_profile(manifest, bundle),
        calibration=_calibration(manifest, traits.task, asked),
        wishes=build(manifest.asked | _matrix(manifest, asked), Wishes, where="what was asked of the variant"),
        settled=manifest.settings,
    )
    space.mkdir()
    made = format_of(scheme).convert(request, space, progress=within(progress, "rebuild"))
    others = [
        f"{name} {made.tools.get(name)}, not {was}"
        for name, was in manifest.tools.items()
        if made.tools.get(name) != was
    ]
    for file in manifest.files:
        again = space / file.path
        if not again.is_file() or describe_file(again, file.path) != file:
            hint = (
                f"other tools made it: {'; '.join(others)}" if others else "the same tools were used: do not trust it"
            )
            raise EdgemlError(f"{file.path} comes out differently from {manifest.model}", hint=hint)
    tools = f", with other tools ({'; '.join(others)})" if others else ""
    return done("rebuild", f"{len(manifest.files)} files came out equal from {manifest.model}{tools}")


def _lacking(manifest: VariantManifest, asked: Rebuild) -> str | None:
    """What of the user's the weights were made with, and is not given now."""
    if manifest.calibration_sha256 and asked.calibration is None:
        return f"calibration data of SHA-256 {manifest.calibration_sha256}: --calibration FILE"
    matrix = manifest.asked.get("imatrix")
    return f"importance matrix of {matrix}: --imatrix FILE" if matrix and asked.imatrix is None else None


def _calibration(manifest: VariantManifest, task: str, asked: Rebuild) -> Calibration | None:
    """The calibration inputs, which must be those of then; None where none were used."""
    if asked.calibration is None or manifest.calibration_sha256 is None:
        return None
    found = read_calibration(asked.calibration, task=task, columns=asked.columns)
    if found.sha256 != manifest.calibration_sha256:
        hint = f"give the file of SHA-256 {manifest.calibration_sha256}"
        raise EdgemlError(f"{asked.calibration} is not what {manifest.name} was calibrated with", hint=hint)
    return found


def _matrix(manifest: VariantManifest, asked: Rebuild) -> dict[str, str]:
    """The wish for an importance matrix, which must be the one of then; empty where there was none."""
    if asked.imatrix is None or "imatrix" not in manifest.asked:
        return {}
    if matrix_digest(asked.imatrix) != manifest.asked["imatrix"]:
        hint = f"give the file of {manifest.asked['imatrix']}"
        raise EdgemlError(f"{asked.imatrix} is not what {manifest.name} was made with", hint=hint)
    return {"imatrix": str(asked.imatrix.resolve())}


def _source(manifest: VariantManifest, store: Store) -> Model:
    for model in store.models():
        if public_ref(model.ref) == manifest.model and model.files == manifest.source_files:
            return model
    where = manifest.model.removeprefix("local:")
    raise EdgemlError(f"{manifest.model} is not downloaded, as it was then", hint=f"edgeml download {where}")


def _profile(manifest: VariantManifest, bundle: Bundle) -> Profile:
    """A profile that quantizes as the bundle's weights were: which kernels they are for decides their bytes."""
    known = sorted(profiles(), key=lambda one: one.name != bundle.target)
    fitting = [one for one in known if manifest.built_for in (None, one.integer_kernels)]
    if not fitting:
        raise EdgemlError(f"no profile is for {manifest.built_for}", hint="use the edgeml that made the bundle")
    return fitting[0]
