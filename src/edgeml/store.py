"""Where results live: `root/<model>/{model.json, <format>-<scheme>/, measurements/}` and `root/bundles/`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.types import Model, ModelRef, Run, Variant
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.types import VariantManifest

PART = ".part"  # suffix of everything that is not finished


def cache_folder() -> Path:
    """Downloads that are not the hub's: `EDGEML_CACHE`, else the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("EDGEML_CACHE") or Path(base) / "edgeml")


@contextmanager
def fresh_folder(goal: Path, *, replace: bool = False) -> Iterator[Path]:
    """A new folder beside `goal` that takes its name when the block ends well, and vanishes when it does not."""
    if goal.exists() and not replace:
        raise EdgemlError(f"{goal} exists already", hint="add --force to replace it")
    part = goal.with_name(goal.name + PART)
    _drop(part)
    part.mkdir(parents=True)
    try:
        yield part
        _drop(goal)
        os.replace(part, goal)
    finally:
        _drop(part)


class Store:
    """The artifacts folder. Lookups take a name, an unambiguous prefix, or a folder."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def models(self) -> list[Model]:
        """Every downloaded model, newest first."""
        found = [read_record(path, Model) for path in self.root.glob("*/model.json")]
        return sorted(found, key=lambda model: (model.downloaded, model.name), reverse=True)

    def variants(self, model: str = "*") -> list[Variant]:
        """Every variant, or every variant of one model, by name."""
        return [load_variant(path.parent) for path in sorted(self.root.glob(f"{model}/*/variant.json"))]

    def model(self, text: str | None) -> Model:
        """The model that `text` names or begins; without one, the newest."""
        models = self.models()
        if text is None:
            if not models:
                raise EdgemlError(f"no model in {self.root}", hint="edgeml download REF")
            return models[0]
        by_ref = [model for model in models if text in (model.ref, _unpinned(model.ref))]
        if by_ref:
            return by_ref[0]
        name = _one(text, [model.name for model in models], "model")
        return next(model for model in models if model.name == name)

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
            raise EdgemlError(f"{text or 'nothing'} names {len(chosen)} variants", hint=f"name one of {names}")
        return chosen[0]

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
        """Keep one worker's answer; the file's name sorts by time."""
        model, _, scheme = run.variant.partition("/")
        stamp = run.started.replace(":", "").replace("-", "")
        path = self.root / model / "measurements" / f"{scheme}.{run.task}.{run.target}.{stamp}.json"
        write_record(path, run)
        return path

    def _named(self, text: str) -> list[Variant]:
        if (Path(text) / "variant.json").is_file():
            return [load_variant(Path(text))]
        variants = self.variants()
        models = {variant.name.partition("/")[0] for variant in variants}
        if "/" not in text:
            return self._variants_of(_one(text, sorted(models | {model.name for model in self.models()}), "model"))
        name = _one(text, [variant.name for variant in variants], "variant")
        return [variant for variant in variants if variant.name == name]

    def _variants_of(self, model: str) -> list[Variant]:
        found = self.variants(model)
        if not found:
            raise EdgemlError(f"{model} has no variants", hint=f"edgeml quantize {model}")
        return found


def load_variant(folder: Path) -> Variant:
    """The variant in a folder."""
    return Variant(manifest=read_record(folder / "variant.json", VariantManifest), path=folder)


def _unpinned(ref: str) -> str:
    return str(ModelRef(source=(parsed := ModelRef.parse(ref)).source, id=parsed.id))


def _one(text: str, names: Sequence[str], noun: str) -> str:
    if text in names:
        return text
    begun = [name for name in names if name.startswith(text)]
    if len(begun) == 1:
        return begun[0]
    if begun:
        raise EdgemlError(f"{text!r} begins {len(begun)} {noun}s", hint=f"name one of {', '.join(begun)}")
    near = get_close_matches(text, names, n=1)
    known = f"known: {', '.join(names)}" if names else "edgeml list shows what is here"
    raise EdgemlError(f"no {noun} {text!r}", hint=f"did you mean {near[0]}?" if near else known)


def _drop(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
