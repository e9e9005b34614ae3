"""Counters of the processor package, on trees made by hand with the traps of real ones."""

import pytest

from edgeml_runtime.meters import NO_SENSOR, rapl
from edgeml_runtime.meters.rapl import Rapl
from edgeml_runtime.types import Absent


def zone(root, folder, name, energy_uj, limit_uj=1_000_000):
    place = root / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "name").write_text(name + "\n")
    (place / "energy_uj").write_text(f"{energy_uj}\n")
    (place / "max_energy_range_uj").write_text(f"{limit_uj}\n")
    return place


@pytest.fixture
def ticking(monkeypatch):
    """A clock that advances two seconds a look."""
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(rapl, "perf_counter", lambda: float(next(times)))


def used(meter, folders, now):
    meter.start()
    for folder, value in zip(folders, now, strict=True):
        (folder / "energy_uj").write_text(f"{value}\n")
    return meter.stop()


def test_packages_are_added_up_without_psys_dram_core_and_the_memory_mapped_twin(tmp_path, ticking):
    folders = [
        zone(tmp_path, "intel-rapl:0", "package-0", 100),
        zone(tmp_path, "intel-rapl:1", "package-1", 500),
        zone(tmp_path, "intel-rapl:2", "psys", 0),
        zone(tmp_path, "intel-rapl:0:0", "core", 0),
        zone(tmp_path, "intel-rapl:0:1", "dram", 0),
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),
    ]
    meter = Rapl(tmp_path)

    assert meter.available() is None
    found = used(meter, folders, (2_000_100, 1_000_500, 9_000_000, 9_000_000, 9_000_000, 9_000_000))

    assert found.joules == pytest.approx(3.0)


def test_a_package_that_only_the_memory_mapped_route_has_is_read_there(tmp_path, ticking):
    folder = zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0)

    assert used(Rapl(tmp_path), [folder], [5_000_000]).joules == pytest.approx(5.0)


def test_the_dies_of_one_package_are_packages_of_their_own(tmp_path, ticking):
    folders = [zone(tmp_path, f"intel-rapl:{die}", f"package-0-die-{die}", 0) for die in (0, 1)]

    assert used(Rapl(tmp_path), folders, [1_000_000, 2_000_000]).joules == pytest.approx(3.0)


def test_a_wrapped_counter_is_unwrapped(tmp_path, ticking):
    folder = zone(tmp_path, "intel-rapl:0", "package-0", 262_143_328_000, limit_uj=262_143_328_850)

    assert used(Rapl(tmp_path), [folder], [999_149]).joules == pytest.approx(1.0)


def test_a_window_shorter_than_a_second_gives_a_reason_and_no_number(tmp_path):
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    meter = Rapl(tmp_path)
    meter.start()

    assert not meter.enough()
    found = meter.stop()

    assert isinstance(found, Absent)
    assert "too short" in found.reason


@pytest.mark.parametrize(
    "prepare", [lambda root: None, lambda root: root.mkdir(), lambda root: zone(root, "intel-rapl:0", "psys", 1)]
)
def test_a_machine_without_a_sensor_has_a_reason(tmp_path, prepare):
    prepare(tmp_path / "powercap")

    missing = Rapl(tmp_path / "powercap").available()

    assert "no energy sensor" in missing.reason
    assert missing.hint == NO_SENSOR


def test_counters_that_a_container_masks_are_called_masked(tmp_path):
    (tmp_path / "intel-rapl:0").symlink_to(tmp_path / "devices" / "virtual" / "powercap" / "intel-rapl:0")

    missing = Rapl(tmp_path).available()

    assert "masked" in missing.reason
    assert missing.hint == "measure outside the container"


def test_counters_for_root_alone_say_so_and_never_ask_for_a_password(tmp_path, monkeypatch):
    zone(tmp_path, "intel-rapl:0", "package-0", 1)

    def refused(path):  # the tests may run as root, whom no mode of a file keeps out
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(rapl, "_number", refused)
    missing = Rapl(tmp_path).available()

    assert missing.reason.endswith("intel-rapl:0/energy_uj is readable by root alone")
    assert "as root" in missing.hint


@pytest.mark.parametrize("spoil", [lambda file: file.unlink(), lambda file: file.write_text("none\n")])
def test_a_counter_that_tells_no_number_has_a_reason(tmp_path, spoil):
    spoil(zone(tmp_path, "intel-rapl:0", "package-0", 1) / "energy_uj")

    assert "energy_uj" in Rapl(tmp_path).available().reason
