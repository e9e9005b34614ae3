"""What the machine tells about its heat and supply, on trees made by hand, and what of it is marked."""

import os

import pytest

from edgeml_runtime.meters.state import marks, read_state, throttle_bits
from edgeml_runtime.types import State
from tiny.mac import commands


def tree(root, files):
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{value}\n")
    return root


def firmware(folder, answers):
    """A vcgencmd that knows some questions."""
    script = folder / "vcgencmd"
    cases = "\n".join(f"'{question}') echo '{answer}';;" for question, answer in answers.items())
    script.write_text(f'#!/bin/sh\ncase "$*" in\n{cases}\nesac\n')
    script.chmod(0o755)
    return str(script)


def test_the_hottest_zone_in_millidegrees_counts_and_absurd_ones_do_not(tmp_path):
    zones = {0: 48312, 1: 71000, 2: -274000, 3: 255000, 4: "none"}
    tree(tmp_path, {f"sys/class/thermal/thermal_zone{zone}/temp": value for zone, value in zones.items()})

    assert read_state(tmp_path).temperature_c == 71.0


def test_the_clock_rate_is_the_fastest_processors_in_megahertz_with_its_governor(tmp_path):
    cpu = "sys/devices/system/cpu/cpu{}/cpufreq/{}"
    files = {cpu.format(0, "scaling_cur_freq"): 800000, cpu.format(1, "scaling_cur_freq"): 2400000}
    tree(tmp_path, {**files, cpu.format(0, "scaling_governor"): "ondemand"})
    found = read_state(tmp_path, vcgencmd="none")

    assert (found.frequency_mhz, found.governor) == (2400.0, "ondemand")


def test_the_firmwares_clock_rate_wins_since_the_kernels_lies_while_it_throttles(tmp_path):
    tree(tmp_path, {"sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": 1400000})
    command = firmware(tmp_path, {"measure_clock arm": "frequency(48)=600117184"})

    assert read_state(tmp_path, vcgencmd=command).frequency_mhz == pytest.approx(600.1, abs=0.1)


def test_bits_have_names_and_those_since_boot_begin_with_had():
    assert throttle_bits("throttled=0x50005") == ("under_voltage", "throttled", "had_under_voltage", "had_throttled")
    assert throttle_bits("0\n") == ()
    assert len(throttle_bits("f000f")) == 8


@pytest.mark.parametrize("place", ["soc/soc:firmware", "soc@107c000000/soc@107c000000:firmware", "soc:firmware"])
def test_bits_are_read_from_the_kernel_where_it_has_them(tmp_path, place):
    tree(tmp_path, {f"sys/devices/platform/{place}/get_throttled": "20000"})

    assert read_state(tmp_path, vcgencmd="none").throttled == ("had_frequency_capped",)


@pytest.mark.parametrize(("answer", "bits"), [("throttled=0x4", ("throttled",)), ("VCHI initialization failed", None)])
def test_bits_are_asked_of_the_firmware_elsewhere(tmp_path, answer, bits):
    assert read_state(tmp_path, vcgencmd=firmware(tmp_path, {"get_throttled": answer})).throttled == bits


def test_pages_swapped_in_and_out_are_added_up_and_the_supply_is_told(tmp_path):
    tree(
        tmp_path,
        {
            "proc/vmstat": "nr_free_pages 5\npswpin 30\npswpout 12",
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/status": "Discharging",
        },
    )
    found = read_state(tmp_path)

    assert found.swapped_pages == 42
    assert found.on_battery is True


def test_what_a_system_does_not_tell_is_absent(tmp_path):
    found = read_state(tmp_path, vcgencmd="none")

    assert found == State(load_average=found.load_average, major_faults=found.major_faults)
    assert found.load_average >= 0


def mac(folder, monkeypatch, *, batt, power, level="notifyutil-nominal"):
    """What a Mac whose commands say so tells of itself."""
    pmset = {"-g": power, "'-g batt'": batt}
    notifyutil = {"'-g com.apple.system.thermalpressurelevel'": level}
    path = commands(folder, pmset=pmset, notifyutil=notifyutil, vm_stat={"*": "vm_stat"})
    monkeypatch.setenv("PATH", path)
    return read_state(system="darwin")


def test_a_mac_tells_thermal_pressure_supply_low_power_mode_and_paging(tmp_path, monkeypatch):
    found = mac(
        tmp_path / "bin", monkeypatch, batt="pmset-batt-discharging", power="pmset-low-power", level="notifyutil-heavy"
    )

    assert found.thermal_pressure == "Heavy"
    assert found.on_battery is True
    assert found.low_power_mode is True
    assert found.swapped_pages == 7200
    assert found.major_faults is not None
    assert (found.temperature_c, found.frequency_mhz, found.throttled) == (None, None, None)


@pytest.mark.parametrize(("batt", "on_battery"), [("pmset-batt-mains", False), ("pmset-batt-desktop", None)])
def test_a_cool_mac_on_mains_in_high_power_mode_is_calm_and_a_desktop_has_no_battery(
    tmp_path, monkeypatch, batt, on_battery
):
    found = mac(tmp_path / "bin", monkeypatch, batt=batt, power="pmset-high-power")

    assert (found.thermal_pressure, found.low_power_mode, found.on_battery) == ("Nominal", False, on_battery)
    assert marks(found, found) == ()


def test_a_mac_whose_commands_say_nothing_tells_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = read_state(system="darwin")

    assert found == State(load_average=found.load_average, major_faults=found.major_faults)


@pytest.mark.parametrize(
    ("before", "after", "mark"),
    [
        ({"throttled": ()}, {"throttled": ("had_throttled",)}, "the board throttled: had_throttled"),
        ({"throttled": ("under_voltage",)}, {"throttled": ()}, "the board throttled: under_voltage"),
        ({"throttled": ()}, {"throttled": ("throttled",)}, "the board throttled: throttled"),
        ({"swapped_pages": 5}, {"swapped_pages": 1005}, "the machine swapped 1000 pages"),
        ({"major_faults": 5}, {"major_faults": 105}, "read from disk 100 times"),
        ({"on_battery": True}, {"on_battery": False}, "the supply changed"),
        ({"thermal_pressure": "Nominal"}, {"thermal_pressure": "Heavy"}, "thermal pressure was Heavy"),
        ({"thermal_pressure": "Moderate"}, {"thermal_pressure": "Nominal"}, "thermal pressure was Moderate"),
        ({"low_power_mode": True}, {"low_power_mode": True}, "low power mode"),
    ],
)
def test_what_happened_in_between_is_marked(before, after, mark):
    [found] = marks(State(**before), State(**after))

    assert mark in found


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"throttled": ("had_under_voltage",)}, {"throttled": ("had_under_voltage",)}),  # sticky since an earlier run
        ({"swapped_pages": 5}, {"swapped_pages": 105}),
        ({"major_faults": 5}, {"major_faults": 9}),
        ({"temperature_c": 40.0}, {"temperature_c": 70.0}),
        ({}, {}),
    ],
)
def test_what_is_no_sign_is_not_marked(before, after):
    assert marks(State(**before), State(**after)) == ()


def test_this_machine_can_be_read():
    found = read_state()

    assert found.major_faults is not None
    assert found.load_average == pytest.approx(os.getloadavg()[0], abs=5)
