"""Verb: measure variants on a target, each in a process of its own, on the user's data, and say whether bounds hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import msgspec

from edgeml.comparable import require_comparable, require_same_machine, require_same_question
from edgeml.conditions import Conditions, again, asked, run_of, threads_of
from edgeml.dataset import slice_values
from edgeml.errors import EdgemlError
from edgeml.examples import examples
from edgeml.measurements import differences, measurements, undefined
from edgeml.progress import Counter as Sum
from edgeml.progress import Progress, silent
from edgeml.scores import gold, unscored
from edgeml.scores.text_generation import conformance
from edgeml.sequential import drawn, joined, lacks_rows, part, require_parts
from edgeml.stats import LEVEL
from edgeml.store import Store, using
from edgeml.types import Dataset, Report, Run, Variant, Verdict
from edgeml.verdicts import verdicts
from edgeml.verdicts.limits import Limit, is_cost, require_answerable, require_given
from edgeml.verdicts.planning import detectable, looks
from edgeml_runtime.machine import environment
from edgeml_runtime.meters.external import require_log
from edgeml_runtime.records import verify
from edgeml_runtime.types import Absent

LOOKS = 4  # that a sequential bench takes at most


def forecast(dataset: Dataset, conditions: Conditions) -> list[str]:
    """Which drop this many rows can show at all, a sentence for each bound on one; to be told before measuring."""
    labelled = bool(gold(conditions.task, dataset.rows))
    sliced = slice_values(dataset, conditions.slices).values()
    smallest = min((count for values in sliced for count in Counter(values).values()), default=None)
    rows = len(dataset.rows)
    return detectable(conditions.limits, conditions.task, rows=rows, labelled=labelled, smallest_slice=smallest)


def bench(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    store: Store,
    baseline: Variant | Run | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure each variant on the target, the baseline first; every raw run, and the report, are kept in the store.

    The baseline may be an earlier run; raises EdgemlError where that was asked something else, or ran elsewhere, and
    for a target that is not at hand.
    """
    if conditions.is_away:
        message = f"this machine is no {conditions.profile.title}"
        raise EdgemlError(message, hint="name one: --host user@address; bench_away tells what is known without")
    with using(_folders(variants, baseline)):
        trial = _trial(variants, dataset, conditions, store=store, baseline=baseline, progress=progress)
        trial.measure()
    return _added(trial.report(), trial, store)


def bench_away(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    store: Store,
    baseline: Variant | Run | None = None,
    progress: Progress = silent,
) -> list[Report]:
    """What is known of a target that is not at hand, in up to three reports: measured here, emulated, estimated.

    Raises EdgemlError where the runtime cannot run on the target's processor at all.
    """
    from edgeml.away import emulated_report, estimated_report, here_instead

    _require_possible(dataset, conditions, baseline)  # the bounds that only the device could keep, too
    with using(_folders(variants, baseline)):
        trial = _trial(variants, dataset, here_instead(conditions), store=store, baseline=baseline, progress=progress)
        emulated = emulated_report(trial.variants, dataset, conditions, store=store, progress=progress)
        trial.measure()
    reports = [trial.report(), emulated, estimated_report(trial.pairs(), dataset, conditions, baseline=baseline)]
    return [_added(report, trial, store) for report in reports if report != Report()]


def _folders(variants: Sequence[Variant], baseline: Variant | Run | None) -> list[Path]:
    return [variant.path for variant in (*variants, baseline) if isinstance(variant, Variant)]


def _trial(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    store: Store,
    baseline: Variant | Run | None,
    progress: Progress,
) -> Trial:
    """A bench that can begin: what cannot work is refused before."""
    _require_possible(dataset, conditions, baseline)
    order = _distinct([*([baseline] if isinstance(baseline, Variant) else []), *variants])
    for variant in order:
        gold(conditions.task, dataset.rows, variant.manifest.labels)  # right answers must be labels that it knows
        read = Sum(progress, f"verify {variant.name}", variant.manifest.size_bytes)
        verify(variant.path, variant.manifest.files, tick=read)
    for model in {variant.name.partition("/")[0] for variant in order}:
        store.require_measurements_folder(model)
    return Trial(order, dataset, conditions, store=store, baseline=baseline, progress=progress)


def _added(report: Report, trial: Trial, store: Store) -> Report:
    """The report, kept where it says something of a figure."""
    dated = msgspec.structs.replace(report, started=trial.started)
    if dated.measurements:
        store.add_report(trial.variants[0].name.partition("/")[0], dated)
    return dated


