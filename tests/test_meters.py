import pytest

from edgeml_runtime.meters import rapl
from edgeml_runtime.meters.clock import steady_s
from edgeml_runtime.meters.memory import Memory
from edgeml_runtime.meters.rapl import Rapl
from edgeml_runtime.types import Absent

STATUS = "Name:\tpython\nVmHWM:\t  {peak} kB\nRssAnon:\t  {anon} kB\nRssFile:\t  {file} kB\n"


def zone(root, number, name, energy_uj, limit_uj=1_000_000):
    folder = root / f"intel-rapl:{number}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "name").write_text(name + "\n")
    (folder / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / "max_energy_range_uj").write_text(f"{limit_uj}\n")
    return folder


@pytest.fixture
def ticking(monkeypatch):
    """A clock that advances two seconds a look."""
    times = iter(range(0, 1000, 2))
    monkeypatch.setattr(rapl, "perf_counter", lambda: float(next(times)))


def test_warmups_and_repeats_are_kept_apart_and_take_the_items_in_turn():
    seen = []

    warmups, repeats = steady_s(seen.append, ["a", "b"], warmups=1, repeats=4)

    assert seen == ["a", "b", "a", "b", "a"]
    assert (len(warmups), len(repeats)) == (1, 4)
    assert all(value >= 0 for value in warmups + repeats)


def test_memory_peaks_are_the_largest_readings_in_mebibytes(tmp_path):
    memory = Memory(tmp_path)
    for anon, file in ((1024, 4096), (3072, 2048)):
        (tmp_path / "status").write_text(STATUS.format(peak=8192, anon=anon, file=file))
        (tmp_path / "smaps_rollup").write_text("Rss: 1 kB\nPss:                2048 kB\nPss_Anon: 7 kB\n")
        memory.read()

    peaks = {sample.metric: sample.values for sample in memory.samples()}

    assert peaks == {
        "memory_peak": (8.0,),
        "memory_peak_anon": (3.0,),
        "memory_peak_file": (4.0,),
        "memory_peak_pss": (2.0,),
    }


def test_a_system_without_proc_has_a_reason_and_no_number(tmp_path):
    memory = Memory(tmp_path / "none")
    memory.read()

    assert memory.samples() == []
    assert memory.absent()[0].reason == "this system has no /proc"


def test_energy_sums_packages_and_leaves_out_psys_dram_and_the_second_route(tmp_path, ticking):
    packages = [zone(tmp_path, "0", "package-0", 100), zone(tmp_path, "1", "package-1", 500)]
    others = [zone(tmp_path, "2", "psys", 0), zone(tmp_path, "0:0", "core", 0)]
    (tmp_path / "intel-rapl-mmio:0").mkdir()
    for name, text in (("name", "package-0"), ("energy_uj", "0"), ("max_energy_range_uj", "1000000")):
        (tmp_path / "intel-rapl-mmio:0" / name).write_text(text)
    meter = Rapl(tmp_path)

    assert meter.unavailable() is None
    meter.start()
    for folder, now in zip([*packages, *others], (2_000_100, 1_000_500, 9_000_000, 9_000_000), strict=True):
        (folder / "energy_uj").write_text(str(now))
    (tmp_path / "intel-rapl-mmio:0" / "energy_uj").write_text("9000000")

    assert meter.stop() == pytest.approx(3.0)


def test_a_wrapped_counter_is_unwrapped(tmp_path, ticking):
    folder = zone(tmp_path, "0", "package-0", 900_000, limit_uj=999_999)
    meter = Rapl(tmp_path)
    meter.start()
    (folder / "energy_uj").write_text("100000")

    assert meter.stop() == pytest.approx(0.2)


def test_a_window_shorter_than_a_second_gives_a_reason_and_no_number(tmp_path):
    zone(tmp_path, "0", "package-0", 1)
    meter = Rapl(tmp_path)
    meter.start()

    found = meter.stop()

    assert isinstance(found, Absent)
    assert "too short" in found.reason


@pytest.mark.parametrize(
    "prepare", [lambda root: None, lambda root: root.mkdir(), lambda root: zone(root, "0", "psys", 1)]
)
def test_a_machine_without_a_sensor_has_a_reason(tmp_path, prepare):
    prepare(tmp_path / "powercap")

    missing = Rapl(tmp_path / "powercap").unavailable()

    assert missing is not None
    assert missing.metric == "energy"
    assert "no energy sensor" in missing.reason


def test_a_counter_that_cannot_be_read_has_a_reason(tmp_path):
    (zone(tmp_path, "0", "package-0", 1) / "energy_uj").unlink()

    missing = Rapl(tmp_path).unavailable()

    assert missing is not None
    assert "energy_uj" in missing.reason
