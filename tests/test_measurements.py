import msgspec
import numpy as np
import pytest

from edgeml.errors import EdgemlError
from edgeml.fidelity import fidelity
from edgeml.measurements import differences, measurements, only, row_scores, slices_of, undefined
from edgeml.types import Run
from edgeml_runtime.types import Environment, Generate, Outcome, Samples, Vectors

MACHINE = Environment(machine="x86_64", system="Linux", python="3.11", threads=1, cores=2, libraries={})
LANGUAGES = ("en",) * 180 + ("fi",) * 20


def run(answers=(), *, task="feature-extraction", variant="tiny/onnx-int8", vectors=None, samples=(), **fields):
    outcome = Outcome(environment=MACHINE, samples=samples, answers=tuple(answers), vectors=vectors)
    own = {
        "variant_sha256": "0",
        "target": "laptop",
        "how": "measured",
        "started": "2026-01-01T00:00:00.000+00:00",
        "dataset": "lines.csv",
        "dataset_sha256": "1",
        "seed": 20,
        "repeats": 1,
        "warmups": 0,
        "batch_size": 32,
        "context_tokens": 512,
        "generate": Generate(),
    }
    return Run(variant=variant, task=task, outcome=outcome, **{**own, **fields})


def nearest(*rows):
    return [{"nearest": row, "cosine": 0.5} for row in rows]


def vectors(rows):
    array = np.asarray(rows, dtype="<f2")
    return Vectors(width=array.shape[1], data=array.tobytes())


def sample(values, *, unit="row", metric="tokens", statistic="mean"):
    return Samples(
        metric=metric,
        unit="token",
        values=tuple(map(float, values)),
        statistics=(statistic,),
        unit_of_sample=unit,
        method="x",
    )


def by_slice(found, metric):
    return {one.slice: one for one in found if one.metric == metric}


def sliced_pair():
    """200 rows, of which 20 are Finnish; the baseline is right everywhere but in ten English rows, where the other is
    right, which in turn has lost every Finnish one."""
    gold = ("x",) * 200
    right, wrong = 0, 200
    theirs = [wrong if row < 20 else right for row in range(200)]
    ours = [wrong if row >= 180 else right for row in range(200)]
    both = {"gold": (*gold, "y"), "slices": {"language": (*LANGUAGES, "en")}}
    own, base = run(nearest(*ours, 200), **both), run(nearest(*theirs, 200), variant="tiny/onnx-fp32", **both)
    return own, base


def test_a_slice_that_lost_everything_is_seen_though_the_average_hides_it():
    own, base = sliced_pair()

    found = by_slice(differences(own, base), "nearest_accuracy")

    assert found[None].difference == 0.0
    assert found["language=fi"].difference == -1.0
    assert found["language=fi"].low == pytest.approx(-1.0)
    assert found["language=fi"].high < -0.6
    assert found["language=fi"].n == 20
    assert found["language=en"].difference > 0


def test_every_row_metric_is_measured_in_each_slice_with_an_interval():
    own, base = sliced_pair()
    tokens = sample([5] * 180 + [9] * 20 + [5])
    own = msgspec.structs.replace(own, outcome=msgspec.structs.replace(own.outcome, samples=(tokens,)))

    found = measurements(own, size_bytes=1, baseline=base)

    accuracy, cost = by_slice(found, "nearest_accuracy"), by_slice(found, "tokens")
    assert set(accuracy) == set(cost) == {None, "language=en", "language=fi"}
    assert (accuracy["language=fi"].value, accuracy["language=fi"].n) == (0.0, 20)
    assert (cost["language=fi"].value, cost["language=en"].value) == (9.0, 5.0)
    assert all(one.low <= one.value <= one.high for one in (*accuracy.values(), *cost.values()))
    assert by_slice(found, "size").keys() == {None}
    assert by_slice(found, "fidelity.agreement")["language=fi"].value == 0.0


def test_rows_that_are_all_right_leave_a_doubt_that_shrinks_with_their_number():
    few, many = (
        by_slice(measurements(run(nearest(*[0] * n), gold="x" * n), size_bytes=1), "nearest_accuracy")[None]
        for n in (20, 200)
    )

    for found, low in ((few, 20 / (20 + 1.96**2)), (many, 200 / (200 + 1.96**2))):
        assert (found.value, found.high) == (1.0, 1.0)
        assert found.low == pytest.approx(low, abs=1e-4)


