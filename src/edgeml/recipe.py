"""A recipe is the verbs' arguments written down; its keys are the verbs' names. Paths are relative to its folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgeml.bench import bench, bench_away
from edgeml.bundles import kind_of
from edgeml.conditions import SEED, Conditions, parse_checks
from edgeml.dataset import read_dataset, read_schema
from edgeml.download import download, runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.formats import CalibrationMethod, missing_library, unused_wish
from edgeml.options import terms_of, wishes_of
from edgeml.package import ignored, package
from edgeml.progress import Progress, silent
from edgeml.quantize import quantized
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.targets.types import Profile
from edgeml.types import Dataset, Model, ModelRef, Report, Scheme, Variant
from edgeml.verdicts.limits import OPTIONS, limits_of
from edgeml.yaml_files import read_yaml
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.records import build
from edgeml_runtime.types import Generate, Record

Count = Annotated[int, msgspec.Meta(ge=1)]


class QuantizeStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml quantize`; `calibration` and `imatrix` are paths."""

    to: Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
    strict: bool = False
    calibration: str | None = None
    columns: dict[str, str] = {}
    calibration_method: CalibrationMethod | None = None
    memory: str | None = None
    min_agreement: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    exclude: tuple[str, ...] = ()
    block_size: Count | None = None
    imatrix: str | None = None
    tensor_types: tuple[str, ...] = ()


class BenchStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml bench`; `baseline` is a scheme of this recipe, `json_schema` a file.

    `threads` may be `auto`. The bounds are written as on the command line, such as `max_drop: ["1%"]`.
    """

    task: str
    data: str
    baseline: str | None = None
    columns: dict[str, str] = {}
    reference: str | None = None
    slices: tuple[str, ...] = ()
    max_drop: tuple[str, ...] = ()
    max_drop_worst_slice: tuple[str, ...] = ()
    max_latency: tuple[str, ...] = ()
    max_memory: tuple[str, ...] = ()
    max_size: tuple[str, ...] = ()
    max_energy: tuple[str, ...] = ()
    sequential: bool = False
    checks: tuple[str, ...] = ()
    processes: Count | None = None
    threads: Count | Literal["auto"] | None = None
    warmups: Annotated[int, msgspec.Meta(ge=0)] | None = None
    repeats: Count | None = None
    limit: Count | None = None
    seed: int = SEED
    batch_size: Count = 32
    context: Annotated[int, msgspec.Meta(ge=8)] = 512
    instruction: str | None = None
    json_schema: str | None = None
    max_new_tokens: Count = 128


class PackageStep(Record, frozen=True, kw_only=True):
    """Arguments of `edgeml package`; `variant` is a scheme of this recipe."""

    variant: str
    kind: str = "tar"


class Recipe(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.recipe/1"):
    """One file under `recipes/`. `needs` names files that are made before, each with the command that makes it."""

    about: str
    download: str
    quantize: QuantizeStep
    needs: dict[str, str] = {}
    target: str | None = None
    bench: BenchStep | None = None
    package: PackageStep | None = None


class Plan(Record, frozen=True, kw_only=True):
    """A recipe whose every word was checked; `warnings` say what this machine makes it leave out.

    `written` is the recipe itself, for the provenance of what comes of it; `quantize` has its paths made whole.
    """

    ref: ModelRef
    target: Profile
    schemes: tuple[Scheme, ...]
    quantize: QuantizeStep
    conditions: Conditions | None = None
    dataset: Dataset | None = None
    baseline: Scheme | None = None
    packed: Scheme | None = None
    kind: str = "tar"
    warnings: tuple[str, ...] = ()
    written: dict[str, Any] = {}


def load(path: Path) -> Recipe:
    """Read a recipe; an unknown key is refused with its place and the nearest known one."""
    hint = "compare it with a recipe that works, such as recipes/similarity.yaml"
    plain = read_yaml(path, missing="check the path, such as: ls recipes", hint=hint)
    return build(plain, Recipe, where=str(path))


def check(recipe: Recipe, folder: Path) -> Plan:
    """What will be done, before anything is: each name is known, each file is there. `folder` is the recipe's own.

    Raises EdgemlError for what the recipe needs and is not there yet, with the command that makes it. Schemes whose
    library is missing here are left out with a warning, unless no scheme is left.
    """
    for name, command in recipe.needs.items():
        if not (folder / name).exists():
            raise EdgemlError(f"{folder / name} is not there yet", hint=command)
    target = profile(recipe.target, folder=folder)
    wanted = tuple(Scheme.parse(text) for text in recipe.quantize.to)
    asked = _whole_paths(recipe.quantize, folder)
    if refusal := unused_wish(wishes_of(_typed(asked)), wanted):
        raise refusal
    packed = _one_of(recipe.package.variant, wanted, "package.variant") if recipe.package else None
    if recipe.package:
        kind_of(recipe.package.kind)
    plan = Plan(
        ref=_source(recipe.download, folder),
        target=target,
        schemes=wanted,
        quantize=asked,
        packed=packed,
        kind=recipe.package.kind if recipe.package else "tar",
        written=msgspec.to_builtins(recipe),
    )
    return _possible(_with_bench(plan, recipe.bench, folder) if recipe.bench else plan)


def run(
    plan: Plan,
    *,
    store: Store,
    force: bool = False,
    tell: Callable[[str], None] = ignored,
    progress: Progress = silent,
) -> Iterator[Model | Variant | Report | Bundle]:
    """Run the verbs in order, giving each one's results as soon as they are there; `force` replaces variants.

    `tell` hears what a user must be warned of.
    """
    model = download(plan.ref, store=store, progress=progress)
    yield model
    terms = terms_of(model, _typed(plan.quantize) | {"force": force})
    variants = []
    for variant in quantized(model, plan.schemes, profile=plan.target, store=store, terms=terms, progress=progress):
        variants.append(variant)
        yield variant
    packed = _variant(plan.packed, variants)
    if plan.conditions and plan.dataset:
        baseline = _variant(plan.baseline, variants)
        reports = _benched(variants, plan, baseline, store=store, progress=progress)
        first = msgspec.structs.replace(reports[0], warnings=(*reports[0].warnings, *plan.warnings))
        yield from (first, *reports[1:])
        failed = {one.variant for report in reports for one in report.verdicts if one.verdict == "fail"}
        if packed and packed.name in failed:  # what failed a bound is not to be shipped
            return
    if plan.packed and packed:
        runtime_wheels(plan.target, plan.packed.format, progress=progress)
        options: dict[str, Any] = {"kind": plan.kind, "recipe": plan.written, "force": True}
        yield package(packed, store=store, profile=plan.target, **options, tell=tell, progress=progress)


def _benched(
    variants: Sequence[Variant], plan: Plan, baseline: Variant | None, *, store: Store, progress: Progress
) -> list[Report]:
    """What was measured on the target, or what is known of one that is not at hand."""
    assert plan.conditions
    assert plan.dataset
    if plan.conditions.is_away:
        return bench_away(variants, plan.dataset, plan.conditions, store=store, baseline=baseline, progress=progress)
    return [bench(variants, plan.dataset, plan.conditions, store=store, baseline=baseline, progress=progress)]


def _whole_paths(step: QuantizeStep, folder: Path) -> QuantizeStep:
    """The step with paths from here instead of from the recipe; raises EdgemlError for one that is not there."""
    whole = {}
    for key in ("calibration", "imatrix"):
        if name := getattr(step, key):
            if not (folder / name).exists():
                raise EdgemlError(f"{folder / name}, quantize.{key} of the recipe, is not there", hint="check the path")
            whole[key] = str(folder / name)
    return msgspec.structs.replace(step, **whole)


def _typed(step: QuantizeStep) -> dict[str, Any]:
    """The step as the command line's options have it."""
    paths = {key: Path(name) if (name := getattr(step, key)) else None for key in ("calibration", "imatrix")}
    columns = tuple(f"{theirs}={ours}" for theirs, ours in step.columns.items())
    return {**msgspec.structs.asdict(step), **paths, "columns": columns, "force": False}


def _with_bench(plan: Plan, step: BenchStep, folder: Path) -> Plan:
    schema = read_schema(folder / step.json_schema if step.json_schema else None)
    conditions = Conditions(
        task=step.task,
        profile=plan.target,
        context_tokens=step.context,
        generate=Generate(max_new_tokens=step.max_new_tokens, instruction=step.instruction, schema=schema),
        limits=limits_of({name: getattr(step, name.replace("-", "_")) for name in OPTIONS}),
        slices=step.slices,
        sequential=step.sequential,
        checks=parse_checks(step.checks),
        processes=step.processes,
        threads=step.threads,
        warmups=step.warmups,
        repeats=step.repeats,
        seed=step.seed,
        batch_size=step.batch_size,
        limit=step.limit,
    )
    return msgspec.structs.replace(
        plan,
        conditions=conditions,
        dataset=read_dataset(
            folder / step.data,
            task=step.task,
            columns=step.columns,
            limit=step.limit,
            reference=folder / step.reference if step.reference else None,
        ),
        baseline=_one_of(step.baseline, plan.schemes, "bench.baseline") if step.baseline else None,
    )


def _source(text: str, folder: Path) -> ModelRef:
    """The model's reference; a path in it is relative to the recipe's folder."""
    ref = ModelRef.parse(text)
    return msgspec.structs.replace(ref, id=str(folder / Path(ref.id).expanduser())) if ref.source == "local" else ref


def _one_of(text: str, schemes: Sequence[Scheme], key: str) -> Scheme:
    scheme = Scheme.parse(text)
    if scheme not in schemes:
        hint = f"add it there, or name one of {', '.join(map(str, schemes))}"
        raise EdgemlError(f"{key} is {scheme}, which quantize.to does not make", hint=hint)
    return scheme


def _possible(plan: Plan) -> Plan:
    """The plan without the schemes that cannot be made here."""
    missing = {scheme: error for scheme in plan.schemes if (error := missing_library(scheme))}
    if len(missing) == len(plan.schemes):
        raise missing[plan.schemes[0]]
    warnings = [f"{scheme} is left out: {error.message}" for scheme, error in missing.items()]
    warnings += dict.fromkeys(f"to make what is left out: {error.hint}" for error in missing.values())
    if plan.packed in missing:
        warnings.append(f"nothing is packed, since {plan.packed} is left out")
    if plan.baseline in missing:
        warnings.append(f"nothing is compared, since the baseline {plan.baseline} is left out")
    schemes = tuple(scheme for scheme in plan.schemes if scheme not in missing)
    return msgspec.structs.replace(plan, schemes=schemes, warnings=tuple(warnings))


def _variant(scheme: Scheme | None, variants: Sequence[Variant]) -> Variant | None:
    return next((variant for variant in variants if variant.manifest.scheme == str(scheme)), None)
