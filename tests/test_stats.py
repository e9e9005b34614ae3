import numpy as np
import pytest
from scipy import stats as scipy_stats
from scipy.optimize import brentq, minimize_scalar

from edgeml.scores import scores
from edgeml.scores.sentence_similarity import spearman
from edgeml.stats import (
    Interval,
    difference,
    exact_tail,
    interval,
    mcnemar_p,
    normal_quantile,
    paired_shares,
    statistic_of,
    student,
    tango,
    tango_score,
    welch,
    with_unseen,
)
from edgeml_runtime.types import Generate

RNG = np.random.default_rng(5)


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says():
    covered = 0
    for trial in range(80):
        values = RNG.normal(0, 1, 40)
        found = interval([values], statistic_of("mean"), seed=trial)
        covered += found.low <= 0 <= found.high

    assert 68 <= covered <= 79


def test_an_interval_of_ten_samples_covers_the_mean_nearly_as_often_as_it_says():
    """400 trials; the plain percentile bootstrap covers it in about 89 %."""
    found = [interval([RNG.normal(0, 1, 10)], statistic_of("mean"), seed=trial) for trial in range(400)]

    assert np.mean([one.low <= 0 <= one.high for one in found]) > 0.925


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
    ("name", "expected"),
    [
        ("median", 2.5),
        ("p95", 3.85),
        ("mean", 2.5),
        ("max", 4.0),
        ("sum", 10.0),
        ("once", 1.0),
        ("mad", 1.0),
        ("p50", 2.5),
        ("p90", 3.7),
        ("p99", 3.97),
    ],
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


def test_a_higher_level_makes_a_wider_interval():
    values = RNG.normal(0, 1, 60)

    usual, strict = (interval([values], statistic_of("mean"), seed=1, level=level) for level in (0.95, 0.999))

    assert strict.low < usual.low < usual.high < strict.high
    assert (usual.level, strict.level) == (0.95, 0.999)


def test_a_difference_from_a_share_of_the_baseline_takes_in_what_is_unsure_of_the_baseline():
    base = RNG.normal(10, 1, 50)

    found = difference([base], [base], statistic_of("mean"), seed=1, factor=0.9)

    assert found.value == pytest.approx(0.1 * base.mean())
    assert found.low < found.value < found.high


@pytest.mark.parametrize(
    ("gained", "lost", "n", "low", "high"),
    [
        (1, 7, 21, -0.517, -0.026),  # Fagerland, Lydersen and Laake, Statistics in Medicine 33 (2014), table V
        (0, 0, 40, -0.0876, 0.0876),  # z^2 / (n + z^2)
    ],
)
def test_tangos_interval_is_the_published_one(gained, lost, n, low, high):
    found = tango(gained, lost, n)

    assert (found.low, found.high) == pytest.approx((low, high), abs=5e-4)


@pytest.mark.parametrize(("gained", "lost", "n"), [(3, 10, 200), (0, 4, 50), (12, 2, 30), (45, 60, 1000)])
def test_tangos_bounds_are_where_the_score_of_the_likeliest_shares_is_z(gained, lost, n):
    """The likelihood is maximised by search rather than by formula."""

    def score(difference):
        def unlikely(p):  # p: the share of lost rows
            q = p + difference
            same = max(1 - p - q, 1e-300)
            return -(
                gained * np.log(max(q, 1e-300)) + lost * np.log(max(p, 1e-300)) + (n - gained - lost) * np.log(same)
            )

        limits = (max(0, -difference), (1 - difference) / 2)
        p = minimize_scalar(unlikely, bounds=limits, method="bounded", options={"xatol": 1e-12}).x
        return (gained - lost - n * difference) / np.sqrt(n * (2 * p + difference - difference**2))

    found, z, value = tango(gained, lost, n), normal_quantile(0.95), (gained - lost) / n
    low = brentq(lambda at: score(at) - z, -0.9, value - 1e-6)
    high = brentq(lambda at: score(at) + z, value + 1e-6, 0.9)

    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-5)


def test_tangos_interval_turns_around_with_its_arguments_and_stays_within_one():
    found, turned, all_lost = tango(3, 10, 60), tango(10, 3, 60), tango(0, 40, 40)

    assert (found.low, found.high) == pytest.approx((-turned.high, -turned.low))
    assert (all_lost.low, all_lost.value) == pytest.approx((-1, -1))


@pytest.mark.parametrize(("gained", "lost"), [(0, 0), (0, 6), (1, 7), (8, 8), (30, 12)])
def test_mcnemars_p_value_is_that_of_a_fair_coin(gained, lost):
    expected = scipy_stats.binomtest(gained, gained + lost, 0.5).pvalue if gained + lost else 1.0

    assert mcnemar_p(gained, lost) == pytest.approx(expected)


def test_exact_bounds_are_never_inside_of_tangos_and_hold_as_often_as_they_say():
    for gained, lost, n in [(0, 0, 40), (1, 7, 21), (3, 10, 200), (0, 3, 200)]:
        loose, exact = tango(gained, lost, n), paired_shares(gained, lost, n)

        assert exact.low <= loose.low
        assert exact.high >= loose.high
        assert exact_tail(gained, lost, n, exact.low) <= 0.025
        assert exact_tail(lost, gained, n, -exact.high) <= 0.025


def test_without_a_flip_the_exact_bound_is_that_of_a_share_of_which_none_was_seen():
    found = paired_shares(0, 0, 40)

    assert found.high == pytest.approx(1 - 0.025 ** (1 / 40), abs=5e-4)  # Clopper and Pearson's
    assert found.low == -found.high


