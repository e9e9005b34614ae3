"""A recipe is the verbs' arguments written down; its keys are the verbs' names. Paths are relative to its folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import yaml

from edgeml.bench import Conditions, bench
from edgeml.dataset import read_dataset, read_schema
from edgeml.download import download, runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.formats import missing_library
from edgeml.package import package
from edgeml.progress import Progress, silent
from edgeml.quantize import quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Model, ModelRef, Profile, Report, Scheme, Variant
from edgeml_runtime.records import build
from edgeml_runtime.types import Bundle, Generate, Record


class QuantizeStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml quantize`."""

    to: tuple[str, ...]
    strict: bool = False


class BenchStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml bench`; `json_schema` is a file."""

    task: str
    data: str
    baseline: str | None = None
    columns: dict[str, str] = {}
    threads: int | None = None
    warmups: int | None = None
    repeats: int | None = None
    limit: int | None = None
    batch_size: int = 32
    context: int = 512
    instruction: str | None = None
    json_schema: str | None = None
    max_new_tokens: int = 128


class PackageStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml package`; `variant` is a scheme of this recipe."""

    variant: str
    kind: str = "tar"


class Recipe(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.recipe/1"):
    """One file under `recipes/`."""

    about: str
    download: str
    quantize: QuantizeStep
    target: str | None = None
    bench: BenchStep | None = None
    package: PackageStep | None = None


def load(path: Path) -> Recipe:
    """Read a recipe; an unknown key is refused with its place and the nearest known one."""
    try:
        plain = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="ls recipes/") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EdgemlError(f"{path} is not YAML: {error}", hint="compare it with recipes/similarity.yaml") from error
    return build(plain, Recipe, where=str(path))


def run(
    recipe: Recipe, folder: Path, *, store: Store, progress: Progress = silent
) -> Iterator[Model | Variant | Report | Bundle]:
    """Run the verbs in order, giving each one's result as soon as it is there. `folder` is the recipe's own."""
    target = profile(recipe.target)
    schemes, skipped = _usable(Scheme.parse(text) for text in recipe.quantize.to)
    model = download(ModelRef.parse(recipe.download), store=store, progress=progress)
    yield model
    variants = quantize(model, schemes, profile=target, store=store, progress=progress)
    yield from variants
    if recipe.bench:
        report = _bench(recipe.bench, variants, folder, target, store, progress)
        yield msgspec.structs.replace(report, warnings=(*report.warnings, *skipped))
    if recipe.package:
        yield _package(recipe.package, model, target, store, progress)


def _usable(schemes: Iterator[Scheme]) -> tuple[list[Scheme], list[str]]:
    usable, skipped, last = [], [], None
    for scheme in schemes:
        missing = missing_library(scheme)
        if missing is None:
            usable.append(scheme)
        else:
            last = missing
            skipped.append(f"{scheme} was left out: {missing.message}; {missing.hint}")
    if last and not usable:
        raise last
    return usable, skipped


def _bench(
    step: BenchStep, variants: Sequence[Variant], folder: Path, target: Profile, store: Store, progress: Progress
) -> Report:
    schema = read_schema(folder / step.json_schema if step.json_schema else None)
    conditions = Conditions(
        task=step.task,
        profile=target,
        threads=step.threads,
        warmups=step.warmups,
        repeats=step.repeats,
        batch_size=step.batch_size,
        context_tokens=step.context,
        limit=step.limit,
        generate=Generate(max_new_tokens=step.max_new_tokens, instruction=step.instruction, schema=schema),
    )
    dataset = read_dataset(folder / step.data, task=step.task, columns=step.columns, limit=step.limit)
    named = {variant.manifest.scheme: variant for variant in variants}
    baseline = named.get(str(Scheme.parse(step.baseline))) if step.baseline else None
    return bench(variants, dataset, conditions, store=store, baseline=baseline, progress=progress)


def _package(step: PackageStep, model: Model, target: Profile, store: Store, progress: Progress) -> Bundle:
    scheme = Scheme.parse(step.variant)
    variant = store.variant(f"{model.name}/{scheme.folder_name}")
    runtime_wheels(target, scheme.format, progress=progress)
    return package(variant, store=store, profile=target, kind=step.kind, force=True, progress=progress)