def test_the_difference_of_equal_answers_is_zero_within_a_bound():
    one = run(nearest(*[0] * 20), gold="x" * 20)

    [found] = differences(one, one)

    assert found.difference == 0.0
    assert found.low == pytest.approx(-found.high)
    assert -0.2 < found.low < -(1.96**2) / (20 + 1.96**2)  # Tango's bound, moved outwards to be exact


def test_agreement_with_the_baseline_needs_no_labels():
    own, base = run(nearest(1, 0, 3, 0)), run(nearest(1, 0, 3, 2), variant="tiny/onnx-fp32")

    [found] = [one for one in measurements(own, size_bytes=1, baseline=base) if one.metric.startswith("fidelity")]

    assert (found.metric, found.value, found.n) == ("fidelity.agreement", 0.75, 4)
    assert found.provenance["baseline"] == "tiny/onnx-fp32"
    assert found.provenance["baseline_run"] == base.file_name


def test_the_cosine_of_a_row_is_the_mean_of_its_texts():
    same, turned = [3.0, 0.0], [0.0, 2.0]
    own = run([0.5, 0.5], task="sentence-similarity", vectors=vectors([same, same, turned, same]))
    base = run([0.5, 0.6], task="sentence-similarity", vectors=vectors([same, same, same, same]))

    by_metric = {one.metric: one for one in fidelity(own, base)}

    assert by_metric["fidelity.cosine"].columns == ((1.0, 0.5),)
    assert "fidelity.agreement" not in by_metric  # cosines differ by degree
    assert by_metric["fidelity.spearman"].columns == ((0.5, 0.5), (0.5, 0.6))


@pytest.mark.parametrize(
    "other", [{"answers": nearest(1, 0)}, {"dataset_sha256": "2"}, {"task": "text-generation"}, {"answers": ()}]
)
def test_answers_to_other_rows_are_not_compared(other):
    base = run(**{"answers": nearest(1, 0, 0), **other})

    with pytest.raises(EdgemlError, match="answered different rows: nothing pairs them"):
        fidelity(run(nearest(1, 0, 0)), base)


def test_vectors_of_another_width_are_not_compared():
    own, base = (run(nearest(1, 0), vectors=vectors([[1.0] * width] * 2)) for width in (2, 3))

    with pytest.raises(EdgemlError, match="2 wide, those of tiny/onnx-int8 3"):
        fidelity(own, base)


def test_a_task_without_answers_has_no_fidelity():
    one = run(task="perplexity", samples=(sample([1, 2], unit="chunk", metric="perplexity", statistic="exp_mean"),))

    assert fidelity(one, one) == []


def test_values_of_rows_and_of_chunks_are_scores_and_others_are_not():
    chunks = sample([0.0, 0.0], unit="chunk", metric="perplexity", statistic="exp_mean")
    one = run(nearest(1, 0), samples=(chunks, sample([3, 4]), sample([1], unit="process", metric="latency_load")))

    found = {score.metric: score for score in row_scores(one)}

    assert set(found) == {"perplexity", "tokens"}
    assert float(found["perplexity"].statistic(np.zeros(2))) == 1.0


def test_rows_sampled_by_the_same_seed_are_paired_but_not_sliced():
    fields = {"slices": {"language": ("en", "fi") * 10}}
    own = run(nearest(*[0] * 20), samples=(sample([1] * 12, unit="sampled row", metric="s"),), **fields)
    base = run(nearest(*[0] * 20), samples=(sample([0] * 12, unit="sampled row", metric="s"),), **fields)

    [found] = [one for one in differences(own, base) if one.metric == "s"]

    assert (found.difference, found.n, found.slice) == (1.0, 12, None)


def test_a_metric_that_only_one_of_two_runs_has_is_no_difference():
    assert differences(run(nearest(1, 0), samples=(sample([1, 2]),)), run(nearest(1, 0))) == []


def test_slices_keep_the_order_of_columns_and_count_rows_from_zero():
    found = slices_of(run(slices={"b": ("y", "x", "y"), "a": ("1", "1", "2")}))

    assert list(found.items()) == [("b=x", (1,)), ("b=y", (0, 2)), ("a=1", (0, 1)), ("a=2", (2,))]


