"""Measurements and differences, derived from the raw runs that workers left: of all rows, and of each slice of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import msgspec

from edgeml.dataset import require_few
from edgeml.errors import EdgemlError
from edgeml.fidelity import fidelity
from edgeml.metrics import OF_INPUT
from edgeml.scores import Score, scores
from edgeml.stats import (
    MINIMUM_N,
    MINIMUM_PROCESSES,
    Interval,
    difference,
    fact,
    interval,
    paired_shares,
    statistic_of,
    student,
    wilson,
)
from edgeml.types import Difference, Measurement, Run
from edgeml_runtime.types import Absent, Samples

_SINGLE = {"once", "max", "min", "sum"}  # one fact, not a sample of many: no interval
_EXTREMES = ("max", "min", "sum")  # of the first process alone: that of many is another figure
_FIRST = ("perplexity", "kl_divergence", "same_top")  # accuracy that the task itself samples: shown before the cost
_ROWS, _SAMPLED_ROWS = ("row", "chunk"), "sampled row"
_ANSWERS, _AGREEMENT = "scored from one answer a row", "compared with the baseline's answers to the same rows"


def measurements(run: Run, *, size_bytes: int, baseline: Run | None = None) -> list[Measurement]:
    """Every statistic of a run: accuracy, likeness to the baseline where one is given, cost, size, then the slices.

    A statistic that its rows do not define, such as the correlation of a single one, is left out: `undefined` names it.
    """
    own, like = _scored(run), fidelity(run, baseline) if baseline else []
    scored = [_of_score(run, one, _ANSWERS) for one in own if _is_defined(one)]
    alike = [_of_score(run, one, _AGREEMENT, baseline=baseline) for one in like if _is_defined(one)]
    sampled = [_sampled(run, sample, statistic) for sample in run.outcome.samples for statistic in sample.statistics]
    first = [one for one in sampled if one.metric in _FIRST]
    later = [one for one in sampled if one.metric not in _FIRST]
    sliced = [*_sliced(run, row_scores(run), _ANSWERS), *_sliced(run, like, _AGREEMENT, baseline=baseline)]
    return [*scored, *first, *alike, *later, _sampled(run, _size(size_bytes), "once"), *sliced]


def differences(run: Run, baseline: Run) -> list[Difference]:
    """What a variant's metrics differ by from its baseline's, paired by row, or by chunk of a text; then the slices.

    Only metrics that both have are compared. Raises EdgemlError where nothing pairs the rows of the two.
    """
    theirs = {one.metric: one for one in pairable(baseline)}
    shared = [one for one in pairable(run) if one.metric in theirs and one.metric not in OF_INPUT]
    pairs = [(one, theirs[one.metric]) for one in shared]
    for ours, other in pairs:
        _require_paired(run, baseline, ours, other)
    whole = [_difference(run, baseline, pair) for pair in pairs]
    by_row = {one.metric for one in row_scores(run)}
    sliced = [
        _difference(run, baseline, (only(ours, rows), only(other, rows)), slice=name)
        for name, rows in slices_of(run).items()
        for ours, other in pairs
        if ours.metric in by_row
    ]
    return [one for one in (*whole, *sliced) if one is not None]


def row_scores(run: Run) -> list[Score]:
    """Every metric with one value a row of the data, or a chunk of the text: those of the answers, then the sampled."""
    return [*_scored(run), *(_as_score(sample) for sample in run.outcome.samples if sample.unit_of_sample in _ROWS)]


def pairable(run: Run) -> list[Score]:
    """What two runs of one seed have the same rows of: the row scores, and those of the same sampled rows."""
    sampled = [sample for sample in run.outcome.samples if sample.unit_of_sample == _SAMPLED_ROWS]
    return [*row_scores(run), *(_as_score(sample) for sample in sampled)]


def slices_of(run: Run) -> dict[str, tuple[int, ...]]:
    """The rows, counted from 0, of each slice by its name `column=value`: in the order of columns, then of values.

    Raises EdgemlError for a column of so many values that its slices say nothing.
    """
    found: dict[str, tuple[int, ...]] = {}
    for column, values in run.slices.items():
        require_few(column, values)
        for value in sorted(set(values)):
            found[f"{column}={value}"] = tuple(index for index, one in enumerate(values) if one == value)
    return found


def only(score: Score, rows: Sequence[int]) -> Score:
    """The same metric over those rows alone, which are counted from 0."""
    columns = tuple(tuple(column[row] for row in rows) for column in score.columns)
    return msgspec.structs.replace(score, columns=columns)


def undefined(run: Run, baseline: Run | None = None) -> list[Absent]:
    """The statistics that have no value over all rows, or over those of a slice, such as a correlation of one row."""
    found = []
    for score in [*row_scores(run), *(fidelity(run, baseline) if baseline else [])]:
        for name, one in [("all rows", score), *((name, only(score, rows)) for name, rows in slices_of(run).items())]:
            if not _is_defined(one):
                reason = f"it has no value over {name} (n = {len(one.columns[0])})"
                found.append(Absent(metric=score.metric, reason=reason, hint="give more, and different, rows"))
    return found


def _scored(run: Run) -> list[Score]:
    return scores(run.task, run.outcome.answers, run.gold, run.generate)


def _as_score(sample: Samples, statistic: str | None = None) -> Score:
    name = statistic or sample.statistics[0]
    return Score(
        metric=sample.metric,
        unit=sample.unit,
        columns=(sample.values,),
        statistic_name=name,
        statistic=statistic_of(name),
    )


def _require_paired(run: Run, baseline: Run, ours: Score, theirs: Score) -> None:
    first, second = len(ours.columns[0]), len(theirs.columns[0])
    if first != second:
        what, unit = ("text", "chunks") if run.task == "perplexity" else ("data", "rows")
        raise EdgemlError(
            f"{run.variant} reads the {what} as {first} {unit}, {baseline.variant} as {second}: nothing pairs them",
            hint=f"compare variants of one model, on the same {what}",
        )


def _is_defined(score: Score) -> bool:
    import numpy as np

    columns = [np.asarray(column, dtype=np.float64) for column in score.columns]
    return bool(len(columns[0])) and math.isfinite(float(score.statistic(*columns)))


def _sliced(run: Run, found: Sequence[Score], method: str, *, baseline: Run | None = None) -> Iterator[Measurement]:
    for name, rows in slices_of(run).items():
        for score in (only(score, rows) for score in found):
            if _is_defined(score):
                yield _of_score(run, score, method, baseline=baseline, slice=name)


def _of_score(
    run: Run, score: Score, method: str, *, baseline: Run | None = None, slice: str | None = None
) -> Measurement:
    one = _measurement(run, score, score.statistic_name, method, _interval(score, run.seed))
    more = {"baseline": baseline.variant, "baseline_run": baseline.file_name} if baseline else {}
    return msgspec.structs.replace(one, provenance={**one.provenance, **more}, slice=slice)


def _sampled(run: Run, sample: Samples, statistic: str) -> Measurement:
    if run.processes and sample.unit_of_sample not in (*_ROWS, _SAMPLED_ROWS) and statistic not in _EXTREMES:
        again = [one for outcome in run.processes for one in outcome.samples if one.metric == sample.metric]
        if len(again) + 1 >= MINIMUM_PROCESSES:
            return _over_processes(run, [sample, *again], statistic)
    score = _as_score(sample, statistic)
    found = fact(sample.values, score.statistic) if statistic in _SINGLE else _interval(score, run.seed)
    one = _measurement(run, sample, statistic, sample.method, found)
    return msgspec.structs.replace(one, marks=sample.marks, how=sample.how or run.how)


def _over_processes(run: Run, samples: Sequence[Samples], statistic: str) -> Measurement:
    """The mean of the processes' statistics, with its t interval: n is the processes.

    It is the geometric mean, and the interval that of its logarithm, where every process's value is above 0.
    """
    values = [fact(one.values, statistic_of(statistic)).value for one in samples]
    geometric = min(values) > 0
    found = _exponential(student([math.log(value) for value in values])) if geometric else student(values)
    mean = f"{'geometric ' if geometric else ''}mean of the {statistic} of {len(values)} processes"
    one = _measurement(run, samples[0], statistic, f"{samples[0].method}; {mean}", found)
    marks = dict.fromkeys(mark for each in samples for mark in each.marks)
    return msgspec.structs.replace(one, marks=tuple(marks), how=samples[0].how or run.how)


def _exponential(logs: Interval) -> Interval:
    low, high = (None if bound is None else math.exp(bound) for bound in (logs.low, logs.high))
    return msgspec.structs.replace(logs, value=math.exp(logs.value), low=low, high=high)


def _size(size_bytes: int) -> Samples:
    return Samples(
        metric="size",
        unit="byte",
        values=(float(size_bytes),),
        statistics=("once",),
        unit_of_sample="variant",
        method="sum of the variant's files",
    )


def _measurement(run: Run, of: Score | Samples, statistic: str, method: str, found: Interval) -> Measurement:
    return Measurement(
        variant=run.variant,
        target=run.target,
        how=run.how,
        task=run.task,
        metric=of.metric,
        unit=of.unit,
        value=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        n=found.n,
        statistic=statistic,
        provenance={
            "method": method,
            "run": run.file_name,
            "started": run.started,
            "variant_sha256": run.variant_sha256,
            "dataset": run.dataset,
            "dataset_sha256": run.dataset_sha256,
            "seed": str(run.seed),
        },
        environment=run.outcome.environment,
    )


def _difference(run: Run, baseline: Run, pair: tuple[Score, Score], *, slice: str | None = None) -> Difference | None:
    """The paired difference; None where one of the two statistics has no value over these rows."""
    ours, theirs = pair
    if not (_is_defined(ours) and _is_defined(theirs)):
        return None
    found = _paired(ours, theirs, run.seed)
    return Difference(
        variant=run.variant,
        baseline=baseline.variant,
        target=run.target,
        metric=ours.metric,
        unit=ours.unit,
        difference=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        n=found.n,
        slice=slice,
    )


def _interval(score: Score, seed: int) -> Interval:
    """That of a share where every row is right or wrong; a bootstrap says of equal rows that nothing is uncertain."""
    if score.is_right_or_wrong and len(score.columns[0]) >= MINIMUM_N:
        return wilson(int(sum(score.columns[0])), len(score.columns[0]))
    return interval(score.columns, score.statistic, seed=seed)


def _paired(ours: Score, theirs: Score, seed: int) -> Interval:
    """That of paired shares where every row is right or wrong, as verdicts take it."""
    n = len(ours.columns[0])
    if n >= MINIMUM_N and ours.is_right_or_wrong and theirs.is_right_or_wrong:
        pairs = list(zip(ours.columns[0], theirs.columns[0], strict=True))
        return paired_shares(sum(one > other for one, other in pairs), sum(one < other for one, other in pairs), n)
    return difference(ours.columns, theirs.columns, ours.statistic, seed=seed)
