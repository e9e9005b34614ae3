"""The windows between two idle baselines, and the figures that follow from them."""

import time

import pytest

from edgeml_runtime import meters
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters import AUTO, NAMES, About, Reading, absent, choose, meter_of, relevant
from edgeml_runtime.meters.energy import carry_out, figures, measure
from edgeml_runtime.types import Absent, Energy, EnergyPlan, Window

QUICK = EnergyPlan(settle_s=0.0, idle_s=0.01, windows=3, window_s=0.02)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("edgeml_runtime.meters.energy._REST_S", 0.01)


class Counter:
    """A meter of a machine that uses `idle_w`, and a joule more for each unit of work."""

    def __init__(self, idle_w=2.0, *, fails_at=None):
        self.idle_w, self.units, self.fails_at, self.windows = idle_w, 0, fails_at, 0

    def available(self):
        return None

    def about(self):
        return About(scope="all of it", kind="counter", excludes="nothing", uncertainty=0.01)

    def start(self):
        self.began, self.before = time.perf_counter(), self.units
        self.windows += 1

    def enough(self):
        return True

    def stop(self):
        if self.windows == self.fails_at:
            return absent("the sensor fell silent")
        joules = (time.perf_counter() - self.began) * self.idle_w + self.units - self.before
        return Reading(joules=joules, readings=2, coverage=1.0 - self.windows / 100)

    def warnings(self):
        return ()


def work(meter):
    def do():
        time.sleep(0.001)
        meter.units += 1
        return 1

    return do


def silent(step, done, total):
    pass


def by_metric(samples):
    return {sample.metric: sample for sample in samples}


def energy(*windows, **more):
    given = {"meter": "rapl", "scope": "s", "kind": "counter", "excludes": "e", "unit_of_work": "answer", **more}
    return Energy(windows=tuple(windows), **given)


def window(kind, seconds, units, joules, started_s=0.0):
    return Window(kind=kind, started_s=started_s, duration_s=seconds, units=units, joules=joules)


def test_each_kind_of_work_has_its_windows_in_turn_between_two_idle_ones():
    meter, ticks = Counter(), []
    found = measure(
        ("counter", meter),
        QUICK,
        {"steady": work(meter), "prefill": work(meter)},
        lambda *told: ticks.append(told),
    )

    assert [one.kind for one in found.windows] == ["idle", *["steady", "prefill"] * 3, "idle"]
    assert ticks[0] == ("energy", 0, 8)
    assert all(one.duration_s >= 0.02 and one.units > 0 for one in found.windows[1:-1])
    assert (found.meter, found.scope, found.kind) == ("counter", "all of it", "counter")
    assert found.uncertainty == 0.01
    assert found.coverage == pytest.approx(0.92)  # that of the worst window
    assert abs(found.windows[0].started_s - time.time()) < 60


def test_gross_is_per_unit_with_idle_in_it_and_net_is_above_idle():
    meter = Counter()
    samples = by_metric(figures(measure(("counter", meter), QUICK, {"steady": work(meter)}, silent)))

    assert len(samples["energy"].values) == 3
    assert all(value > 1 for value in samples["energy"].values)
    assert samples["energy_net"].values == pytest.approx([1.0] * 3, rel=0.3)  # the machine may be busy
    assert samples["power_idle"].values == pytest.approx([2.0] * 2, rel=0.3)
    assert samples["energy"].statistics == ("median", "mad")
    assert samples["energy"].unit_of_sample == "window"
    assert "counter: all of it (counter); gross, idle included, per inference" in samples["energy"].method


def test_reading_and_writing_have_joules_a_token_apart_from_the_answer():
    found = by_metric(
        figures(
            energy(
                window("idle", 5, 0, 10),
                window("steady", 10, 4, 80),
                window("prefill", 10, 1000, 60),
                window("decode", 10, 50, 70),
                window("idle", 5, 0, 10),
            )
        )
    )

    assert found["energy"].values == (20.0,)
    assert found["energy_net"].values == (15.0,)
    assert (found["energy_prefill"].values, found["energy_prefill"].unit) == ((0.06,), "J/token")
    assert (found["energy_decode"].values, found["energy_decode"].unit) == ((1.4,), "J/token")


def test_net_energy_below_zero_is_told_and_not_cut_off():
    found = by_metric(figures(energy(window("idle", 5, 0, 10), window("steady", 10, 1, 19))))

    assert found["energy_net"].values == (-1.0,)


@pytest.mark.parametrize(("after_j", "marked"), [(10.9, False), (11.1, True), (8.9, True)])
def test_idle_power_that_changed_by_more_than_a_tenth_is_marked(after_j, marked):
    found = figures(energy(window("idle", 5, 0, 10), window("steady", 10, 1, 50), window("idle", 5, 0, after_j)))

    assert all(bool(sample.marks) == marked for sample in found)
    assert not marked or "idle power went from 2 to" in found[0].marks[0]


def test_what_spoke_against_the_run_is_marked_on_every_figure():
    found = figures(energy(window("steady", 10, 1, 50), marks=("the board throttled: throttled",)))

    assert [sample.marks for sample in found] == [("the board throttled: throttled",)]


