"""The energy of Apple chips, on reports in powermetrics' format and on an object with the library's fields."""

import plistlib
import sys
import types
from pathlib import Path

import pytest

from edgeml_runtime.meters import apple as module
from edgeml_runtime.meters.apple import Powermetrics, Zeus, report
from edgeml_runtime.types import Absent
from tiny.mac import RECORDED


def plist(elapsed_ns, cpu, gpu, ane):
    """A report as powermetrics prints it: mJ over the window that it really took, power in mW beside them."""
    return plistlib.dumps(
        {
            "elapsed_ns": elapsed_ns,
            "thermal_pressure": "Nominal",
            "processor": {
                "cpu_energy": cpu,
                "gpu_energy": gpu,
                "ane_energy": ane,
                "combined_power": (cpu + gpu + ane) / elapsed_ns * 1e9,
            },
        }
    )


def command(folder: Path, stream: bytes) -> list[str]:
    """A powermetrics that prints the stream at once and goes on running, as the real one does."""
    (folder / "stream").write_bytes(stream)
    script = folder / "powermetrics.py"
    script.write_text(
        f"import sys, time\nsys.stdout.buffer.write(open({str(folder / 'stream')!r}, 'rb').read())\n"
        "sys.stdout.flush()\ntime.sleep(600)\n"
    )
    return [sys.executable, str(script)]


def measured(meter, reports):
    meter.start()
    while len(meter._reports) < reports:
        pass
    begin = meter._started
    found = meter.stop()
    return found, begin


def test_reports_are_split_at_nul_and_power_is_energy_over_the_time_that_they_really_took(tmp_path, monkeypatch):
    # asked for 250 ms, the report took 258.1: 1.161 J in it are 4.5 W, and not 4.645
    stream = b"\0".join([plist(258_100_000, 800, 300, 61.45)] * 4) + b"\0"
    meter = Powermetrics(command(tmp_path, stream), system="darwin", root=True)
    monkeypatch.setattr(module, "perf_counter", iter([0.0, 2.0]).__next__)

    assert meter.available() is None
    found, _ = measured(meter, 4)

    assert found.joules == pytest.approx(4.5 * 2.0)
    assert found.coverage == pytest.approx(4 * 0.2581 / 2)
    assert found.readings == 4


def test_a_stream_of_whole_reports_is_added_up_over_their_own_length_and_tells_its_heat(tmp_path, monkeypatch):
    stream = (RECORDED / "powermetrics.plists").read_bytes()
    meter = Powermetrics(command(tmp_path, stream), system="darwin", root=True)
    monkeypatch.setattr(module, "perf_counter", iter([0.0, 1.1]).__next__)
    found, _ = measured(meter, 4)

    millijoules, elapsed_s = 1033 + 26 + 1300 + 25 + 1280 + 24 + 1291 + 26, 0.258137 + 0.258404 + 0.257902 + 0.258221
    assert found.joules == pytest.approx(millijoules / 1000 / elapsed_s * 1.1)
    assert found.readings == 4
    assert meter.warnings() == ("energy: thermal pressure was Heavy, Moderate while it was measured",)


def test_a_calm_chip_is_not_worth_a_word(tmp_path, monkeypatch):
    meter = Powermetrics(command(tmp_path, plist(250_000_000, 1000, 0, 0) + b"\0"), system="darwin", root=True)
    monkeypatch.setattr(module, "perf_counter", iter([0.0, 1.0]).__next__)
    measured(meter, 1)

    assert meter.warnings() == ()


def test_a_report_without_the_graphics_counts_nothing_since_a_mac_computes_there():
    whole = plistlib.loads(plist(250_000_000, 1000, 300, 0))
    without = {**whole, "processor": {"cpu_energy": 1000, "ane_energy": 0}}
    no_engine = {**whole, "processor": {"cpu_energy": 1000, "gpu_energy": 300}}

    assert report(plistlib.dumps(without)) is None
    assert report(plistlib.dumps(no_engine)).joules == pytest.approx(1.3)


def test_a_report_that_is_cut_short_is_left_out(tmp_path, monkeypatch):
    whole = plist(250_000_000, 1000, 0, 0)
    meter = Powermetrics(command(tmp_path, whole + b"\0" + whole[:200]), system="darwin", root=True)
    monkeypatch.setattr(module, "perf_counter", iter([0.0, 1.0]).__next__)
    found, _ = measured(meter, 1)

    assert found.joules == pytest.approx(4.0)


@pytest.mark.parametrize("text", [b"", b"\n", b"<plist", plistlib.dumps({"elapsed_ns": 1, "processor": {}})])
def test_what_is_no_report_of_a_processor_counts_nothing(text):
    assert report(text) is None


def test_no_report_gives_a_reason_and_no_number(tmp_path):
    meter = Powermetrics(command(tmp_path, b""), system="darwin", root=True)
    meter.start()

    assert isinstance(meter.stop(), Absent)


def test_powermetrics_is_never_started_without_rights(tmp_path):
    missing = Powermetrics(command(tmp_path, b""), system="darwin", root=False).available()

    assert "root alone" in missing.reason
    assert "zeus-apple-silicon" in missing.hint


@pytest.mark.parametrize("kind", [Zeus, Powermetrics])
def test_another_system_is_no_mac(kind):
    assert "no Mac" in kind(system="linux").available().reason


def zeus(monkeypatch, *, cpu=None, gpu=None, ane=None):
    """A module with the class and the fields of zeus-apple-silicon 1.1, whose chip used 7 J in its memory too."""
    windows = []
    found = types.SimpleNamespace(cpu_total_mj=cpu, gpu_mj=gpu, ane_mj=ane, dram_mj=7000, gpu_sram_mj=None)

    class AppleEnergyMonitor:
        def begin_window(self, key):
            windows.append(key)

        def end_window(self, key):
            assert windows.pop() == key
            return found

    stub = types.ModuleType("zeus_like")
    stub.AppleEnergyMonitor = AppleEnergyMonitor
    stub.__spec__ = types.SimpleNamespace(name="zeus_like")
    monkeypatch.setitem(sys.modules, "zeus_like", stub)
    return Zeus("zeus_like", system="darwin")


@pytest.mark.parametrize(("ane", "joules"), [(None, 2.5), (100, 2.6)])
def test_processor_graphics_and_neural_engine_are_added_up_in_millijoules_and_memory_is_not(monkeypatch, ane, joules):
    meter = zeus(monkeypatch, cpu=2000, gpu=500, ane=ane)
    assert meter.available() is None
    meter.start()

    assert meter.stop().joules == pytest.approx(joules)
    assert "memory" in meter.about().excludes


@pytest.mark.parametrize(("cpu", "gpu"), [(None, 500), (2000, None), (None, None)])
def test_a_chip_without_the_counter_of_processor_or_graphics_gives_a_reason_and_no_number(monkeypatch, cpu, gpu):
    meter = zeus(monkeypatch, cpu=cpu, gpu=gpu)
    meter.available()
    meter.start()

    assert isinstance(meter.stop(), Absent)


def test_a_mac_without_the_library_is_told_how_to_get_it():
    missing = Zeus("zeus_apple_silicon_missing", system="darwin").available()

    assert missing.hint.startswith("pip install zeus-apple-silicon")
