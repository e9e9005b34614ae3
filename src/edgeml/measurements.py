"""Measurements and differences, derived from the raw runs that workers left."""

from __future__ import annotations

from edgeml.errors import EdgemlError
from edgeml.scores import Score, scores
from edgeml.stats import Interval, difference, fact, interval, statistic_of
from edgeml.types import Difference, Measurement, Run
from edgeml_runtime.types import Samples

_SINGLE = {"once", "max", "sum"}  # one fact, not a sample of many: no interval


def measurements(run: Run, *, size_bytes: int) -> list[Measurement]:
    """Every statistic of a run: accuracy first, then cost, then size."""
    scored = [_measurement(run, one, *_scored(one, run)) for one in run_scores(run)]
    sampled = [_sampled(run, sample, statistic) for sample in run.outcome.samples for statistic in sample.statistics]
    size = Samples(
        metric="size",
        unit="byte",
        values=(float(size_bytes),),
        statistics=("once",),
        unit_of_sample="variant",
        method="sum of the variant's files",
    )
    accuracy = ("perplexity", "kl_divergence", "same_top")
    first = [one for one in sampled if one.metric in accuracy]
    return [*scored, *first, *(one for one in sampled if one.metric not in accuracy), _sampled(run, size, "once")]


def differences(run: Run, baseline: Run) -> list[Difference]:
    """What a variant's accuracy metrics differ by from its baseline's, paired by row, or by chunk of a text.

    Raises EdgemlError where the two cut the text into unequal numbers of chunks.
    """
    theirs = {score.metric: score for score in run_scores(baseline)}
    found = []
    for ours in run_scores(run):
        paired = difference(ours.columns, theirs[ours.metric].columns, ours.statistic, seed=run.seed)
        found.append(_difference(run, baseline, ours.metric, ours.unit, paired))
    by_metric = {sample.metric: sample for sample in baseline.outcome.samples}
    for sample in run.outcome.samples:
        if sample.metric == "perplexity":
            other = by_metric["perplexity"]
            _require_paired(run, baseline, len(sample.values), len(other.values))
            paired = difference([sample.values], [other.values], statistic_of("exp_mean"), seed=run.seed)
            found.append(_difference(run, baseline, sample.metric, sample.unit, paired))
    return found


def _require_paired(run: Run, baseline: Run, ours: int, theirs: int) -> None:
    if ours != theirs:
        raise EdgemlError(
            f"{run.variant} reads the text as {ours} chunks, {baseline.variant} as {theirs}: nothing pairs them",
            hint="compare variants of one model",
        )


def run_scores(run: Run) -> list[Score]:
    """The accuracy metrics of a run's answers."""
    return scores(run.task, run.outcome.answers, run.gold, run.generate)


def _scored(score: Score, run: Run) -> tuple[str, str, Interval]:
    return score.statistic_name, "scored from one answer a row", interval(score.columns, score.statistic, seed=run.seed)


def _sampled(run: Run, sample: Samples, statistic: str) -> Measurement:
    function = statistic_of(statistic)
    if statistic in _SINGLE:
        found = fact(sample.values, function)
    else:
        found = interval([sample.values], function, seed=run.seed)
    return _measurement(run, sample, statistic, sample.method, found)


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


def _difference(run: Run, baseline: Run, metric: str, unit: str, found: Interval) -> Difference:
    return Difference(
        variant=run.variant,
        baseline=baseline.variant,
        target=run.target,
        metric=metric,
        unit=unit,
        difference=found.value,
        low=found.low,
        high=found.high,
        level=found.level,
        n=found.n,
    )
