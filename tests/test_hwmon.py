"""Power chips in a supply line, on trees made by hand with the traps of real ones."""

import pytest

from edgeml_runtime.meters import NO_SENSOR
from edgeml_runtime.meters import hwmon as module
from edgeml_runtime.meters.hwmon import Hwmon
from edgeml_runtime.types import Absent


def chip(root, number, name, **files):
    folder = root / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(name + "\n")
    for file, value in files.items():
        (folder / file).write_text(f"{value}\n")
    return folder


def watts(root):
    meter = Hwmon(root)
    assert meter.available() is None
    return meter._channel().watts()


def test_power_is_in_microwatts_and_wins_over_the_product(tmp_path):
    chip(tmp_path, 0, "ina226", power1_input=5_250_000, in1_input=5000, curr1_input=900)

    assert watts(tmp_path) == pytest.approx(5.25)


def test_the_product_of_millivolts_and_milliamperes_is_microwatts(tmp_path):
    chip(tmp_path, 0, "ina219", in0_input=9, in1_input=5000, curr1_input=900)  # in0 is the shunt's own voltage

    assert watts(tmp_path) == pytest.approx(4.5)


def test_only_the_labelled_input_of_several_lines_counts_since_the_others_lie_behind_it(tmp_path):
    chip(
        tmp_path, 3, "ina3221",
        in1_label="VDD_IN", in1_input=5000, curr1_input=2000,
        in2_label="VDD_CPU_GPU_CV", in2_input=5000, curr2_input=800,
        in3_label="VDD_SOC", in3_input=5000, curr3_input=700,
    )  # fmt: skip

    assert watts(tmp_path) == pytest.approx(10.0)
    assert Hwmon(tmp_path).about().scope == "the supply line VDD_IN"


def test_several_lines_of_which_none_is_the_input_are_not_added_up(tmp_path):
    chip(tmp_path, 0, "ina226", power1_input=3_000_000)
    chip(tmp_path, 1, "ina226", power1_input=2_000_000)

    missing = Hwmon(tmp_path).available()

    assert "several lines" in missing.reason
    assert missing.hint != NO_SENSOR


def test_other_chips_that_tell_a_power_are_left_out(tmp_path):
    chip(tmp_path, 0, "amdgpu", power1_input=30_000_000)
    chip(tmp_path, 1, "BAT0", in0_input=12_000, curr1_input=1000)

    assert "no INA2xx" in Hwmon(tmp_path).available().reason


def test_a_line_that_is_switched_off_is_no_line(tmp_path):
    folder = chip(tmp_path, 0, "ina3221", in1_input=5000, curr1_input=100, in2_input=5000)
    (folder / "curr2_input").mkdir()  # reading it fails, as ENODATA does

    assert watts(tmp_path) == pytest.approx(0.5)


@pytest.mark.parametrize(("uohm", "warned"), [(10_000, True), (2_000, False)])
def test_the_drivers_default_shunt_is_warned_about(tmp_path, uohm, warned):
    chip(tmp_path, 0, "ina219", power1_input=3_000_000, shunt_resistor=uohm)
    meter = Hwmon(tmp_path)

    assert bool(meter.warnings()) == warned
    assert f"shunt {uohm // 1000} milliohm" in meter.about().scope


def test_a_window_is_the_integral_of_its_readings_and_says_how_many_there_were(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MINIMUM_READINGS", 5)
    chip(tmp_path, 0, "ina226", power1_input=4_000_000)
    meter = Hwmon(tmp_path, period_s=0.001)
    meter.start()
    while not meter.enough():
        pass
    found = meter.stop()

    begin, end = meter._sampler.began, meter._sampler.ended
    assert found.joules == pytest.approx(4.0 * (end - begin), rel=0.01)
    assert found.readings >= 5
    assert 0 < found.coverage <= 1


def test_a_chip_that_fell_silent_gives_a_reason_and_no_number(tmp_path):
    folder = chip(tmp_path, 0, "ina226", power1_input=4_000_000)
    meter = Hwmon(tmp_path, period_s=0.001)
    meter.start()
    (folder / "power1_input").unlink()
    found = meter.stop()

    assert isinstance(found, Absent)
    assert "the power sensor gave" in found.reason
