"""Durations: warm-ups until they are steady, repeats, and whether they drift."""

import random
from itertools import chain, repeat

import pytest

from edgeml_runtime.meters import clock
from edgeml_runtime.meters.clock import drift, steady_s


@pytest.fixture
def lasting(monkeypatch):
    """Calls last as long as they are told to: a clock that a call moves on."""
    now = [0.0]
    monkeypatch.setattr(clock, "perf_counter", lambda: now[0])

    def given(durations):
        source = iter(durations)

        def call(item):
            now[0] += next(source)

        return call

    return given


def noisy(count, *, seed, spread=0.3, trend=0.0, step=0.0):
    """Times as a shared machine gives them: a long tail to one side, and what is told on top."""
    draw = random.Random(seed)
    return [
        (1 + draw.expovariate(1 / spread)) * (1 + trend * place / count) * (1 + step * (place > count / 2))
        for place in range(count)
    ]


def test_warmups_and_repeats_are_kept_apart_and_take_the_items_in_turn():
    seen = []

    warmups, repeats, marks = steady_s(seen.append, ["a", "b"], warmups=1, repeats=4)

    assert seen == ["a", "b", "a", "b", "a"]
    assert (len(warmups), len(repeats), marks) == (1, 4, ())
    assert all(value >= 0 for value in warmups + repeats)


def test_what_prepares_an_item_is_not_timed(lasting):
    call = lasting(repeat(1.0))
    found = steady_s(call, ["a"], warmups=0, repeats=3, prepare=call)

    assert found.repeats == [1.0, 1.0, 1.0]


def test_steady_times_need_ten_further_warmups_of_one_item(lasting):
    call, seen = lasting(repeat(0.01)), []
    found = steady_s(lambda item: (seen.append(item), call(item)), ["a", "b", "c"], warmups=4, repeats=2)

    assert (len(found.warmups), len(found.repeats), found.marks) == (14, 2, ())
    assert seen == ["a", "b", "c", "a", *["a"] * 10, "b", "c"]  # the repeats go on in turn


def test_warmups_go_on_while_times_still_fall(lasting):
    falling = [0.03 - 0.001 * step for step in range(20)]
    found = steady_s(lasting(chain(repeat(0.03, 10), falling, repeat(0.01))), ["a"], warmups=10, repeats=5)

    assert 20 < len(found.warmups) < 50
    assert found.repeats == pytest.approx([0.01] * 5)
    assert found.marks == ()


def test_times_that_never_settle_are_marked_at_the_limit(lasting):
    found = steady_s(lasting(0.001 * 1.1**step for step in range(1000)), ["a"], warmups=5, repeats=1)

    assert len(found.warmups) == 25
    assert found.marks == ("not steady after 25 warm-ups",)


def test_times_that_only_scatter_are_not_marked_at_the_limit(lasting):
    draw = random.Random(5)
    found = steady_s(lasting(0.001 * draw.uniform(1, 20) for _ in range(1000)), ["a"], warmups=3, repeats=1)

    assert found.marks == ()


def test_slow_models_are_not_warmed_up_for_longer_than_three_seconds(lasting):
    found = steady_s(lasting(2.0 * 0.9**step for step in range(100)), ["a"], warmups=5, repeats=2)

    assert len(found.warmups) == 5 + 3
    assert found.marks == ()  # three say nothing


def test_nobody_who_asks_for_no_warmups_gets_some(lasting):
    assert steady_s(lasting(repeat(1.0)), ["a"], warmups=0, repeats=2).warmups == []


@pytest.mark.parametrize("change", [{"trend": 0.3}, {"trend": -0.3}, {"step": 0.2}])
@pytest.mark.parametrize("seed", range(5))
def test_a_slow_or_sudden_change_is_a_drift_and_its_size_is_told(change, seed):
    [mark] = drift(noisy(200, seed=seed, spread=0.1, **change))

    assert mark.startswith("drifted by " + ("-" if change.get("trend", 1) < 0 else "+"))


@pytest.mark.parametrize("spread", [0.02, 0.3, 1.0])
def test_noise_alone_is_marked_in_at_most_one_run_of_a_hundred(spread):
    alarms = sum(bool(drift(noisy(200, seed=seed, spread=spread))) for seed in range(1000))

    assert alarms <= 10


def test_texts_of_all_lengths_in_a_drawn_order_are_no_drift():
    lengths = [1.0] * 60 + [3.0] * 30 + [9.0] * 10
    alarms = 0
    for seed in range(500):
        order = random.Random(seed).sample(lengths, len(lengths))
        alarms += bool(drift([*order, *order]))

    assert alarms <= 5


def test_a_change_of_less_than_five_per_cent_is_no_drift_however_clear():
    assert drift([1.0 + 0.0002 * step for step in range(200)]) == ()


def test_a_neighbour_that_is_loud_for_a_while_is_no_drift():
    times = noisy(200, seed=1, spread=0.05)

    assert drift([value * (2 if 80 < place < 120 else 1) for place, value in enumerate(times)]) == ()


def test_of_few_repeats_nothing_is_said():
    assert drift([1.0] * 14 + [9.0] * 15) == ()
