"""What a store keeps of exactly one variant's weights: of each task, target and way the newest report, and its runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from edgeml.measurements import measurements
from edgeml.store import Store
from edgeml.types import Difference, Measurement, Report, Run, Variant, Verdict
from edgeml_runtime.records import read_record
from edgeml_runtime.types import Absent, Record

ACCURACY = (
    "spearman", "pearson", "nearest_accuracy", "accuracy", "macro_f1", "entity_f1", "token_accuracy", "exact_match",
    "chrf", "perplexity",
)  # fmt: skip
_ACCURACY_PREFIX = "contract."


class Evidence(Record, frozen=True, kw_only=True):
    """All that may be said of a variant, and the raw runs that it comes from."""

    measurements: tuple[Measurement, ...] = ()
    differences: tuple[Difference, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    absent: tuple[Absent, ...] = ()
    runs: tuple[Run, ...] = ()


def evidence(variant: Variant, store: Store) -> Evidence:
    """Figures of other weights under the same name are left out; an estimate counts with the bench that made it."""
    model = variant.name.partition("/")[0]
    runs = _runs(variant, store)
    reports = _reports(variant, store.reports(model))
    told = [one for report in reports for one in report.measurements if one.variant == variant.name]
    reported = {one.provenance.get("run") for one in told}
    size_bytes = variant.manifest.size_bytes
    alone = [found for run in _newest(runs, told) for found in measurements(run, size_bytes=size_bytes)]
    return Evidence(
        measurements=(*told, *alone),
        differences=tuple(one for report in reports for one in report.differences if one.variant == variant.name),
        verdicts=tuple(one for report in reports for one in report.verdicts if one.variant == variant.name),
        absent=tuple(
            dict.fromkeys(one for found in reports for one in found.absent if one.variant in (None, variant.name))
        ),
        runs=tuple(run for run in runs if run.file_name in reported or run in _newest(runs, told)),
    )


def is_accuracy(metric: str) -> bool:
    """Whether a metric judges answers against right ones."""
    return metric in ACCURACY or metric.startswith(_ACCURACY_PREFIX)


def _runs(variant: Variant, store: Store) -> list[Run]:
    model, _, folder_name = variant.name.partition("/")
    paths: list[Path] = sorted(store.measurements_folder(model).glob(f"{folder_name}.*.json"))
    found = [read_record(path, Run) for path in paths]
    return [run for run in found if run.variant_sha256 == variant.manifest.weights_sha256]


def _newest(runs: Sequence[Run], told: Sequence[Measurement]) -> list[Run]:
    """The newest run of each task, target and way that no report tells of."""
    known = {(one.task, one.target, one.how) for one in told}
    latest = {(run.task, run.target, run.how): run for run in sorted(runs, key=lambda run: run.started)}
    return [run for key, run in sorted(latest.items()) if key not in known]


def _reports(variant: Variant, reports: Sequence[Report]) -> list[Report]:
    """The newest report of each task, target and way that has a figure of these weights."""
    weights = variant.manifest.weights_sha256
    own = [report for report in reports if any(_is_of(one, variant.name, weights) for one in report.measurements)]
    times = {report.started for report in own}
    estimates = [one for one in reports if one.started in times and _is_estimate(one, variant.name)]
    chosen: dict[tuple[str, str, str], Report] = {}
    for report in sorted([*own, *estimates], key=lambda one: one.started, reverse=True):
        first = report.measurements[0]
        chosen.setdefault((first.task, first.target, first.how), report)
    return [chosen[key] for key in sorted(chosen)]


def _is_of(one: Measurement, name: str, weights: str) -> bool:
    return one.variant == name and one.provenance.get("variant_sha256") == weights


def _is_estimate(report: Report, name: str) -> bool:
    found = [one for one in report.measurements if one.variant == name]
    return bool(found) and all(one.how == "estimated" for one in found)
