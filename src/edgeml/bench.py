"""Verb: measure variants on a target, each in a process of its own, on the user's data, and say whether bounds hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from edgeml.comparable import require_comparable
from edgeml.conditions import Conditions, again, run_of
from edgeml.dataset import slice_values
from edgeml.errors import EdgemlError
from edgeml.examples import examples
from edgeml.measurements import differences, measurements, undefined
from edgeml.progress import Progress, silent
from edgeml.scores import gold, unscored
from edgeml.scores.text_generation import conformance
from edgeml.sequential import drawn, joined, part, require_parts
from edgeml.stats import LEVEL
from edgeml.store import Store
from edgeml.targets import own_name
from edgeml.types import Dataset, Difference, Example, Measurement, Profile, Report, Run, Variant, Verdict
from edgeml.verdicts import verdicts
from edgeml.verdicts.limits import Limit, require_answerable
from edgeml.verdicts.planning import detectable, looks
from edgeml_runtime.records import verify
from edgeml_runtime.types import Absent

LOOKS = 4  # that a sequential bench takes at most
_CLEAR = ("pass", "fail")


def forecast(dataset: Dataset, conditions: Conditions) -> list[str]:
    """Which drop this many rows can show at all, a sentence for each bound on one; to be told before measuring."""
    labelled = bool(gold(conditions.task, dataset.rows))
    return detectable(conditions.limits, conditions.task, rows=len(dataset.rows), labelled=labelled)


def bench(
    variants: Sequence[Variant],
    dataset: Dataset,
    conditions: Conditions,
    *,
    store: Store,
    baseline: Variant | Run | None = None,
    progress: Progress = silent,
) -> Report:
    """Measure each variant, the baseline first; every raw run, and the report, are kept in the store.

    The baseline may be an earlier run; raises EdgemlError where that was asked something else, or ran elsewhere.
    """
    started = datetime.now(UTC).isoformat(timespec="milliseconds")
    _require_possible(dataset, conditions, baseline)
    order = _distinct([*([baseline] if isinstance(baseline, Variant) else []), *variants])
    for variant in order:
        gold(conditions.task, dataset.rows, variant.manifest.labels)  # right answers must be labels that it knows
        verify(variant.path, variant.manifest.files)
    trial = Trial(order, dataset, conditions, store=store, baseline=baseline, progress=progress)
    trial.measure()
    report = msgspec.structs.replace(trial.report(), started=started)
    store.add_report(order[0].name.partition("/")[0], report)
    return report


def require_here(profile: Profile) -> None:
    """Raise EdgemlError for a target that cannot be measured from this machine."""
    if profile.name != own_name():
        raise EdgemlError(
            f"this machine is no {profile.title}, and only the machine at hand can be measured so far",
            hint=f"edgeml package --target {profile.name}, copy the bundle to the device and run: sh run.sh selftest",
        )


def _require_possible(dataset: Dataset, conditions: Conditions, baseline: Variant | Run | None) -> None:
    """What cannot work is refused before anything is measured."""
    require_here(conditions.profile)
    gold(conditions.task, dataset.rows)
    if conditions.generate.schema is not None:
        conformance(conditions.generate.schema)
    slice_values(dataset, conditions.slices)
    require_answerable(conditions.limits, baseline=baseline is not None, sliced=bool(conditions.slices))
    if not conditions.sequential:
        return
    require_parts(conditions.task)
    if not any(limit.is_drop for limit in conditions.limits):
        raise EdgemlError("nothing would tell when to stop", hint="bound a drop: --max-drop 1%")
    if isinstance(baseline, Run):
        message = "an earlier run cannot be measured part by part"
        raise EdgemlError(message, hint="name a variant as the baseline, or leave --sequential out")


def _distinct(variants: Sequence[Variant]) -> list[Variant]:
    """Each folder once, in order; results are kept by name, so two folders of one name cannot stand side by side."""
    found = list({variant.path.resolve(): variant for variant in variants}.values())
    names = [variant.name for variant in found]
    for name in names:
        if names.count(name) > 1:
            message = f"two folders hold a variant named {name}"
            raise EdgemlError(message, hint="measure them apart, each with --artifacts of its own")
    return found


class Trial:
    """One bench under way: the runs so far, by variant, and the verdicts that became clear before all rows were run."""

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
        self._variants = variants
        self._dataset = dataset
        self._conditions = conditions
        self._store = store
        self._baseline = baseline
        self._progress = progress
        self._runs: dict[str, Run] = {}
        self._clear: dict[tuple[str, Limit], Verdict] = {}
        self._level = LEVEL

    def measure(self) -> None:
        """Run everything, and keep each run as soon as it is there."""
        if self._conditions.sequential:
            self._measure_in_parts()
        else:
            self._measure_part(self._dataset)
        # In rounds, so that a machine that gets slower does so for every variant.
        for _ in range(1, self._conditions.process_count):
            for variant in self._variants:
                run = self._runs[variant.name]
                self._keep(again(run, variant, self._dataset, self._conditions, progress=self._progress))

    def report(self) -> Report:
        """What the runs show."""
        pairs = [(variant, self._runs[variant.name]) for variant in self._variants]
        found: list[Measurement] = []
        absent: list[Absent] = []
        for variant, run in pairs:
            base = self._base_of(variant)
            found += measurements(run, size_bytes=variant.manifest.size_bytes, baseline=base)
            missing = [*run.outcome.absent, *unscored(run.task, run.gold), *undefined(run, base)]
            absent += [msgspec.structs.replace(one, variant=run.variant, target=run.target) for one in missing]
        compared = [(variant, run, base) for variant, run in pairs if (base := self._base_of(variant))]
        differing: list[Difference] = [one for _, run, base in compared for one in differences(run, base)]
        rows: list[Example] = [one for variant, run in pairs for one in examples(run, self._base_of(variant))]
        judged: list[Verdict] = [one for variant in self._judged() for one in self._verdicts(variant).values()]
        return Report(
            measurements=tuple(found),
            verdicts=tuple(judged),
            differences=tuple(differing),
            absent=tuple(absent),
            warnings=tuple(text for variant, run in pairs for text in _warnings(variant, run)),
            examples=tuple(rows),
        )

    def _measure_part(self, dataset: Dataset) -> None:
        first = not self._runs
        conditions = self._conditions if first else _answers_alone(self._conditions)
        reference = self._baseline if isinstance(self._baseline, Variant) else None
        for variant in self._variants:
            run = run_of(variant, dataset, conditions, reference=reference, progress=self._progress)
            if isinstance(self._baseline, Run):
                require_comparable(run, self._baseline)
            self._keep(run if first else joined(self._runs[variant.name], run))

    def _measure_in_parts(self) -> None:
        before, rows = 0, drawn(self._dataset, self._conditions.seed)
        for look in looks(len(rows.rows), LOOKS):
            self._measure_part(part(rows, before, look.rows))
            before, self._level = look.rows, look.level
            found = {(variant.name, limit): one for variant in self._judged() for limit, one in self._drops(variant)}
            self._clear |= {key: one for key, one in found.items() if one.verdict in _CLEAR and key not in self._clear}
            if found.keys() <= self._clear.keys():
                return

    def _drops(self, variant: Variant) -> list[tuple[Limit, Verdict]]:
        return [(limit, one) for limit, one in self._verdicts(variant).items() if limit.is_drop]

    def _verdicts(self, variant: Variant) -> dict[Limit, Verdict]:
        """The verdict on each limit; one that was clear at an earlier look stays."""
        limits, run, base = self._conditions.limits, self._runs[variant.name], self._base_of(variant)
        base_bytes = next(
            (one.manifest.size_bytes for one in self._variants if base and one.name == base.variant), None
        )
        sizes = (variant.manifest.size_bytes, base_bytes)
        found = {limit: self._clear[variant.name, limit] for limit in limits if (variant.name, limit) in self._clear}
        for limit in limits:
            if limit not in found:
                level = self._level if limit.is_drop else LEVEL
                [found[limit]] = verdicts(run, base, [limit], sizes=sizes, level=level)
        return {limit: found[limit] for limit in limits}

    def _judged(self) -> list[Variant]:
        """All but the baseline, which sets the bounds."""
        own = self._baseline.name if isinstance(self._baseline, Variant) else None
        return [variant for variant in self._variants if variant.name != own]

    def _base_of(self, variant: Variant) -> Run | None:
        if isinstance(self._baseline, Run):
            return self._baseline
        if self._baseline is None or variant.name == self._baseline.name:
            return None
        return self._runs[self._baseline.name]

    def _keep(self, run: Run) -> None:
        self._runs[run.variant] = run
        self._store.add_run(run)


def _answers_alone(conditions: Conditions) -> Conditions:
    """For a later part of the data: the cost was measured on the first."""
    energy = msgspec.structs.replace(conditions.energy, meter="off")
    return msgspec.structs.replace(conditions, repeats=1, warmups=0, energy=energy)


def _warnings(variant: Variant, run: Run) -> list[str]:
    audit, quantized = variant.manifest.audit, variant.manifest.source_quantized
    found = [*run.outcome.warnings]
    if not audit.earned:
        found.append("the label of its scheme is not earned, as its notes in the list of variants say")
    if quantized:
        found.append(f"its source was already {quantized}")
    return [f"{run.variant}: {text}" for text in found]
