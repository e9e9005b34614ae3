"""How to measure, and the jobs and runs that follow from it for one variant on the machine at hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from edgeml import parity
from edgeml.comparable import Asked, order_of
from edgeml.dataset import slice_values
from edgeml.errors import EdgemlError
from edgeml.metrics import metric
from edgeml.progress import Progress, silent, within
from edgeml.provenance import how_of, undistorted
from edgeml.scores import gold
from edgeml.targets import is_here, local, ssh
from edgeml.targets.ssh import Reached
from edgeml.targets.types import Profile
from edgeml.threads import sweep
from edgeml.types import Dataset, Run, ThreadSweep, Variant
from edgeml.verdicts.limits import Limit
from edgeml_runtime import checks, meters
from edgeml_runtime.errors import unknown
from edgeml_runtime.machine import default_threads
from edgeml_runtime.meters.external import awaited_log, laid_over
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import EnergyPlan, Generate, Job, Outcome, Record

DEFAULT_WARMUPS = 10
SEED = 20
PROCESSES_TO_COMPARE = 5  # of a cost that has a bound: one process cannot show how processes differ
_TIMED = ("max-latency", "max-energy")
_UNQUANTIZED = ("onnx:fp32", "gguf:f32", "gguf:f16", "gguf:bf16")
_GENERATING = ("text-generation", "text2text-generation", "automatic-speech-recognition", "perplexity")


class Conditions(Record, frozen=True, kw_only=True):
    """How to measure. `threads` and `repeats` left out mean every fast processor, and the task's own number.

    `threads` may be `auto`. `processes` left out is one, or five where a time or an energy has a bound. `checks` left
    out are those whose trouble a scheme is known for. `slices` name columns of the data. `device` is where all of it
    runs, this machine if there is none; `gpu` means what it means in `Job`. Of a target that is not at hand,
    `parity_rows` rows are run in an emulator, which counts the `instructions` of one if asked to.
    """

    task: str
    profile: Profile
    threads: int | str | None = None
    warmups: int | None = None
    repeats: int | None = None
    seed: int = SEED
    batch_size: int = 32
    context_tokens: int = 512
    limit: int | None = None
    generate: Generate = Generate()
    processes: int | None = None
    checks: tuple[str, ...] | None = None
    slices: tuple[str, ...] = ()
    limits: tuple[Limit, ...] = ()
    sequential: bool = False
    energy: EnergyPlan = EnergyPlan()
    energy_log: Path | None = None
    log_offset_s: float = 0.0
    device: Reached | None = None
    gpu: bool | None = None
    parity_rows: int = parity.ROWS
    instructions: bool = False

    @property
    def is_away(self) -> bool:
        """Whether nothing can be measured on the target, since it is neither this machine nor reached over SSH."""
        return self.device is None and not is_here(self.profile)

    @property
    def process_count(self) -> int:
        """How many processes measure the cost of each variant."""
        timed = any(limit.option in _TIMED for limit in self.limits)
        return self.processes or (PROCESSES_TO_COMPARE if timed else 1)


def asked(dataset: Dataset, conditions: Conditions) -> Asked:
    """What a run over all of the data is going to be asked."""
    return Asked(
        task=conditions.task,
        dataset_sha256=dataset.sha256,
        reference_sha256=dataset.reference_sha256,
        limit=conditions.limit,
        context_tokens=conditions.context_tokens,
        generate=conditions.generate,
        columns=dataset.columns,
        seed=conditions.seed,
        batch_size=conditions.batch_size,
        answers=len(dataset.rows),
        order=order_of(dataset.numbers),
    )


def run_of(
    variant: Variant,
    dataset: Dataset,
    conditions: Conditions,
    *,
    reference: Variant | None,
    progress: Progress,
    chosen: ThreadSweep | None = None,
) -> Run:
    """One fresh process does the whole job; thread counts are tried before, unless they are `chosen` already."""
    progress = within(progress, f"bench {variant.name}")
    job = job_of(variant, dataset, conditions, reference=reference)
    if conditions.threads == "auto":
        chosen = chosen or sweep(job, partial(done, conditions), progress=progress)
        job = replace(job, threads=chosen.threads, threads_prefill=chosen.threads_prefill)
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    outcome = _metered(job, conditions, progress)
    return replace(kept(variant, dataset, conditions, job, outcome), started=started, sweep=chosen)


def kept(variant: Variant, dataset: Dataset, conditions: Conditions, job: Job, outcome: Outcome) -> Run:
    """What is kept of a job that was done, and of what it was asked."""
    return Run(
        variant=variant.name,
        variant_sha256=weights_sha256(variant),
        target=conditions.profile.name,
        how=how_of(outcome),
        task=conditions.task,
        started="",
        dataset=dataset.name,
        dataset_sha256=dataset.sha256,
        dataset_path=dataset.path,
        reference_sha256=dataset.reference_sha256,
        columns=dataset.columns,
        seed=job.seed,
        repeats=job.repeats,
        warmups=job.warmups,
        batch_size=job.batch_size,
        context_tokens=job.context_tokens,
        limit=job.limit,
        generate=job.generate,
        outcome=outcome,
        gold=gold(conditions.task, dataset.rows, variant.manifest.labels),
        slices=slice_values(dataset, conditions.slices),
        numbers=dataset.numbers,
        size_bytes=variant.manifest.size_bytes,
    )


def again(run: Run, variant: Variant, dataset: Dataset, conditions: Conditions, *, progress: Progress) -> Run:
    """The run with one more process that measured the cost alone, on as many threads."""
    job = replace(
        job_of(variant, dataset, conditions, reference=None),
        threads=run.outcome.environment.threads,
        threads_prefill=run.sweep.threads_prefill if run.sweep else None,
        answers=False,
        checks=(),
        energy=conditions.energy if _bounds_energy(conditions) else replace(conditions.energy, meter="off"),
    )
    step = f"bench {variant.name}, process {len(run.processes) + 2} of {conditions.process_count}"
    outcome = _metered(job, conditions, within(progress, step))
    return replace(run, processes=(*run.processes, replace(outcome, answers=(), vectors=None)))


def _bounds_energy(conditions: Conditions) -> bool:
    return any(limit.metric.startswith("energy") for limit in conditions.limits)


def prepare(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    tell: Callable[[str], None],
    progress: Progress = silent,
) -> None:
    """Bring to the device all that it lacks, before anything is timed there; `tell` hears what that takes."""
    if conditions.device:
        jobs = [job_of(variant, dataset, conditions, reference=None) for variant in variants]
        ssh.prepare(jobs, conditions.device, tell=tell, progress=progress)


def done(conditions: Conditions, job: Job, progress: Progress) -> Outcome:
    """The job, done by a process of the device, or of this machine; nothing that an emulator distorts is in it."""
    if conditions.device:
        return undistorted(ssh.run(job, conditions.device, progress=progress))
    return undistorted(local.run(job, progress=progress))


def _metered(job: Job, conditions: Conditions, progress: Progress) -> Outcome:
    """The job done, and an outside meter's log laid over it, once that reaches beyond the windows."""
    outcome, offset_s = done(conditions, job, progress), conditions.log_offset_s
    if conditions.energy_log is None or outcome.energy is None:
        return outcome
    end_s = max(window.started_s + window.duration_s for window in outcome.energy.windows)
    return laid_over(outcome, awaited_log(conditions.energy_log, end_s, offset_s=offset_s), offset_s=offset_s)


