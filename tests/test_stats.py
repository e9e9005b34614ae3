import numpy as np
import pytest
from scipy import stats as scipy_stats

from edgeml.scores import scores
from edgeml.stats import difference, interval, statistic_of
from edgeml_runtime.types import Generate

RNG = np.random.default_rng(5)


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    covered = 0
    for trial in range(80):
        values = RNG.normal(0, 1, 40)
        found = interval([values], statistic_of("mean"), seed=trial)
        covered += found.low <= 0 <= found.high

    assert 68 <= covered <= 79


def test_the_same_samples_and_seed_give_the_same_interval():
    values = RNG.normal(0, 1, 50)

    assert interval([values], statistic_of("median"), seed=1) == interval([values], statistic_of("median"), seed=1)


def test_few_samples_carry_no_interval():
    found = interval([[1.0, 2.0, 3.0]], statistic_of("median"), seed=0)

    assert (found.value, found.n, found.low, found.high, found.level) == (2.0, 3, None, None, None)


def test_a_paired_difference_is_narrower_than_two_separate_intervals():
    base = RNG.normal(0, 1, 200)
    ours = base + 0.01 + RNG.normal(0, 0.01, 200)

    paired = difference([ours], [base], statistic_of("mean"), seed=0)
    alone = interval([base], statistic_of("mean"), seed=0)

    assert paired.high - paired.low < (alone.high - alone.low) / 10
    assert paired.low > 0


def test_a_paired_difference_of_a_variant_with_itself_is_zero():
    base = RNG.normal(0, 1, 30)

    found = difference([base], [base], statistic_of("mean"), seed=0)

    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "expected"), [("median", 2.5), ("p95", 3.85), ("mean", 2.5), ("max", 4.0), ("sum", 10.0), ("once", 1.0)]
)
def test_statistics_are_what_their_names_say(name, expected):
    assert statistic_of(name)(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(expected)


def test_perplexity_is_the_exponential_of_the_mean():
    assert statistic_of("exp_mean")(np.array([0.0, 2.0])) == pytest.approx(np.e)


def test_spearman_and_pearson_agree_with_scipy_on_tied_data():
    ours = RNG.normal(0, 1, 80)
    theirs = np.round(ours + RNG.normal(0, 0.5, 80))  # many ties, as human scores have
    by_name = {score.metric: score for score in scores("sentence-similarity", list(ours), list(theirs), Generate())}

    for name, reference in (("spearman", scipy_stats.spearmanr), ("pearson", scipy_stats.pearsonr)):
        columns = [np.array(column) for column in by_name[name].columns]
        assert by_name[name].statistic(*columns) == pytest.approx(reference(ours, theirs).statistic)
