import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgeml_runtime.types import Outcome, Samples
from test_verdicts import ENVIRONMENT, judge, run


def latency(values, *, metric="latency", unit="ms", marks=()):
    return Samples(
        metric=metric, unit=unit, values=tuple(values), statistics=("median",), unit_of_sample="text", method="",
        marks=marks,
    )  # fmt: skip


def processes(medians, variant="m/onnx-int8", *, marks=None, **kind):
    marks = marks or [()] * len(medians)
    spread = np.linspace(0.9, 1.1, 21)
    first, *others = [latency(spread * one, marks=mark, **kind) for one, mark in zip(medians, marks, strict=True)]
    more = tuple(Outcome(environment=ENVIRONMENT, samples=(one,)) for one in others)
    return run(variant, samples=[first], processes=more)


OURS, BASE = [3.0, 3.1, 2.9, 3.05, 2.95], [5.0, 5.2, 4.9]


def test_one_process_cannot_show_how_processes_differ():
    found = judge((processes([3.0]), None), max_latency="5ms")

    assert (found.verdict, found.n) == ("cannot tell", 1)
    assert found.reason == "one process cannot show how processes differ; --processes 5"


@pytest.mark.parametrize(("bound", "word"), [("4ms", "pass"), ("3.01ms", "cannot tell"), ("2ms", "fail")])
def test_a_latency_is_judged_over_the_medians_of_processes(bound, word):
    found = judge((processes(OURS), None), max_latency=bound)
    expected = np.exp(scipy_stats.ttest_1samp(np.log(OURS), 0).confidence_interval(0.95))

    assert (found.verdict, found.metric, found.statistic, found.unit) == (word, "latency", "median", "ms")
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    assert (found.n, found.difference, found.baseline) == (5, None, None)
    assert (found.n_needed is not None) == (word == "cannot tell")


def test_another_statistic_is_taken_of_each_process():
    found = judge((processes(OURS), None), max_latency="p95=4ms")

    assert found.statistic == "p95"
    assert found.value == pytest.approx(np.exp(np.mean(np.log(OURS))) * np.percentile(np.linspace(0.9, 1.1, 21), 95))


@pytest.mark.parametrize(
    ("bound", "word"), [("80%", "pass"), ("-20%", "pass"), ("60%", "cannot tell"), ("40%", "fail")]
)
def test_a_share_of_the_baselines_latency_is_a_ratio_over_unpaired_processes(bound, word):
    found = judge((processes(OURS), processes(BASE, "m/onnx-fp32")), max_latency=bound)
    logs = scipy_stats.ttest_ind(np.log(OURS), np.log(BASE), equal_var=False).confidence_interval(0.95)
    base = np.exp(np.mean(np.log(BASE)))

    assert (found.verdict, found.baseline, found.n) == (word, "m/onnx-fp32", 3)
    assert (found.low, found.high) == pytest.approx((base * np.exp(logs.low) - base, base * np.exp(logs.high) - base))


def test_a_rate_that_falls_is_a_drop_and_a_latency_that_rises_is_one():
    slow = processes([80, 81, 79], metric="decode_rate", unit="token/s")
    fast = processes([100, 101, 99], "m/onnx-fp32", metric="decode_rate", unit="token/s")

    assert judge((slow, fast), max_drop="decode_rate=10%").verdict == "fail"
    assert judge((fast, slow), max_drop="decode_rate=10%").verdict == "pass"
    assert judge((processes(BASE), processes(OURS)), max_drop="latency=10%").verdict == "fail"


def test_a_marked_process_is_left_out_and_three_others_still_decide():
    marks = [(), (), (), ("its clock was throttled",)]
    found = judge((processes([3.0, 3.1, 2.9, 9.0], marks=marks), None), max_latency="4ms")

    assert (found.verdict, found.n) == ("pass", 3)
    assert "processes left out: its clock was throttled" in found.method


def test_marked_processes_that_leave_too_few_make_it_impossible_to_tell():
    marks = [(), (), ("the machine drifted",)]
    found = judge((processes([3.0, 3.1, 2.9], marks=marks), None), max_latency="4ms")

    assert (found.verdict, found.reason) == ("cannot tell", "its samples are marked: the machine drifted")


@pytest.mark.parametrize(
    ("bound", "word"), [("25MB", "pass"), ("23MB", "pass"), ("20MB", "fail"), ("50%", "pass"), ("25%", "fail")]
)
def test_a_size_is_a_fact(bound, word):
    found = judge((run(), run("m/onnx-fp32")), max_size=bound)

    assert (found.verdict, found.unit, found.method) == (word, "byte", "a fact")


@pytest.mark.parametrize(("bound", "word"), [("120MiB", "pass"), ("105MiB", "fail"), ("70%", "pass"), ("50%", "fail")])
def test_memory_is_the_largest_peak_of_all_processes(bound, word):
    kind = {"metric": "memory_peak", "unit": "MiB"}
    ours, base = processes([90, 100], **kind), processes([150], "m/onnx-fp32", **kind)  # peaks 110 and 165

    found = judge((ours, base), max_memory=bound)

    assert (found.verdict, found.metric) == (word, "memory_peak")
    assert found.method == "the largest of 2 processes, a fact"


def test_a_baseline_that_was_not_measured_makes_it_impossible_to_tell():
    found = judge((processes(OURS), run("m/onnx-fp32")), max_latency="80%")

    assert found.reason == "m/onnx-fp32 has no latency: feature-extraction does not give it here"