def test_a_column_of_too_many_values_is_refused_as_a_slice():
    slices_of(run(slices={"id": tuple(map(str, range(50)))}))

    with pytest.raises(EdgemlError, match="'id' has 51 values") as caught:
        slices_of(run(slices={"id": tuple(map(str, range(51)))}))
    assert "at most 50 values" in caught.value.hint


def test_a_metric_over_some_rows_keeps_its_name_and_statistic():
    own, _ = sliced_pair()
    [score] = row_scores(own)

    some = only(score, (0, 180))

    assert (some.metric, some.columns, some.statistic) == (score.metric, ((1.0, 0.0),), score.statistic)


def test_a_statistic_that_its_rows_do_not_define_is_left_out_and_named():
    one = run(
        [0.1, 0.9, 0.5],
        task="sentence-similarity",
        gold=(1.0, 5.0, 3.0),
        slices={"language": ("en", "en", "fi")},
    )

    found = by_slice(measurements(one, size_bytes=1), "spearman")

    assert set(found) == {None, "language=en"}
    assert [(absent.metric, absent.reason) for absent in undefined(one)] == [
        ("spearman", "it has no value over language=fi (n = 1)"),
        ("pearson", "it has no value over language=fi (n = 1)"),
    ]
    assert by_slice(differences(one, one), "spearman").keys() == {None, "language=en"}


def test_marks_of_a_sample_stay_with_its_measurement():
    marked = msgspec.structs.replace(sample([1] * 12, unit="text", metric="latency"), marks=("throttled",))

    [latency, _] = measurements(run(samples=(marked,)), size_bytes=1)

    assert latency.marks == ("throttled",)


def test_an_estimate_within_a_measured_run_is_never_called_measured_and_has_no_interval():
    guess = msgspec.structs.replace(
        sample((4.0, 8.0), metric="energy_estimated", unit="bound"), statistics=("min", "max"), how="estimated"
    )
    found = {one.statistic: one for one in measurements(run(samples=(guess,)), size_bytes=1) if one.metric != "size"}

    assert {name: (one.value, one.how, one.low) for name, one in found.items()} == {
        "min": (4.0, "estimated", None),
        "max": (8.0, "estimated", None),
    }


@pytest.mark.parametrize(("metric", "values"), [("generated", (0.0, 0.0, 3.0)), ("energy_net", (-0.1, 0.1, 0.3))])
def test_processes_with_a_value_of_zero_or_less_have_an_arithmetic_mean(metric, values):
    of_process = [sample((value,), unit="generation", metric=metric, statistic="median") for value in values]
    outcomes = [Outcome(environment=MACHINE, samples=(one,)) for one in of_process]

    [found, _] = measurements(run(samples=outcomes[0].samples, processes=tuple(outcomes[1:])), size_bytes=1)

    assert found.value == pytest.approx(sum(values) / 3)
    assert found.low < found.value < found.high
    assert "; mean of the median of 3 processes" in found.provenance["method"]


def test_the_spread_of_single_samples_is_zero_in_every_process():
    one = sample((5.0,), unit="window", metric="energy", statistic="mad")
    outcome = Outcome(environment=MACHINE, samples=(one,))

    [found, _] = measurements(run(samples=(one,), processes=(outcome,) * 4), size_bytes=1)

    assert (found.value, found.n) == (0.0, 5)


def test_a_mean_over_processes_is_as_estimated_as_its_samples():
    one = msgspec.structs.replace(sample((5.0,), unit="window", metric="energy", statistic="median"), how="estimated")
    outcome = Outcome(environment=MACHINE, samples=(one,))

    [found, _] = measurements(run(samples=(one,), processes=(outcome,) * 2), size_bytes=1)

    assert (found.n, found.how) == (3, "estimated")


def test_tokens_are_measured_but_make_no_difference_between_variants():
    ours, theirs = (run(nearest(1, 0), samples=(sample([5, 9]),), variant=name) for name in ("m/a", "m/b"))

    assert "tokens" in {one.metric for one in measurements(ours, size_bytes=1)}
    assert "tokens" not in {one.metric for one in differences(ours, theirs)}