def _require_possible(dataset: Dataset, conditions: Conditions, baseline: Variant | Run | None) -> None:
    """What cannot work is refused before anything is measured."""
    gold(conditions.task, dataset.rows)
    if conditions.generate.schema is not None:
        conformance(conditions.generate.schema)
    slice_values(dataset, conditions.slices)
    require_given(conditions.limits, conditions.task)
    require_answerable(conditions.limits, baseline=baseline is not None, sliced=bool(conditions.slices))
    if conditions.energy_log is not None:
        require_log(conditions.energy_log)
    if conditions.sequential:
        _require_parts(conditions, baseline)
    elif isinstance(baseline, Run):
        _require_same(dataset, conditions, baseline)


def _require_parts(conditions: Conditions, baseline: Variant | Run | None) -> None:
    """Raise EdgemlError where the data cannot be measured part by part, or no verdict would tell when to stop."""
    require_parts(conditions.task)
    if not any(_stops(limit) for limit in conditions.limits):
        raise EdgemlError("nothing would tell when to stop", hint="bound a drop: --max-drop 1%")
    if isinstance(baseline, Run):
        message = "an earlier run cannot be measured part by part"
        raise EdgemlError(message, hint="name a variant as the baseline, or leave --sequential out")


def _require_same(dataset: Dataset, conditions: Conditions, baseline: Run) -> None:
    """Raise EdgemlError for an earlier run of another question or machine; threads yet to be chosen may fit."""
    require_same_question(asked(dataset, conditions), baseline)
    chosen = baseline.outcome.environment.threads if conditions.threads == "auto" else threads_of(conditions)
    if conditions.device is None:  # what a device is shows when something runs there
        require_same_machine(environment(chosen), conditions.profile.name, baseline)


def _distinct(variants: Sequence[Variant]) -> list[Variant]:
    """Each folder once, in order; results are kept by name, so two folders of one name cannot stand side by side."""
    found = list({variant.path.resolve(): variant for variant in variants}.values())
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            message = f"two folders hold a variant named {name}"
            raise EdgemlError(message, hint="measure them apart, each with --artifacts of its own")
    return found


class Result(NamedTuple):
    """A variant, its run so far, and the baseline's, which the baseline itself has none of."""

    variant: Variant
    run: Run
    base: Run | None


class Bounds:
    """The limits of a bench, and the verdicts that became clear before all rows were run, which stay."""

    def __init__(self, conditions: Conditions, dataset: Dataset) -> None:
        self._limits = conditions.limits
        self._slices = slice_values(dataset, conditions.slices)
        self._rows = dataset.rows
        self._clear: dict[tuple[str, Limit], Verdict] = {}
        self._level = LEVEL

    def verdicts(self, result: Result) -> list[Verdict]:
        """One verdict a limit, in their order."""
        return [self._clear.get((result.run.variant, one)) or self._verdict(result, one) for one in self._limits]

    def all_clear(self, results: Sequence[Result], level: float) -> bool:
        """Whether every verdict on a drop is clear by now, those of this look at its own level."""
        self._level = level
        asked_of_rows = [(result, limit) for result in results for limit in self._limits if _stops(limit)]
        for result, limit in asked_of_rows:
            key = result.run.variant, limit
            found = self._clear.get(key) or self._verdict(result, limit)
            if found.verdict == "fail" or (found.verdict == "pass" and not self._lacks_rows(limit, result)):
                self._clear[key] = found
        return all((result.run.variant, limit) in self._clear for result, limit in asked_of_rows)

    def _lacks_rows(self, limit: Limit, result: Result) -> bool:
        """A slice, or a label, that was hardly seen yet may be the worst."""
        run, labels = result.run, result.variant.manifest.labels
        if limit.metric == "macro_f1" and lacks_rows({"": run.gold}, {"": gold(run.task, self._rows, labels)}):
            return True
        return limit.option == "max-drop-worst-slice" and lacks_rows(run.slices, self._slices)

    def _verdict(self, result: Result, limit: Limit) -> Verdict:
        sizes = result.variant.manifest.size_bytes, result.base.size_bytes if result.base else None
        level = self._level if _stops(limit) else LEVEL
        [found] = verdicts(result.run, result.base, [limit], sizes=sizes, level=level)
        return found