def test_a_meter_whose_readings_came_too_rarely_is_marked():
    class Sleepy(Counter):
        def stop(self):
            return Reading(joules=1.0, readings=2, coverage=0.5)

    meter = Sleepy()
    found = measure(("counter", meter), QUICK, {"steady": work(meter)}, silent)

    assert found.marks == ("the meter's readings cover only 50% of a window",)


def test_a_window_holds_at_least_one_inference_however_short_it_is():
    meter = Counter()
    plan = EnergyPlan(settle_s=0.0, idle_s=0.0, windows=1, window_s=0.0)

    assert measure(("counter", meter), plan, {"steady": work(meter)}, silent).windows[1].units == 1


def test_a_window_that_does_not_count_ends_the_measurement_with_its_reason():
    meter = Counter(fails_at=1)
    begun = []
    found = measure(("counter", meter), QUICK, {"steady": lambda: begun.append(1) or 1}, silent)

    assert found.reason == "the sensor fell silent"
    assert not begun  # no work is done for a figure that cannot come


def test_a_meter_is_stopped_when_the_work_fails():
    class Stopping(Counter):
        stopped = 0

        def stop(self):
            self.stopped += 1
            return super().stop()

    def broken():
        raise EdgemlError("no", hint="no")

    meter = Stopping()
    with pytest.raises(EdgemlError):
        measure(("counter", meter), QUICK, {"steady": broken}, silent)

    assert meter.stopped == 2


def test_a_task_without_repeatable_work_has_a_reason():
    assert "no work that can be repeated" in measure(("counter", Counter()), QUICK, {}, silent).reason


def test_without_a_sensor_nothing_waits_and_no_work_is_asked_for(monkeypatch):
    monkeypatch.setattr(meters, "relevant", list)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    asked = []
    found = carry_out(EnergyPlan(settle_s=60.0), lambda: asked.append(1), silent)

    assert not asked
    assert (found.samples, found.energy) == ((), None)
    assert found.absent[0].reason.startswith("no energy sensor")


def test_a_sensor_that_is_there_and_locked_says_more_than_those_that_are_missing(monkeypatch):
    reasons = {"rapl": absent("locked", hint="a key"), "battery": absent("none")}
    monkeypatch.setattr(meters, "relevant", lambda: list(reasons))
    monkeypatch.setattr(meters, "meter_of", lambda name: type("Locked", (), {"available": lambda _: reasons[name]})())

    assert choose(EnergyPlan()).reason == "locked"


def test_the_best_meter_that_works_is_chosen(monkeypatch):
    working = {"hwmon": None, "battery": None, "rapl": absent("none")}
    monkeypatch.setattr(meters, "relevant", lambda: ["rapl", "hwmon", "battery"])
    monkeypatch.setattr(meters, "meter_of", lambda name: type("Some", (), {"available": lambda _: working[name]})())

    assert choose(EnergyPlan())[0] == "hwmon"


def test_energy_that_is_switched_off_is_absent_and_an_unknown_meter_is_refused():
    assert isinstance(choose(EnergyPlan(meter="off")), Absent)
    with pytest.raises(EdgemlError, match="rapk"):
        choose(EnergyPlan(meter="rapk"))


def test_every_meter_has_a_module_that_does_what_a_meter_does():
    for name in NAMES:
        meter = meter_of(name)
        assert all(
            callable(getattr(meter, verb)) for verb in ("available", "about", "start", "enough", "stop", "warnings")
        )
    assert set(relevant()) <= set(AUTO)


def test_for_an_outside_meter_the_windows_are_kept_without_joules():
    meter = Counter()
    plan = EnergyPlan(meter="external", settle_s=0.0, idle_s=0.01, windows=2, window_s=0.01)
    found = carry_out(plan, lambda: {"steady": work(meter)}, silent)

    assert found.samples == ()
    assert found.absent[0].metric == "energy"
    assert [one.kind for one in found.energy.windows] == ["idle", "steady", "steady", "idle"]
    assert all(one.joules is None for one in found.energy.windows)


def test_an_estimate_is_the_stated_watts_times_the_time_and_is_called_one():
    plan = EnergyPlan(meter="estimate", busy_w=(4.0, 8.0), windows=1, window_s=0.02, settle_s=60.0, idle_s=60.0)
    found = carry_out(plan, lambda: {"steady": work(Counter())}, silent)
    [sample] = found.samples

    assert (sample.metric, sample.how) == ("energy_estimated", "estimated")
    assert sample.values[1] == pytest.approx(2 * sample.values[0])
    assert found.energy.kind == "estimated"
    assert sample.method.startswith("not measured: ")


def test_nothing_is_estimated_without_stated_watts_and_none_are_known_here():
    found = carry_out(EnergyPlan(meter="estimate", settle_s=60.0), dict, silent)

    assert found.samples == ()
    assert "without watts" in found.absent[0].reason


def test_watts_in_disorder_are_refused():
    plan = EnergyPlan(meter="estimate", busy_w=(8.0, 4.0), windows=1, window_s=0.0)

    with pytest.raises(EdgemlError, match="8 to 4 W is no range"):
        carry_out(plan, lambda: {"steady": lambda: 1}, silent)
