"""Measurements of a small model as bench leaves them in a store: runs, and the report that is made of them."""

from __future__ import annotations

import msgspec

from edgeml.types import Difference, Example, Measurement, Report, Run, Verdict
from edgeml_runtime.records import sha256
from edgeml_runtime.types import Absent, Environment, Generate, Outcome, Samples

MODEL = "tiny"
BASE, SMALL = f"{MODEL}/onnx-fp32", f"{MODEL}/onnx-int8"
HERE = Environment(
    machine="x86_64", system="Linux 6.1", python="3.11.7", threads=2, cores=2, libraries={"onnxruntime": "1.32.0"}
)
SCHEMA = {"type": "object", "properties": {"zip": {"type": "string"}, "name": {"type": "string"}}}
TEXTS = ("Erika Mustermann, 62701 Springfield", "Max Beispiel, 10115 Berlin", "Jane Doe, 90210 Beverly Hills")
ANSWERS = {BASE: '{"name":"Erika Mustermann"}', SMALL: '{"name":"E. Muster","zip":"123"}'}
LATENCY_MS = {BASE: (6.0, 5.5, 6.5) * 7, SMALL: (3.0, 2.5, 3.5) * 7}
EXAMPLES = (
    Example(
        variant=SMALL, kind="flipped", row=1, answer=ANSWERS[SMALL], baseline=BASE, baseline_answer=ANSWERS[BASE],
        expected=ANSWERS[BASE],
    ),
    Example(variant=SMALL, kind="ungrounded", row=2, answer="zip: 123"),
    Example(variant=SMALL, kind="ungrounded", row=3, answer="Beverly Hills: Doe"),
    Example(variant=SMALL, kind="invalid", row=3, answer="Jane said no"),
)  # fmt: skip


def a_run(variant, *, started, data=None, here=HERE, faster=1.0, weights="w" * 64):
    """What a worker answered for one variant."""
    values = tuple(value / faster for value in LATENCY_MS[variant])
    latency = Samples(
        metric="latency",
        unit="ms",
        values=values,
        warmups=(9.0, 8.0),
        statistics=("median", "p95"),
        unit_of_sample="text",
        method="text in, text out",
    )
    return Run(
        variant=variant,
        variant_sha256=weights,
        target="laptop",
        how="measured",
        task="text-generation",
        started=started,
        dataset=data.name if data else "lines.jsonl",
        dataset_sha256=sha256(data) if data else "d" * 64,
        dataset_path=str(data) if data else None,
        seed=20,
        repeats=21,
        warmups=2,
        batch_size=1,
        context_tokens=512,
        generate=Generate(schema=SCHEMA),
        outcome=Outcome(environment=here, samples=(latency,), answers=tuple({"text": ANSWERS[variant]} for _ in TEXTS)),
    )


def measured(run, metric, statistic, unit, figures, **more):
    """One measurement of a run; `figures` are value, low and high, or the value alone."""
    value, low, high = (*figures, None, None)[:3]
    return Measurement(
        variant=run.variant,
        target=run.target,
        how="measured",
        task=run.task,
        metric=metric,
        unit=unit,
        value=value,
        low=low,
        high=high,
        level=None if low is None else 0.95,
        n=21,
        statistic=statistic,
        provenance={
            "method": f"how {metric} was had",
            "run": run.file_name,
            "started": run.started,
            "variant_sha256": run.variant_sha256,
            "dataset": run.dataset,
            "dataset_sha256": run.dataset_sha256,
            "seed": "20",
        },
        environment=run.outcome.environment,
        **more,
    )


def measurements_of(run):
    """Quality and cost, over all rows and by language."""
    good = 0.9 if run.variant == BASE else 0.85
    middle = sorted(run.outcome.samples[0].values)[10]
    slices = {"language=en": good + 0.02, "language=de": good - (0.02 if run.variant == BASE else 0.2)}
    return [
        measured(run, "exact_match", "mean", "1", (good, good - 0.05, good + 0.05)),
        *(
            measured(run, "exact_match", "mean", "1", (value, value - 0.1, value + 0.1), slice=name)
            for name, value in slices.items()
        ),
        measured(run, "latency", "median", "ms", (middle, middle - 0.2, middle + 0.2)),
        measured(run, "memory_peak", "max", "MiB", (200.0 if run.variant == BASE else 110.0,)),
        measured(run, "size", "once", "byte", (90.7e6 if run.variant == BASE else 23.3e6,)),
    ]


def difference(value, low, high, **more):
    """What the small variant differs by."""
    return Difference(
        variant=SMALL, baseline=BASE, target="laptop", metric="exact_match", unit="1", difference=value, low=low,
        high=high, level=0.95, n=21, **more,
    )  # fmt: skip


def verdict(word, **more):
    """A verdict on the small variant's quality."""
    figures = {"difference": -0.0007, "low": -0.0021, "high": 0.0006, "bound": -0.0087} | more
    return Verdict(
        variant=SMALL, baseline=BASE, target="laptop", metric="exact_match", statistic="mean", unit="1", verdict=word,
        n=1379, level=0.95, method="paired bootstrap over rows", **figures,
    )  # fmt: skip


def a_report(runs, *, started, **more):
    """The report that is made of runs, the baseline's first."""
    differences = (
        difference(-0.05, -0.09, -0.01),
        difference(0.02, -0.05, 0.09, slice="language=en"),
        difference(-0.2, -0.3, -0.1, slice="language=de"),
    )
    made = Report(
        started=started,
        measurements=tuple(one for run in runs for one in measurements_of(run)),
        differences=differences,
        absent=tuple(
            Absent(metric="energy", reason="no sensor", hint="edgeml doctor", variant=name) for name in (BASE, SMALL)
        ),
    )
    return msgspec.structs.replace(made, **more)


def keep(store, *, started="2026-11-26T10:00:00.000+00:00", data=None, report=None, **of_runs):
    """Runs of both variants and their report, in the store."""
    runs = [a_run(variant, started=started, data=data, **of_runs) for variant in (BASE, SMALL)]
    for run in runs:
        store.add_run(run)
    made = a_report(runs, started=started, **(report or {}))
    store.add_report(MODEL, made)
    return made