class Trial:
    """One bench under way: the newest run of each variant, kept as soon as it is there."""

    def __init__(
        self,
        variants: Sequence[Variant],
        dataset: Dataset,
        conditions: Conditions,
        *,
        store: Store,
        baseline: Variant | Run | None,
        progress: Progress,
    ) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="milliseconds")
        self.variants = variants
        self._dataset = dataset
        self._conditions = conditions
        self._store = store
        self._baseline = baseline
        self._progress = progress
        self._runs: dict[str, Run] = {}
        self._bounds = Bounds(conditions, dataset)

    def measure(self) -> None:
        """Run everything: part by part until the verdicts are clear, then the further processes on the first part."""
        parts = _parts(self._dataset, self._conditions)
        for dataset, level in parts:
            self._measure_part(dataset)
            if self._conditions.sequential and self._bounds.all_clear(self._judged(), level):
                break
        # In rounds, so that a machine that gets slower does so for every variant.
        for _ in range(1, self._conditions.process_count):
            for variant in self.variants:
                run = self._runs[variant.name]
                self._keep(again(run, variant, parts[0][0], self._conditions, progress=self._progress))

    def report(self) -> Report:
        """What the runs show."""
        results = self._results()
        compared = [(one.run, one.base) for one in results if one.base]
        return Report(
            measurements=tuple(
                found
                for variant, run, base in results
                for found in measurements(run, size_bytes=variant.manifest.size_bytes, baseline=base)
            ),
            verdicts=tuple(found for one in self._judged() for found in self._bounds.verdicts(one)),
            differences=tuple(found for run, base in compared for found in differences(run, base)),
            absent=tuple(found for _, run, base in results for found in _absent(run, base)),
            warnings=(*self._stopped(), *(text for variant, run, _ in results for text in _warnings(variant, run))),
            examples=tuple(found for _, run, base in results for found in examples(run, base)),
        )

    def pairs(self) -> list[tuple[Variant, Run]]:
        """Each variant with its run."""
        return [(variant, self._runs[variant.name]) for variant in self.variants]

    def _measure_part(self, dataset: Dataset) -> None:
        reference = self._baseline if isinstance(self._baseline, Variant) else None
        for variant in self.variants:
            before = self._runs.get(variant.name)
            conditions = _answers_alone(self._conditions) if before else self._conditions
            chosen = before.sweep if before else None
            run = run_of(variant, dataset, conditions, reference=reference, progress=self._progress, chosen=chosen)
            if isinstance(self._baseline, Run):
                require_comparable(run, self._baseline)
            self._keep(joined(before, run) if before else run)

    def _results(self) -> list[Result]:
        base = self._runs[self._baseline.name] if isinstance(self._baseline, Variant) else self._baseline
        return [Result(variant, run, None if run is base else base) for variant, run in self.pairs()]

    def _judged(self) -> list[Result]:
        """All but the baseline, which sets the bounds."""
        own = self._baseline.name if isinstance(self._baseline, Variant) else None
        return [one for one in self._results() if one.variant.name != own]

    def _stopped(self) -> list[str]:
        """That not all rows were needed, if so."""
        rows, of = max(len(run.outcome.answers) for run in self._runs.values()), len(self._dataset.rows)
        if not self._conditions.sequential or rows == of:
            return []
        return [f"the verdicts were clear after {rows} of {of} rows, drawn by seed; the others were not run"]

    def _keep(self, run: Run) -> None:
        self._runs[run.variant] = run
        self._store.add_run(run)


def _parts(dataset: Dataset, conditions: Conditions) -> list[tuple[Dataset, float]]:
    """The data as it is measured, with the level of the verdicts after each part."""
    if not conditions.sequential:
        return [(dataset, LEVEL)]
    rows, found = drawn(dataset, conditions.seed), looks(len(dataset.rows), LOOKS)
    starts = [0, *(look.rows for look in found)]
    return [(part(rows, start, look.rows), look.level) for start, look in zip(starts, found, strict=False)]


def _stops(limit: Limit) -> bool:
    """Whether rows decide a limit, so that it may be clear before all were run."""
    return limit.is_drop and not (limit.metric and is_cost(limit.metric))


def _absent(run: Run, base: Run | None) -> list[Absent]:
    missing = [*run.outcome.absent, *unscored(run.task, run.gold), *undefined(run, base)]
    return [msgspec.structs.replace(one, variant=run.variant, target=run.target) for one in missing]


def _answers_alone(conditions: Conditions) -> Conditions:
    """For a later part of the data: the cost was measured, and the checks were made, on the first."""
    energy = msgspec.structs.replace(conditions.energy, meter="off")
    return msgspec.structs.replace(conditions, repeats=1, warmups=0, energy=energy, energy_log=None, checks=())


def _warnings(variant: Variant, run: Run) -> list[str]:
    audit, quantized = variant.manifest.audit, variant.manifest.source_quantized
    found = [*run.outcome.warnings]
    if not audit.earned:
        found.append("the label of its scheme is not earned, as its notes in the list of variants say")
    if quantized:
        found.append(f"its source was already {quantized}")
    return [f"{run.variant}: {text}" for text in found]
