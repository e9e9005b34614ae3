"""Verb: measure variants on a target, each in a process of its own, on the user's data."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from edgeml.errors import EdgemlError
from edgeml.measurements import differences, measurements
from edgeml.progress import Progress, silent, within
from edgeml.scores import gold, unscored
from edgeml.store import Store
from edgeml.targets import local, own_name
from edgeml.types import Dataset, Difference, Measurement, Profile, Report, Run, Variant
from edgeml_runtime.machine import cores
from edgeml_runtime.records import verify
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Absent, Generate, Job, Record

DEFAULT_WARMUPS = 10
SEED = 20


class Conditions(Record, frozen=True, kw_only=True):
    """How to measure. `threads` and `repeats` left out mean every processor, and the task's own number."""

    task: str
    profile: Profile
    threads: int | None = None
    warmups: int | None = None
    repeats: int | None = None
    seed: int = SEED
    batch_size: int = 32
    context_tokens: int = 512
    limit: int | None = None
    generate: Generate = Generate()


def bench(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    store: Store,
    baseline: Variant | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure each variant, the baseline first; every raw run is kept in the store."""
    require_here(conditions.profile)
    measured = _distinct([*([baseline] if baseline else []), *variants])
    for variant in measured:  # data that cannot be scored is refused before anything is measured
        gold(conditions.task, dataset.rows, variant.manifest.labels)
    runs: list[tuple[Variant, Run]] = []
    for variant in measured:
        verify(variant.path, variant.manifest.files)
        run = _run(variant, dataset, conditions, baseline=baseline, progress=progress)
        store.add_run(run)
        runs.append((variant, run))
    return _report(runs, baseline)


def _distinct(variants: Sequence[Variant]) -> list[Variant]:
    """Each folder once, in order; results are kept by name, so two folders of one name cannot stand side by side."""
    found = list({variant.path.resolve(): variant for variant in variants}.values())
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            message = f"two folders hold a variant named {name}"
            raise EdgemlError(message, hint="measure them apart, each with --artifacts of its own")
    return found


def require_here(profile: Profile) -> None:
    """Raise EdgemlError for a target that cannot be measured from this machine."""
    if profile.name != own_name():
        raise EdgemlError(
            f"this machine is no {profile.title}, and only the machine at hand can be measured so far",
            hint=f"edgeml package --target {profile.name}, copy the bundle to the device and run: sh run.sh selftest",
        )


def _run(
    variant: Variant,
    dataset: Dataset,
    conditions: Conditions,
    *,
    baseline: Variant | None,
    progress: Progress,
) -> Run:
    job = _job(variant, dataset, conditions, baseline=baseline)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    outcome = local.run(job, progress=within(progress, f"bench {variant.name}"))
    return Run(
        variant=variant.name,
        variant_sha256=variant.manifest.weights_sha256,
        target=conditions.profile.name,
        how="measured",
        task=conditions.task,
        started=started,
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        seed=job.seed,
        repeats=job.repeats,
        warmups=job.warmups,
        batch_size=job.batch_size,
        context_tokens=job.context_tokens,
        limit=job.limit,
        generate=job.generate,
        outcome=outcome,
        gold=gold(conditions.task, dataset.rows, variant.manifest.labels),
    )


def _job(variant: Variant, dataset: Dataset, conditions: Conditions, *, baseline: Variant | None) -> Job:
    task = task_of(conditions.task)
    compared = baseline is not None and baseline.name != variant.name and conditions.task == "perplexity"
    default_warmups = DEFAULT_WARMUPS if task.DEFAULT_REPEATS else 1
    return Job(
        variant=str(variant.path.resolve()),
        reference=str(baseline.path.resolve()) if compared and baseline else None,
        task=conditions.task,
        target=conditions.profile.name,
        threads=conditions.threads or cores(),
        warmups=default_warmups if conditions.warmups is None else conditions.warmups,
        repeats=conditions.repeats or task.DEFAULT_REPEATS,
        seed=conditions.seed,
        rows=dataset.rows,
        text=dataset.text,
        batch_size=conditions.batch_size,
        context_tokens=conditions.context_tokens,
        limit=conditions.limit,
        generate=conditions.generate,
    )


def _report(runs: Sequence[tuple[Variant, Run]], baseline: Variant | None) -> Report:
    found: list[Measurement] = []
    differing: list[Difference] = []
    absent: list[Absent] = []
    warnings: list[str] = []
    for variant, run in runs:
        found += measurements(run, size_bytes=variant.manifest.size_bytes)
        missing = [*run.outcome.absent, *unscored(run.task, run.gold)]
        absent += [msgspec.structs.replace(one, variant=run.variant, target=run.target) for one in missing]
        warnings += [f"{run.variant}: {text}" for text in (*run.outcome.warnings, *_label_warnings(variant))]
        if baseline and variant.name != baseline.name:
            differing += differences(run, runs[0][1])
    return Report(
        measurements=tuple(found), differences=tuple(differing), absent=tuple(absent), warnings=tuple(warnings)
    )


def _label_warnings(variant: Variant) -> list[str]:
    audit = variant.manifest.audit
    quantized = variant.manifest.source_quantized
    found = [] if audit.earned else ["the label of its scheme is not earned, as its notes in the list of variants say"]
    return [*found, *([f"its source was already {quantized}"] if quantized else [])]
