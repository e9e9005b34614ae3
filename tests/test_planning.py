import numpy as np
import pytest

from edgeml.stats import normal_quantile, tango, tango_score
from edgeml.verdicts.limits import limits_of
from edgeml.verdicts.planning import detectable, looks


def test_looks_end_at_all_rows_and_spend_no_more_than_the_stated_error():
    found = looks(1500, 4)

    assert [look.rows for look in found] == [375, 750, 1125, 1500]
    assert sum(1 - look.level for look in found) == pytest.approx(0.05)


def test_the_last_look_keeps_most_of_the_error_so_that_it_costs_little_power():
    *_, last = looks(1500, 4)

    assert normal_quantile(last.level) / normal_quantile(0.95) < 1.12


@pytest.mark.parametrize(("n", "count", "rows"), [(35, 4, [11, 23, 35]), (9, 4, [9]), (100, 1, [100])])
def test_few_rows_are_looked_at_less_often(n, count, rows):
    found = looks(n, count)

    assert [look.rows for look in found] == rows
    assert sum(1 - look.level for look in found) == pytest.approx(0.05)


@pytest.mark.parametrize(("n", "discordance"), [(400, 0.02), (400, 0.1), (1500, 0.1)])
def test_a_drop_exactly_at_the_bound_passes_at_any_look_in_no_more_than_the_stated_share_of_trials(n, discordance):
    """4000 trials: 2.5 % has a Monte Carlo error of 0.25 %, of which three are allowed."""
    random, trials, drop = np.random.default_rng(n), 4000, discordance / 2
    shares = [(discordance - drop) / 2, (discordance + drop) / 2, 1 - discordance]
    passed = np.zeros(trials, dtype=bool)
    failed = np.zeros(trials, dtype=bool)
    gained, lost, before = 0, 0, 0
    for look in looks(n, 4):
        more = random.multinomial(look.rows - before, shares, size=trials)
        gained, lost, before = gained + more[:, 0], lost + more[:, 1], look.rows
        score, z = tango_score(gained, lost, look.rows, -drop), normal_quantile(look.level)
        open_still = ~(passed | failed)
        passed |= open_still & (score > z)
        failed |= open_still & (score < -z)

    assert passed.mean() <= 0.025 + 3 * 0.0025
    assert failed.mean() <= 0.025 + 3 * 0.0025


def test_rows_of_which_none_flips_are_said_to_show_no_less_than_tangos_bound():
    [said] = detectable(limits_of({"max-drop": ["1%"]}), "feature-extraction", rows=40, labelled=True)

    assert "40 rows cannot show" in said
    assert "8.8%, even if no answer flips; 1% of a baseline near 1 needs about 381" in said
    assert tango(0, 0, 40).high == pytest.approx(0.088, abs=5e-4)
    assert tango(0, 0, 381).high <= 0.01 < tango(0, 0, 380).high


def test_what_is_said_of_a_correlation_is_called_an_estimate():
    [said] = detectable(limits_of({"max-drop": ["1%"]}), "sentence-similarity", rows=40, labelled=True)

    assert "an estimate" in said


def test_costs_and_texts_have_no_number_of_rows():
    limits = limits_of({"max-latency": ["5ms"], "max-drop": ["1%"]})

    assert detectable(limits, "perplexity", rows=0, labelled=False) == []


def test_no_number_of_rows_shows_that_nothing_at_all_was_lost():
    [said] = detectable(limits_of({"max-drop": ["0"]}), "feature-extraction", rows=40, labelled=True)

    assert said.endswith("no number of rows shows 0")


@pytest.mark.parametrize(
    ("task", "bound"),
    [
        ("token-classification", "1%"),
        ("text-classification", "macro_f1=1%"),
        ("token-classification", "token_accuracy=1%"),
    ],
)
def test_where_rare_rows_weigh_more_at_least_so_many_rows_are_said_to_be_needed(task, bound):
    [said] = detectable(limits_of({"max-drop": [bound]}), task, rows=1000, labelled=True)

    assert "is below at least 0.4%" in said
    assert said.endswith("needs at least 381")


def test_of_slices_the_smallest_is_told():
    limits = limits_of({"max-drop-worst-slice": ["1%"]})

    [said] = detectable(limits, "feature-extraction", rows=1000, labelled=True, smallest_slice=40)
    [unsaid] = detectable(limits, "feature-extraction", rows=1000, labelled=True)

    assert said.startswith("the smallest slice's 40 rows cannot show")
    assert unsaid.startswith("a slice of all 1000 rows cannot show")


@pytest.mark.parametrize("bound", ["1%", "same_top=1%", "kl_divergence=0.01"])
def test_a_text_has_no_rows_to_speak_of(bound):
    assert detectable(limits_of({"max-drop": [bound]}), "perplexity", rows=0, labelled=False) == []
