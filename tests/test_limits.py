import pytest

from edgeml.errors import EdgemlError
from edgeml.verdicts.limits import (
    headline,
    is_cost,
    limit_of,
    limits_of,
    lower_is_better,
    named,
    require_answerable,
    require_given,
    samples_noun,
    size_bytes,
)


@pytest.mark.parametrize(
    ("option", "text", "metric", "statistic", "amount", "relative"),
    [
        ("max-drop", "1%", "", None, 0.01, True),
        ("max-drop", "0.01", "", None, 0.01, False),
        ("max-drop", ".5 %", "", None, 0.005, True),
        ("max-drop", "0", "", None, 0.0, False),
        ("max-drop", "spearman=1%", "spearman", None, 0.01, True),
        ("max-drop", "contract.valid=0.02", "contract.valid", None, 0.02, False),
        ("max-drop-worst-slice", "accuracy=2%", "accuracy", None, 0.02, True),
        ("max-latency", "5ms", "latency", None, 5.0, False),
        ("max-latency", "250us", "latency", None, 0.25, False),
        ("max-latency", "p95=1.5 s", "latency", "p95", 1500.0, False),
        ("max-latency", "120%", "latency", None, 1.2, True),
        ("max-latency", "+20%", "latency", None, 1.2, True),
        ("max-latency", "-20%", "latency", None, 0.8, True),
        ("max-latency", "latency_first_token=200ms", "latency_first_token", None, 200.0, False),
        ("max-memory", "200MiB", "memory_peak", None, 200.0, False),
        ("max-memory", "1.048576MB", "memory_peak", None, 1.0, False),
        ("max-size", "25MB", "size", None, 25e6, False),
        ("max-size", "50%", "size", None, 0.5, True),
        ("max-energy", "500mJ", "energy", None, 0.5, False),
        ("max-energy", "0.5J", "energy", None, 0.5, False),
    ],
)
def test_a_limit_is_read_in_the_metrics_own_unit(option, text, metric, statistic, amount, relative):
    limit = limit_of(option, text)

    assert (limit.option, limit.metric, limit.statistic, limit.relative) == (option, metric, statistic, relative)
    assert limit.amount == pytest.approx(amount)


@pytest.mark.parametrize(
    ("option", "text", "why"),
    [
        ("max-drop", "", "no number"),
        ("max-drop", "one percent", "no number"),
        ("max-drop", "-1%", "0 or more"),
        ("max-drop", "+1%", "0 or more"),
        ("max-drop", "1ms", "a share or a plain number"),
        ("max-drop", "1%%", "a share or a plain number"),
        ("max-drop", "=1%", "no name before ="),
        ("max-drop", "spearman=", "no number"),
        ("max-drop", "nan", "no number"),
        ("max-drop", "1e999", "no number"),
        ("max-drop", "0,5%", "0,5%"),
        ("max-latency", "5", "its unit is ''"),
        ("max-latency", "5MB", "its unit is 'MB'"),
        ("max-latency", "p42=5ms", "'p42' is neither a statistic nor a latency"),
        ("max-latency", "+5ms", "only a share of the baseline's has a sign"),
        ("max-latency", "0ms", "nothing costs so little"),
        ("max-size", "p95=5MB", "neither a statistic nor a latency"),
        ("max-size", "-100%", "nothing costs so little"),
        ("max-size", "1e308GB", "nothing costs so much"),
        ("max-energy", "5MJ", "its unit is 'MJ'"),
    ],
)
def test_what_cannot_be_read_is_refused_with_an_example(option, text, why):
    with pytest.raises(EdgemlError, match=f"--{option}") as refused:
        limit_of(option, text)

    assert why in refused.value.message
    assert f"--{option}" in refused.value.hint


def test_a_size_is_a_number_of_bytes_that_fits_everywhere():
    assert [size_bytes("memory", text) for text in ("2GB", " 1.5 KiB", "1B")] == [2_000_000_000, 1536, 1]


@pytest.mark.parametrize("text", ["", "2", "2XB", "-2GB", "0GB", "0.1B", "nanGB", "1e30GB", "1e308GB", "1e999GB"])
def test_a_size_that_is_none_is_refused(text):
    with pytest.raises(EdgemlError, match="cannot read --memory"):
        size_bytes("memory", text)


def test_an_option_that_bounds_nothing_is_refused():
    with pytest.raises(EdgemlError, match="unknown limit --max-fun"):
        limit_of("max-fun", "1%")


