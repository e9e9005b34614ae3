"""Readings of power and the area below them."""

import pytest

from edgeml_runtime.meters.sampling import Sampler, coverage, integral


def test_the_area_below_straight_lines_is_exact():
    points = [(0.0, 2.0), (1.0, 4.0), (3.0, 4.0)]

    assert integral(points, 0.0, 3.0) == pytest.approx(3.0 + 8.0)


def test_the_edges_of_a_window_lie_on_the_lines_between_readings():
    points = [(0.0, 0.0), (10.0, 10.0)]

    assert integral(points, 4.0, 6.0) == pytest.approx(10.0)


def test_beyond_the_readings_the_outermost_hold():
    assert integral([(1.0, 3.0)], 0.0, 2.0) == pytest.approx(6.0)


def test_a_gap_of_many_periods_is_not_covered():
    points = [(0.0, 1.0), (0.1, 1.0), (0.2, 1.0), (0.9, 1.0), (1.0, 1.0)]

    assert coverage(points, 0.0, 1.0, period_s=0.1) == pytest.approx(0.3)


def test_readings_that_fail_are_left_out_and_changes_are_counted():
    values = iter([1.0, None, 1.0, 2.0])
    sampler = Sampler(lambda: next(values, None), period_s=60)
    sampler.start()
    for _ in range(3):
        sampler._take()
    begin, end = sampler.stop()

    assert [value for _, value in sampler.points] == [1.0, 1.0, 2.0]
    assert sampler.updates() == 1
    assert begin <= sampler.points[0][0] <= sampler.points[-1][0] <= end
