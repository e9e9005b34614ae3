"""What a page is made from: one report with the runs behind it, and what is read off it in several sections."""

from __future__ import annotations

from collections.abc import Iterable

from edgeml.types import Measurement, Report, Run
from edgeml.verdicts.limits import headline
from edgeml_runtime.types import Record

COSTS = ("latency", "size", "memory_peak", "energy")


class Past(Record, frozen=True, kw_only=True):
    """An earlier report and those of its runs that are still there, by file name."""

    report: Report
    runs: dict[str, Run]


class Finding(Record, frozen=True, kw_only=True):
    """The newest report of one task and target. `runs` are by file name, without those whose file is gone.

    `past` are earlier reports, newest first. `inputs` are the data's texts, a row each, and only where they may be
    shown.
    """

    model: str
    report: Report
    runs: dict[str, Run]
    past: tuple[Past, ...] = ()
    inputs: tuple[str, ...] | None = None

    @property
    def first(self) -> Measurement:
        """The first measurement, for what all have in common."""
        return self.report.measurements[0]

    @property
    def title(self) -> str:
        """Task and target in words, and how its figures were had where they were not measured."""
        how = "" if self.first.how == "measured" else f", {self.first.how}"
        return f"{self.first.task} on {self.device}{how}"

    @property
    def device(self) -> str:
        """The target; of an estimate with the chip and memory size that decide it."""
        return self.first.provenance.get("asked", self.first.target)

    @property
    def variants(self) -> list[str]:
        """Names of the variants, in the order they were measured."""
        return list(dict.fromkeys(one.variant for one in self.report.measurements))

    def short(self, variant: str) -> str:
        """A variant's name without that of the page's model."""
        return variant.removeprefix(f"{self.model}/")

    def run_of(self, variant: str) -> Run | None:
        """The run behind a variant's measurements; None where its file is gone."""
        return run_of(self.report, self.runs, variant)


def run_of(report: Report, runs: dict[str, Run], variant: str) -> Run | None:
    """The run behind a variant's measurements of a report."""
    names = (one.provenance.get("run", "") for one in report.measurements if one.variant == variant)
    return next((runs[name] for name in names if name in runs), None)


def whole(measurements: Iterable[Measurement]) -> list[Measurement]:
    """Those over all rows rather than a slice."""
    return [one for one in measurements if one.slice is None]


def find(report: Report, variant: str, metric: str) -> Measurement | None:
    """The headline statistic of a variant's metric over all rows: the first that stands there."""
    return next((one for one in whole(report.measurements) if (one.variant, one.metric) == (variant, metric)), None)


def quality_of(report: Report) -> str | None:
    """The metric that says how good the answers are: the task's own, or likeness to the baseline, or their form."""
    there = list(dict.fromkeys(one.metric for one in whole(report.measurements)))
    task = report.measurements[0].task
    judging = [headline(task, labelled=labelled) for labelled in (True, False)]
    judging += [metric for metric in there if metric.startswith(("fidelity.", "contract."))]
    return next((metric for metric in judging if metric in there), None)
