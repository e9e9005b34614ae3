"""Another meter's log, laid over the windows of a run."""

from datetime import datetime

import pytest

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.machine import environment
from edgeml_runtime.meters import absent
from edgeml_runtime.meters.external import awaited_log, laid_over, read_log, require_log
from edgeml_runtime.types import Energy, Outcome, Samples, Window

START = 1_790_000_000.0


def outcome(**fields):
    spans = [("idle", 0, 10, 0), ("steady", 10, 20, 5), ("idle", 30, 10, 0)]
    windows = [
        Window(kind=kind, started_s=START + begin, duration_s=float(length), units=units)
        for kind, begin, length, units in spans
    ]
    energy = Energy(
        meter="external", scope="", kind="sampled", excludes="", windows=tuple(windows), unit_of_work="inference"
    )
    return Outcome(environment=environment(1), samples=(), absent=(absent("not yet"),), energy=energy, **fields)


def log(*, shift=0.0, skip=()):
    """A reading a second: 2 W idle, 6 W while there is work."""
    times = [second for second in range(-5, 46) if second not in skip]
    return tuple((START + second + shift, 6.0 if 10 < second < 30 else 2.0) for second in times)


def write(folder, text):
    file = folder / "log.csv"
    file.write_text(text, encoding="utf-8")
    return file


def test_joules_of_each_window_are_the_area_below_the_log():
    found = laid_over(outcome(), log())
    samples = {sample.metric: sample.values for sample in found.samples}

    assert found.absent == ()
    # 20 s at 6 W, less two ramps of a second from and to 2 W: 116 J over 5 inferences
    assert samples["energy"] == pytest.approx([116 / 5])
    # the first idle window ends, and the last begins, on a reading of 2 W
    assert samples["power_idle"] == pytest.approx([2.0, 2.0])
    assert samples["energy_net"] == pytest.approx([(116 - 40) / 5])
    assert found.energy.meter == "external"
    assert found.energy.sampling_hz == pytest.approx(0.9, rel=0.1)


def test_the_offset_is_added_to_the_meters_clock():
    ahead = log(shift=100.0)

    assert "the log runs from" in laid_over(outcome(), ahead).absent[0].reason
    assert laid_over(outcome(), ahead, offset_s=-100.0).samples == laid_over(outcome(), log()).samples


@pytest.mark.parametrize(("skip", "counts"), [(range(15, 19), True), (range(15, 20), False)])
def test_a_gap_above_five_seconds_gives_a_reason_and_no_number(skip, counts):
    found = laid_over(outcome(), log(skip=skip))

    assert bool(found.samples) == counts
    assert counts or found.absent[0].reason == "the log has a gap of 6 s in a window"


@pytest.mark.parametrize("skip", [range(-5, 1), range(40, 46)])
def test_a_log_that_ends_inside_a_window_gives_a_reason_and_no_number(skip):
    found = laid_over(outcome(), log(skip=skip))

    assert found.samples == ()
    assert "--csv-offset-s" in found.absent[0].hint


def test_other_samples_stay_and_a_run_without_windows_comes_back_as_it_is():
    latency = Samples(
        metric="latency", unit="ms", values=(1.0,), statistics=("median",), unit_of_sample="text", method=""
    )
    bare = Outcome(environment=environment(1), samples=(latency,))

    assert laid_over(bare, log()) is bare
    kept = Outcome(environment=bare.environment, samples=(latency,), energy=outcome().energy)
    assert laid_over(kept, log()).samples[0] == latency


def test_unix_seconds_and_iso_8601_are_read_alike_with_columns_in_any_order(tmp_path):
    unix = read_log(write(tmp_path, "watts,volts,timestamp\n4.5,5.1,1790000000.5\n"))
    iso = read_log(write(tmp_path, "timestamp,watts\n2026-09-21T14:13:20.500+00:00,4.5\n"))

    assert unix == iso == ((1790000000.5, 4.5),)


def test_a_time_without_a_zone_is_local(tmp_path):
    found = read_log(write(tmp_path, "\ufefftimestamp,watts\n2026-09-21 14:13:20,4.5\n"))

    assert found[0][0] == datetime(2026, 9, 21, 14, 13, 20).timestamp()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("time,power\n1,2\n", "no columns timestamp and watts"),
        ("", "no columns timestamp and watts"),
        ("timestamp,watts\n", "no reading"),
        ("timestamp,watts\n1,2\nyesterday,2\n", "line 3: cannot read yesterday,2"),
        ("timestamp,watts\n1,-2\n", "line 2: cannot read 1,-2"),
        ("timestamp,watts\n1,nan\n", "line 2: cannot read 1,nan"),
        ("timestamp,watts\n1\n", "line 2: cannot read 1,None"),
        ("timestamp,watts\n2,1\n1,1\n", "line 3: time goes back"),
    ],
)
def test_a_log_that_cannot_be_read_is_refused_by_its_line(tmp_path, text, words):
    with pytest.raises(EdgemlError, match=words):
        read_log(write(tmp_path, text))


def test_a_missing_or_foreign_file_is_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")

    for name in ("missing.csv", "binary"):
        with pytest.raises(EdgemlError, match="cannot read"):
            read_log(tmp_path / name)


def test_a_log_is_waited_for_until_a_line_lies_beyond_the_windows(tmp_path, monkeypatch):
    file, slept = write(tmp_path, f"timestamp,watts\n{START},5\n"), []

    def wait(seconds):
        slept.append(seconds)
        with file.open("a") as lines:
            lines.write(f"{START + 1},5\n" if len(slept) == 2 else "")

    monkeypatch.setattr("edgeml_runtime.meters.external.time.sleep", wait)

    assert awaited_log(file, START + 0.5)[-1] == (START + 1, 5.0)
    assert len(slept) == 2
    assert awaited_log(file, START + 10.5, offset_s=10.0)[-1] == (START + 1, 5.0)
    assert len(slept) == 2


def test_a_log_that_has_ended_is_waited_for_no_longer_than_a_gap_may_be(tmp_path, monkeypatch):
    file, now = write(tmp_path, f"timestamp,watts\n{START},5\n{START + 1},5"), [0.0]
    monkeypatch.setattr("edgeml_runtime.meters.external.time.monotonic", lambda: now[0])
    monkeypatch.setattr("edgeml_runtime.meters.external.time.sleep", lambda seconds: now.append(now.pop() + seconds))

    assert awaited_log(file, START + 9) == read_log(file)  # with its last line, which nothing will end any more
    assert 5.0 <= now[0] < 6.0


def test_a_line_that_is_being_written_is_not_read_by_half(tmp_path, monkeypatch):
    file = write(tmp_path, f"timestamp,watts\n{START},5\n{START + 1},1")

    def wait(seconds):
        with file.open("a") as lines:
            lines.write("5.5\n")

    monkeypatch.setattr("edgeml_runtime.meters.external.time.sleep", wait)

    require_log(file)
    assert awaited_log(file, START + 0.5)[-1] == (START + 1, 15.5)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [("time,watts\n", "has no columns"), ("", "has no columns"), ("timestamp,watts\nx,1\n", "line 2")],
)
def test_a_log_that_could_never_be_read_is_refused_before(tmp_path, text, complaint):
    with pytest.raises(EdgemlError, match=complaint):
        require_log(write(tmp_path, text))
    with pytest.raises(EdgemlError, match="cannot read"):
        require_log(tmp_path / "nowhere.csv")


def test_a_log_may_hold_no_reading_before_the_run(tmp_path):
    require_log(write(tmp_path, "timestamp,watts\n"))
    require_log(write(tmp_path, "timestamp,watts"))
