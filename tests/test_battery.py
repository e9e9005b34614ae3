"""A laptop's battery, on trees made by hand with the traps of real ones."""

import pytest

from edgeml_runtime.meters import NO_SENSOR
from edgeml_runtime.meters.battery import Battery, on_battery
from edgeml_runtime.types import Absent


def supply(root, name, kind="Battery", **files):
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, value in {"type": kind, **files}.items():
        (folder / file).write_text(f"{value}\n")
    return folder


def window(meter, changes):
    """A window in which each change is seen by one reading."""
    meter.start()
    for change in changes:
        change()
        meter._sampler._take()
    return meter.stop()


def writing(file, values):
    return [lambda value=value: file.write_text(f"{value}\n") for value in values]


def quiet(root):
    return Battery(root, period_s=60)


def watts(root):
    meter = quiet(root)
    assert meter.available() is None
    return meter._read()


def test_power_is_in_microwatts(tmp_path):
    supply(tmp_path, "BAT0", status="Discharging", power_now=12_340_000)

    assert watts(tmp_path) == pytest.approx(12.34)


@pytest.mark.parametrize("current_ua", [1_000_000, -1_000_000])  # drivers disagree about the sign
def test_microamperes_times_microvolts_are_power(tmp_path, current_ua):
    supply(tmp_path, "BAT0", status="Discharging", current_now=current_ua, voltage_now=11_400_000)

    assert watts(tmp_path) == pytest.approx(11.4)


def test_a_power_of_zero_is_firmware_that_does_not_know_it(tmp_path):
    supply(tmp_path, "BAT0", status="Discharging", power_now=0, current_now=0, voltage_now=1, energy_now=40_000_000)
    meter = quiet(tmp_path)

    assert meter.available() is None
    assert meter.about().kind == "counter"


def test_two_batteries_are_added_up_and_a_mouses_does_not_count(tmp_path):
    supply(tmp_path, "BAT0", status="Discharging", power_now=5_000_000)
    supply(tmp_path, "BAT1", status="Discharging", power_now=2_000_000)
    supply(tmp_path, "hidpp_battery_0", status="Discharging", scope="Device", power_now=90_000_000)

    assert watts(tmp_path) == pytest.approx(7.0)


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging", "Unknown"])
def test_a_battery_that_is_not_discharging_measures_nothing(tmp_path, status):
    supply(tmp_path, "BAT0", status=status, power_now=5_000_000)

    missing = quiet(tmp_path).available()

    assert "not running from its battery" in missing.reason
    assert missing.hint != NO_SENSOR


def test_a_charger_that_is_connected_feeds_the_machine_as_well(tmp_path):
    supply(tmp_path, "BAT0", status="Discharging", power_now=5_000_000)
    supply(tmp_path, "AC", kind="Mains", online=1)

    assert "not running from its battery" in quiet(tmp_path).available().reason
    assert on_battery(tmp_path) is False


def test_a_machine_without_a_battery_has_none(tmp_path):
    supply(tmp_path, "AC", kind="Mains", online=1)

    assert quiet(tmp_path).available().hint == NO_SENSOR
    assert on_battery(tmp_path) is None


def test_twenty_changes_of_the_gauge_make_a_figure(tmp_path):
    battery = supply(tmp_path, "BAT0", status="Discharging", power_now=10_000_000)
    meter = quiet(tmp_path)
    meter.available()
    found = window(meter, writing(battery / "power_now", [10_000_000 + 1000 * step for step in range(1, 21)]))

    begin, end = meter._sampler.began, meter._sampler.ended
    assert found.joules == pytest.approx(10.01 * (end - begin), rel=0.01)
    assert meter.enough()


def test_a_gauge_that_hardly_changes_gives_a_reason_and_no_number(tmp_path):
    battery = supply(tmp_path, "BAT0", status="Discharging", power_now=10_000_000)
    meter = quiet(tmp_path)
    found = window(meter, writing(battery / "power_now", [11_000_000] * 300))

    assert isinstance(found, Absent)
    assert "20 changes are needed" in found.reason
    assert not meter.enough()


def test_a_battery_that_is_plugged_in_meanwhile_gives_a_reason_and_no_number(tmp_path):
    battery = supply(tmp_path, "BAT0", status="Discharging", power_now=10_000_000)
    changes = writing(battery / "power_now", range(9_000_000, 9_000_030))
    found = window(quiet(tmp_path), [*changes, *writing(battery / "status", ["Charging"])])

    assert isinstance(found, Absent)
    assert "not running from its battery" in found.reason


def test_the_fall_of_the_energy_gauge_is_in_microwatt_hours_and_its_step_is_told(tmp_path):
    battery = supply(tmp_path, "BAT0", status="Discharging", energy_now=40_000_000)
    meter = quiet(tmp_path)
    levels = [40_000_000 - 10_000 * step for step in range(1, 26)]  # steps of 10 mWh, 36 J
    found = window(meter, writing(battery / "energy_now", levels))

    assert found.joules == pytest.approx(25 * 36)
    assert found.uncertainty == pytest.approx(1 / 25)
    assert meter.warnings() == ("energy: the battery's gauge moves in steps of 36 J",)


def test_the_fall_of_the_charge_gauge_takes_the_mean_voltage_and_not_its_noise(tmp_path):
    battery = supply(tmp_path, "BAT0", status="Discharging", charge_now=3_000_000, voltage_now=12_000_000)
    changes = writing(battery / "charge_now", [3_000_000 - 1000 * step for step in range(1, 21)])
    found = window(quiet(tmp_path), [*changes, *writing(battery / "voltage_now", [11_000_000])])

    # 20 mAh at 11.5 V; charge times voltage at each end would give 3.25 Wh instead of 0.23
    assert found.joules == pytest.approx(0.02 * 11.5 * 3600)