def test_limits_keep_the_order_in_which_they_were_given():
    found = limits_of({"max-drop": ["1%", "pearson=2%"], "max-size": [], "max-latency": ["5ms"]})

    assert [str(limit) for limit in found] == ["--max-drop 1%", "--max-drop pearson=2%", "--max-latency 5ms"]


@pytest.mark.parametrize(
    ("task", "labelled", "metric"),
    [
        ("sentence-similarity", True, "spearman"),
        ("sentence-similarity", False, "fidelity.cosine"),
        ("feature-extraction", True, "nearest_accuracy"),
        ("feature-extraction", False, "fidelity.agreement"),
        ("text-generation", False, "fidelity.agreement"),
        ("perplexity", False, "perplexity"),
    ],
)
def test_a_drop_is_of_the_headline_or_of_likeness_to_the_baseline_without_right_answers(task, labelled, metric):
    assert headline(task, labelled=labelled) == metric
    assert named(limit_of("max-drop", "1%"), task, labelled=labelled).metric == metric


def test_a_named_metric_stays():
    assert named(limit_of("max-drop", "pearson=1%"), "sentence-similarity", labelled=True).metric == "pearson"


@pytest.mark.parametrize("text", ["1", "100%", "spearman=5"])
def test_a_drop_that_no_share_could_exceed_is_refused(text):
    with pytest.raises(EdgemlError, match="allows any drop at all of spearman"):
        named(limit_of("max-drop", text), "sentence-similarity", labelled=True)


def test_perplexity_may_rise_by_more_than_one():
    assert named(limit_of("max-drop", "1.5"), "perplexity", labelled=False).amount == 1.5


@pytest.mark.parametrize(
    ("option", "text", "baseline", "sliced", "lacks"),
    [
        ("max-drop", "1%", False, True, "there is none"),
        ("max-latency", "120%", False, True, "there is none"),
        ("max-drop-worst-slice", "1%", True, False, "needs slices"),
    ],
)
def test_what_nothing_could_decide_is_refused_before_anything_is_measured(option, text, baseline, sliced, lacks):
    with pytest.raises(EdgemlError, match=lacks):
        require_answerable([limit_of(option, text)], baseline=baseline, sliced=sliced)


def test_a_plain_bound_on_a_cost_needs_no_baseline():
    require_answerable([limit_of("max-latency", "5ms")], baseline=False, sliced=False)


def test_less_is_better_of_what_costs_and_of_what_surprises():
    assert all(map(lower_is_better, ("perplexity", "kl_divergence", "latency", "latency_first", "memory_peak", "size")))
    assert not any(map(lower_is_better, ("spearman", "same_top", "decode_rate", "fidelity.agreement")))


def test_costs_are_of_the_machine_at_work():
    assert all(map(is_cost, ("latency", "decode_rate", "throughput", "energy", "size")))
    assert not any(map(is_cost, ("spearman", "perplexity", "contract.valid")))


def test_a_misspelt_metric_is_refused_with_the_nearest_known():
    with pytest.raises(EdgemlError, match="unknown metric 'spaerman'") as caught:
        named(limit_of("max-drop", "spaerman=1%"), "sentence-similarity", labelled=True)

    assert "spearman" in caught.value.hint


@pytest.mark.parametrize("metric", ["perplexity", "contract.truncated", "batch.flips", "sensitivity.typos", "latency"])
def test_less_is_better_of_what_should_be_small(metric):
    assert lower_is_better(metric)


def test_a_share_of_a_divergence_from_oneself_is_refused_since_that_is_0():
    with pytest.raises(EdgemlError, match="a share of the baseline's kl_divergence, which is 0") as caught:
        named(limit_of("max-drop", "kl_divergence=1%"), "perplexity", labelled=False)

    assert caught.value.hint == "allow an amount: --max-drop kl_divergence=0.01"


@pytest.mark.parametrize(("metric", "noun"), [("spearman", "rows"), ("same_top", "chunks"), ("latency", "processes")])
def test_what_a_metric_is_sampled_by_has_a_name(metric, noun):
    assert samples_noun(metric) == noun


def test_a_metric_that_the_task_does_not_give_is_refused_with_those_that_it_gives():
    with pytest.raises(EdgemlError, match="which feature-extraction does not give") as caught:
        require_given([limit_of("max-drop", "macro_f1=1%")], "feature-extraction")

    assert "nearest_accuracy" in caught.value.hint