@pytest.mark.parametrize(("n", "bound"), [(40, -0.02), (40, -0.1), (60, -0.05)])
def test_no_true_shares_at_the_bound_pass_or_fail_more_often_than_stated(n, bound):
    """Every outcome is enumerated: these are no simulated rates."""
    z = normal_quantile(0.95)
    gained, lost = (one.ravel() for one in np.meshgrid(np.arange(n + 1), np.arange(n + 1)))
    gained, lost = gained[gained + lost <= n], lost[gained + lost <= n]
    score = tango_score(gained, lost, n, bound)
    likely = gained + lost < 0.7 * n
    passes = [i for i in np.flatnonzero((score > z) & likely) if exact_tail(gained[i], lost[i], n, bound) <= 0.025]
    fails = [i for i in np.flatnonzero((score < -z) & likely) if exact_tail(lost[i], gained[i], n, -bound) <= 0.025]
    for share in (0, 0.001, 0.005, 0.01, 0.03, 0.08):
        of = scipy_stats.multinomial.pmf(
            np.stack([gained, lost, n - gained - lost], 1), n, [share, share - bound, 1 - 2 * share + bound]
        )

        assert of[passes].sum() <= 0.025
        assert of[fails].sum() <= 0.025


@pytest.mark.parametrize("n", [40, 200, 1000])
@pytest.mark.parametrize("discordance", [0.02, 0.1])
def test_a_drop_exactly_at_the_bound_passes_in_no_more_than_the_stated_share_of_trials(n, discordance):
    """4000 trials: 2.5 % has a Monte Carlo error of 0.25 %, of which three are allowed."""
    trials, drop, random = 4000, discordance / 2, np.random.default_rng(n)
    shares = [(discordance - drop) / 2, (discordance + drop) / 2, 1 - discordance]
    gained, lost, _ = random.multinomial(n, shares, size=trials).T
    outcomes, counts = np.unique(np.stack([gained, lost]), axis=1, return_counts=True)
    score = tango_score(*outcomes, n, -drop)
    near = np.flatnonzero(score > normal_quantile(0.95))

    passed = sum(counts[i] for i in near if exact_tail(*map(int, outcomes[:, i]), n, -drop) <= 0.025)

    assert passed / trials <= 0.025 + 3 * 0.0025


def _judged(random, n, *, broken=0.0, noise=0.0):
    """Right answers, a baseline's, and those of a variant that is a little off, and on some rows answers at random."""
    right = random.normal(size=n)
    base = 0.8 * right + 0.6 * random.normal(size=n)
    ours = base + noise * random.normal(size=n)
    return right, base, np.where(random.random(n) < broken, random.normal(size=n), ours)


def _false_passes(trials, n, **how):
    """How often plain and widened interval lie above the true drop of a rank correlation."""
    right, base, ours = _judged(RNG, 200_000, **how)
    true = spearman(ours, right) - spearman(base, right)
    random, plain, widened = np.random.default_rng(1), 0, 0
    for trial in range(trials):
        right, base, ours = _judged(random, n, **how)
        found = difference([ours, right], [base, right], spearman, seed=trial)
        plain += found.low > true
        widened += with_unseen(found, -2.0).low > true
    return plain / trials, widened / trials


def test_rows_too_rare_to_be_seen_do_not_make_a_rank_correlation_pass():
    """20 trials of 60 rows, one or two of which answer at random: the plain bootstrap passes a third of them."""
    plain, widened = _false_passes(20, 60, broken=0.025)

    assert plain > 0.1
    assert widened <= 0.025


@pytest.mark.real
@pytest.mark.parametrize(("n", "how"), [(100, {"noise": 0.14}), (100, {"broken": 0.08}), (200, {"broken": 0.08})])
def test_a_rank_correlation_at_the_bound_passes_in_no_more_than_the_stated_share_of_trials(n, how):
    """200 trials: 2.5 % has a Monte Carlo error of 1.1 %, of which two are allowed. The method has longer runs."""
    assert _false_passes(200, n, **how)[1] <= 0.025 + 2 * 0.011


def test_room_for_the_unseen_is_that_of_wilson_where_rows_are_right_or_wrong():
    n, lost = 400, 9
    z = normal_quantile(0.95)
    share = lost / n
    spread = z * np.sqrt(share / n)  # of a Poisson number, as the bootstrap has it
    found = with_unseen(Interval(value=-share, n=n, low=-share - spread, high=-share + spread, level=0.95), -1.0)

    assert -found.low == pytest.approx(scipy_stats.binomtest(lost, n).proportion_ci(method="wilson").high, abs=1e-3)
    assert found.high == -share + spread


def test_a_t_interval_over_processes_is_scipys():
    values = [5.1, 5.3, 4.9, 5.6, 5.2]

    found = student(values)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.95)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_welchs_interval_is_scipys_for_unequal_variances_and_numbers():
    ours, theirs = [5.1, 5.3, 4.9, 5.6, 5.2], [6.0, 6.8, 5.5]

    found = welch(ours, theirs)
    expected = scipy_stats.ttest_ind(ours, theirs, equal_var=False).confidence_interval(0.95)

    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_two_processes_get_no_bounds():
    assert student([5.0, 5.2]).low is None
    assert welch([5.0, 5.2, 5.1], [5.0, 5.1]).low is None


def test_processes_that_are_all_equal_have_an_interval_of_no_width():
    assert (student([5.0] * 3).low, welch([5.0] * 3, [4.0] * 3).high) == (5.0, 1.0)