def job_of(variant: Variant, dataset: Dataset, conditions: Conditions, *, reference: Variant | None) -> Job:
    """All that a worker needs. `reference` is opened beside the variant, for figures that need both at once."""
    task = task_of(conditions.task)
    beside = reference is not None and reference.name != variant.name and conditions.task == "perplexity"
    default_warmups = DEFAULT_WARMUPS if task.DEFAULT_REPEATS else 1
    return Job(
        variant=str(variant.path.resolve()),
        reference=str(reference.path.resolve()) if beside and reference else None,
        task=conditions.task,
        target=conditions.profile.name,
        threads=threads_of(conditions),
        warmups=default_warmups if conditions.warmups is None else conditions.warmups,
        repeats=conditions.repeats or task.DEFAULT_REPEATS,
        seed=conditions.seed,
        rows=dataset.rows,
        reference_rows=dataset.reference_rows,
        text=dataset.text,
        batch_size=conditions.batch_size,
        context_tokens=conditions.context_tokens,
        limit=conditions.limit,
        generate=conditions.generate,
        checks=checks_of(variant, conditions),
        energy=conditions.energy,
        numbers=dataset.numbers,
        gpu=conditions.gpu,
    )


def threads_of(conditions: Conditions) -> int:
    """The threads that were asked for, or every fast processor; where they are to be chosen, those before that."""
    own = conditions.device.probe.cores if conditions.device else default_threads()
    return conditions.threads if isinstance(conditions.threads, int) else own or 1


def parse_checks(texts: Sequence[str]) -> tuple[str, ...] | None:
    """The checks that were named, none for `none`, or None where the scheme decides; an unknown one is refused."""
    for text in texts:
        if text != "none":
            checks.check_of(text)
    return tuple(text for text in texts if text != "none") if texts else None


def energy_plan(meter: str, *, log: Path | None = None, busy_w: str | None = None) -> EnergyPlan:
    """How energy is measured: by a meter of this machine, an outside one's log, or watts that the user states.

    Raises EdgemlError for an unknown meter, or an estimate without the watts that it calculates with.
    """
    if meter not in ("auto", "off", *meters.NAMES):
        raise unknown("meter", meter, ("auto", "off", *meters.NAMES), plural="meters")
    if (meter == "estimate") != (busy_w is not None):
        message = "an estimate of energy needs the watts of the busy machine, and nothing else does"
        raise EdgemlError(message, hint="--energy estimate --energy-busy-w 5,12")
    plan = EnergyPlan(meter="external" if log else meter)
    return replace(plan, busy_w=_watts(busy_w)) if busy_w else plan


def checks_of(variant: Variant, conditions: Conditions) -> tuple[str, ...]:
    """The checks that were asked for, or those whose trouble a scheme is known for; and those that a bound needs."""
    bounded = (metric(limit.metric).check for limit in conditions.limits if limit.metric)
    return tuple(dict.fromkeys((*_usual_checks(variant, conditions), *(name for name in bounded if name))))


def _usual_checks(variant: Variant, conditions: Conditions) -> tuple[str, ...]:
    if conditions.checks is not None:
        return conditions.checks
    if conditions.task == "text-generation":  # a program that gave a schema relies on the answers
        return ("determinism", "constrained") if conditions.generate.schema else ()
    may_hang_on_neighbours = variant.manifest.scheme not in _UNQUANTIZED and conditions.task not in _GENERATING
    return ("batch-invariance",) if may_hang_on_neighbours else ()


def weights_sha256(variant: Variant) -> str:
    """The digest of a variant's weights, as its manifest records it."""
    return next(file.sha256 for file in variant.manifest.files if file.path == variant.manifest.weights)


def _watts(text: str) -> tuple[float, float]:
    try:
        low, high = (float(part) for part in text.split(","))
    except ValueError as error:
        raise EdgemlError(f"cannot read watts {text!r}", hint="write the least and the most: 5,12") from error
    if not 0 < low <= high < math.inf:
        raise EdgemlError(f"watts {text!r} are no range above 0", hint="write the least and the most: 5,12")
    return low, high
