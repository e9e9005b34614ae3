"""The rails of a Raspberry Pi 5, on answers in the format of `vcgencmd`, put together by hand with its traps."""

import sys
from pathlib import Path

import pytest

from edgeml_runtime.meters import NO_SENSOR
from edgeml_runtime.meters import pmic as module
from edgeml_runtime.meters.pmic import Pmic, watts_of
from edgeml_runtime.types import Absent

# As the firmware writes it: currents first, then voltages, in another order, and two voltages without a current.
RAILS = """\
   3V7_WL_SW_A current(0)=0.00780752A
     3V3_SYS_A current(1)=0.05953234A
     1V8_SYS_A current(2)=0.17761880A
    DDR_VDD2_A current(3)=0.02439850A
    DDR_VDDQ_A current(4)=0.00000000A
     1V1_SYS_A current(5)=0.19129580A
      0V8_SW_A current(6)=0.32306250A
    VDD_CORE_A current(7)=2.10000000A
     3V3_DAC_A current(17)=0.00006105A
     3V3_ADC_A current(18)=0.00006105A
     0V8_AON_A current(16)=0.00402930A
        HDMI_A current(22)=0.01220700A
     3V3_SYS_V volt(9)=3.31393200V
   3V7_WL_SW_V volt(8)=3.71430600V
     1V8_SYS_V volt(10)=1.80060900V
    DDR_VDD2_V volt(11)=1.10805500V
    DDR_VDDQ_V volt(12)=0.61318600V
     1V1_SYS_V volt(13)=1.10622360V
      0V8_SW_V volt(14)=0.80109740V
    VDD_CORE_V volt(15)=0.75000000V
     3V3_DAC_V volt(20)=3.31303900V
     3V3_ADC_V volt(21)=3.31151300V
     0V8_AON_V volt(19)=0.79683500V
        HDMI_V volt(23)=5.13524000V
       EXT5V_V volt(24)=5.13488000V
        BATT_V volt(25)=0.00585960V
"""


def command(folder: Path, body: str) -> list[str]:
    """A vcgencmd of Python that runs `body`."""
    script = folder / "vcgencmd.py"
    script.write_text(f"import sys\n{body}\n")
    return [sys.executable, str(script)]


def saying(folder, text):
    return command(folder, f"assert sys.argv[1:] == ['pmic_read_adc']\nprint({text!r})")


def test_rails_are_paired_by_name_and_voltages_alone_have_no_power():
    rails = watts_of(RAILS)

    assert len(rails) == 12
    assert not {"EXT5V", "BATT"} & rails.keys()
    assert rails["VDD_CORE"] == pytest.approx(2.1 * 0.75)
    assert rails["3V7_WL_SW"] == pytest.approx(0.00780752 * 3.714306)  # the first current, the second voltage


def test_the_sum_is_that_of_the_rails_without_any_correction(tmp_path):
    meter = Pmic(saying(tmp_path, RAILS))

    assert meter.available() is None
    assert meter._watts() == pytest.approx(sum(watts_of(RAILS).values()))
    assert "USB" in meter.about().excludes


def test_an_answer_that_lacks_a_rail_is_no_reading(tmp_path):
    meter = Pmic(saying(tmp_path, RAILS))
    meter.available()
    saying(tmp_path, RAILS.replace("VDD_CORE_A", "VDD_CORE_X"))

    assert meter._watts() is None


def test_a_board_without_currents_has_no_sensor(tmp_path):
    missing = Pmic(saying(tmp_path, 'error=1 error_msg="Command not registered"')).available()

    assert "no energy sensor" in missing.reason


def test_a_user_outside_the_group_is_told_which(tmp_path):
    missing = Pmic(command(tmp_path, "sys.exit('Can\\'t open device file: /dev/vcio')")).available()

    assert missing.reason == "vcgencmd cannot read the rails: Can't open device file: /dev/vcio"
    assert "--groups video" in missing.hint


def test_a_machine_without_vcgencmd_has_no_sensor():
    assert Pmic(["no-such-vcgencmd"]).available().hint == NO_SENSOR


def test_a_window_is_the_integral_of_the_sums(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MINIMUM_READINGS", 2)
    meter = Pmic(saying(tmp_path, RAILS), period_s=60)
    meter.available()
    meter.start()
    found = meter.stop()

    seconds = meter._sampler.ended - meter._sampler.began
    assert found.joules == pytest.approx(sum(watts_of(RAILS).values()) * seconds, rel=0.01)
    assert found.readings == 2


def test_too_few_readings_give_a_reason_and_no_number(tmp_path):
    meter = Pmic(saying(tmp_path, RAILS), period_s=60)
    meter.available()
    meter.start()

    found = meter.stop()

    assert isinstance(found, Absent)
    assert "2 readings" in found.reason
