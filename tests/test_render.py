"""Tables for people, lines for programs, and progress: on a screen of any width, on a terminal and off it."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading

import msgspec
import pytest
from msgspec.structs import replace

from edgeml.console import Bars
from edgeml.render import Column, as_json, as_text, size, table
from edgeml.targets import profiles
from edgeml.types import Difference, Example, Measurement, Model, Report, Verdict
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.types import Absent, Environment, File
from tiny.variants import onnx_variant

HERE = Environment(machine="x86_64", system="Linux", python="3.11", threads=2, cores=2, libraries={}, cpu="A CPU")
FIGURES = {  # metric, statistic and unit; then value, low and high of each variant
    ("nearest_accuracy", "mean", "1"): ((0.781, 0.738, 0.819), (0.763, 0.720, 0.806)),
    ("latency", "median", "ms"): ((22.66, 22.1, 23.2), (10.0, 9.7, 10.4)),
    ("latency", "p95", "ms"): ((30.1, 12.0, 40.0), (15.5, 11.0, 17.0)),
    ("latency", "p99", "ms"): ((40.1, 30.0, 50.0), (20.5, 14.0, 27.0)),
    ("throughput", "median", "text/s"): ((68.0, 60.0, 70.0), (118.0, 110.0, 120.0)),
    ("memory_peak", "max", "MiB"): ((200.4, None, None), (112.2, None, None)),
    ("size", "once", "byte"): ((90_800_000.0, None, None), (23_300_000.0, None, None)),
}
NAMES = ("minilm/onnx-fp32", "minilm/onnx-int8")


def report(names=NAMES, **more):
    measured = [
        Measurement(
            variant=name,
            target="laptop",
            how="measured",
            task="feature-extraction",
            metric=metric,
            unit=unit,
            value=values[index][0],
            low=values[index][1],
            high=values[index][2],
            n=1 if values[index][1] is None else 397,
            statistic=statistic,
            provenance={"dataset": "lines.csv", "seed": "20"},
            environment=HERE,
        )
        for index, name in enumerate(names)
        for (metric, statistic, unit), values in FIGURES.items()
    ]
    change = Difference(
        variant=names[1],
        baseline=names[0],
        target="laptop",
        metric="nearest_accuracy",
        unit="1",
        difference=-0.0176,
        low=-0.0378,
        high=0.0004,
        n=397,
    )
    return Report(measurements=tuple(measured), differences=(change,), **more)


def row(text, name):
    return next(line for line in text.splitlines() if line.startswith(name))


def test_a_row_shows_figures_with_intervals_and_the_change_from_the_baseline():
    text = as_text([report()], 110)

    assert text.splitlines()[0] == "minilm"
    assert row(text, "onnx-fp32").split("  ")[-1].strip() == "90.8"
    assert "0.781 [0.738, 0.819]" in row(text, "onnx-fp32")
    assert "baseline" in row(text, "onnx-fp32")
    assert "-0.018 [-0.038, +0.000]" in row(text, "onnx-int8")
    assert "onnx-fp32 [95 %]" in text
    for words in ("p50, ms", "text/s", "MiB", "MB"):
        assert words in text
    assert "40.1" not in text  # p99 is only in the lines for programs


def test_a_throughput_below_ten_is_shown_with_digits():
    whole = report()
    slow = [replace(one, value=one.value / 100, unit="s/s") for one in whole.measurements if one.metric == "throughput"]

    text = as_text([replace(whole, measurements=tuple(slow), differences=())], 110)

    assert "s/s" in text
    assert row(text, "onnx-fp32").split() == ["onnx-fp32", "0.68"]


def test_the_best_of_a_cost_is_marked_and_what_its_interval_cannot_tell_apart():
    text = as_text([report()], 110)

    fp32, int8 = row(text, "onnx-fp32"), row(text, "onnx-int8")
    assert "10.00*" in int8
    assert "22.66*" not in fp32
    assert "15.50*" in int8
    assert "30.10*" not in fp32  # though its interval meets the best's: those of two runs are no test
    assert "118*" in int8  # the highest throughput is the best
    assert "23.3*" in int8
    assert "0.781*" not in fp32
    assert "* best of its column" in text
    assert "*" not in as_text([report(names=(NAMES[0], NAMES[0]))], 110)


@pytest.mark.parametrize("width", [60, 80, 110, 160])
def test_a_narrow_screen_leaves_columns_out_and_says_so(width):
    text = as_text([report()], width)

    rows = text.splitlines()[1:6]
    assert all(len(line) <= max(width, 78) for line in rows)
    assert "onnx-int8" in text
    assert "size" in text
    assert ("no room for" in text) == (width <= 80)
    assert "memory" in text


def test_columns_line_up_on_the_right():
    text = as_text([report()], 110)
    fp32, int8 = row(text, "onnx-fp32"), row(text, "onnx-int8")

    for above, below in (("22.66", "10.00"), (" 68", "118"), ("200", "112"), ("90.8", "23.3")):
        assert fp32.index(above) == int8.index(below)


def test_variants_of_several_models_keep_their_whole_names():
    text = as_text([report(names=("a/onnx-fp32", "b/onnx-fp32"))], 160)

    assert row(text, "a/onnx-fp32")
    assert row(text, "b/onnx-fp32")


def test_what_was_measured_and_on_what_is_said_and_absences_once_each():
    absent = [Absent(metric="energy", reason="no sensor", hint="x", variant=name) for name in NAMES]
    lines = as_text([report(absent=tuple(absent), warnings=("minilm/onnx-int8: mind this",))], 110).splitlines()

    assert "measured on laptop: A CPU, 2 threads; feature-extraction on lines.csv, seed 20" in lines
    assert "samples of each variant: 397 nearest right, 397 latency, 397 throughput" in lines
    assert lines.count("energy: not measured, no sensor") == 1
    assert lines[-1] == "warning: minilm/onnx-int8: mind this"


def test_models_variants_and_bundles_have_a_table_each(tmp_path):
    file = File(path="model.onnx", size_bytes=2_500_000, sha256="0" * 64)
    model = Model(name="minilm", ref="hf:org/minilm@abc", path="x", files=(file,), format="onnx", downloaded="now")
    bundle = Bundle(
        name="minilm-onnx-int8-laptop",
        variant="minilm/onnx-int8",
        model="hf:org/minilm@abc",
        target="laptop",
        kind="tar",
        runtime="1",
        files=(file, file),
        machine="x86_64",
        python=("3.11",),
    )
    variant = onnx_variant(tmp_path / "v", name="minilm/onnx-int8")
    audit = msgspec.structs.replace(variant.manifest.audit, earned=False, shortfalls=("it is no int8",))
    manifest = msgspec.structs.replace(variant.manifest, audit=audit, source_quantized="Q4_1")
    variant = msgspec.structs.replace(variant, manifest=manifest)

    text = as_text([model, variant, bundle], 110)

    assert "2.5 MB" in row(text, "minilm ")
    assert "not stated" in row(text, "minilm ")
    assert row(text, "onnx-int8 ").endswith("not earned")
    assert "onnx-int8: it is no int8" in text
    assert "onnx-int8: its source was already Q4_1; no full precision to compare with" in text
    assert "5.0 MB" in row(text, "minilm-onnx-int8-laptop")


def test_every_target_is_shown_with_its_aliases_on_a_narrow_screen():
    text = as_text(profiles(), 80)

    assert "pi5 = pi" in text
    assert all(len(line) <= 80 for line in text.splitlines())


def test_a_table_that_cannot_be_narrow_enough_keeps_what_matters():
    columns = [Column(title="name", cells=("x" * 30,)), Column(title="more", cells=("y" * 30,), rank=1)]

    assert "more" not in table(columns, 20).splitlines()[0]
    assert table(columns, 20).splitlines()[-1] == "(no room for: more)"


@pytest.mark.parametrize(("size_bytes", "text"), [(0, "0.0 MB"), (23_300_000, "23.3 MB"), (1_234_000_000, "1.23 GB")])
def test_sizes_are_decimal(size_bytes, text):
    assert size(size_bytes) == text


def test_a_report_is_a_line_for_each_of_its_parts():
    absent = Absent(metric="energy", reason="no sensor", hint="x")

    lines = [json.loads(line) for line in as_json(report(absent=(absent,)))]

    assert [line["schema"] for line in lines] == (
        ["edgeml.measurement/1"] * 2 * len(FIGURES) + ["edgeml.difference/1", "edgeml.absent/1"]
    )
    assert all("low" not in line for line in lines if line.get("metric") == "size")  # absent, not null


def test_off_a_terminal_each_step_is_one_line():
    stream = io.StringIO()
    bars = Bars(stream)
    for done in range(3):
        bars("fetch", done, 2)
    bars("goldens", 0, 1)
    bars("written", 1, 1)
    bars.close()

    assert stream.getvalue() == "fetch ...\ngoldens ...\nwritten\n"


def test_on_a_terminal_nothing_runs_between_two_reports():
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    bars, before = Bars(Terminal()), threading.active_count()
    bars("measure", 0, 1)

    assert threading.active_count() == before
    bars.close()


def on_terminal(code, *, stdout=subprocess.PIPE):
    """What a program wrote to stdout, and what a terminal showed of its stderr."""
    parent, child = pty.openpty()
    command = [sys.executable, "-c", code]
    settings = os.environ | {"TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=stdout, stderr=child, env=settings, text=True) as process:
        os.close(child)
        shown = b""
        while part := _read(parent):
            shown += part
        out = process.communicate()[0]
    os.close(parent)
    assert process.returncode == 0, shown.decode()
    return out, shown.decode()


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # how Linux says that the other end is closed
        return b""


def test_on_a_terminal_a_bar_is_drawn_on_stderr_and_becomes_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    onnx_variant(tmp_path / "artifacts" / "tiny" / "onnx-fp32")
    code = (
        "import sys; sys.argv = ['edgeml', 'bench', 'tiny', '--json', '--threads', '1', '--repeats', '4']\n"
        "from edgeml.cli import main; main()"
    )

    out, shown = on_terminal(code)

    assert all(json.loads(line) for line in out.splitlines())
    assert "━" in shown
    lines = shown.split("\n")
    assert any(re.search(r"bench tiny/onnx-fp32: answers  \d+\.\d s", line) for line in lines)
    assert lines[-2].startswith("next: ")
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def verdict(word, **fields):
    own = {
        "variant": NAMES[1],
        "baseline": NAMES[0],
        "target": "laptop",
        "metric": "nearest_accuracy",
        "statistic": "mean",
        "unit": "1",
        "verdict": word,
        "difference": -0.0176,
        "low": -0.0378,
        "high": 0.0004,
        "bound": -0.0078,
        "n": 397,
        "level": 0.95,
        "method": "Tango (1998)",
    }
    return Verdict(**own | fields)


def test_a_verdict_comes_last_in_one_sentence_with_its_interval_and_what_would_decide():
    undecided = verdict("cannot tell", n_needed=1700, p_value=0.09)
    text = as_text([report(verdicts=(undecided,))], 110)

    assert text.splitlines()[-1] == (
        "onnx-int8  cannot tell  nearest_accuracy changed by -0.0176 [-0.0378, +0.0004] from onnx-fp32, "
        "allowed -0.0078; McNemar p 0.09; about 1700 rows would tell, these are 397"
    )


@pytest.mark.parametrize(
    ("known", "text"),
    [
        (
            {"metric": "size", "unit": "of the baseline's", "bound": 0.5},
            "size is not known, allowed 50% of the baseline's",
        ),
        (
            {"metric": "perplexity", "unit": "from the baseline's", "bound": 0.01},
            "perplexity is not known, allowed +1% from the baseline's",
        ),
        ({"metric": "perplexity", "unit": "perplexity", "bound": 0.5}, "perplexity is not known, allowed +0.5000"),
        ({"metric": "size", "unit": "byte", "bound": 25e6, "baseline": None}, "size is not known, allowed 25.0"),
    ],
)
def test_a_bound_on_what_is_not_known_is_told_as_it_was_set(known, text):
    unknown = verdict("cannot tell", **{"statistic": "", "difference": None, "low": None, "high": None} | known)

    assert as_text([report(verdicts=(unknown,))]).splitlines()[-1].endswith(text)


@pytest.mark.parametrize(("metric", "noun"), [("latency", "processes"), ("same_top", "chunks"), ("spearman", "rows")])
def test_what_would_decide_is_counted_in_what_the_metric_is_sampled_by(metric, noun):
    undecided = verdict("cannot tell", metric=metric, n=5, n_needed=130)

    assert f"about 130 {noun} would tell, these are 5" in " ".join(as_text([report(verdicts=(undecided,))]).split())


def test_a_bound_on_a_cost_is_told_in_the_tables_own_unit():
    size_verdict = verdict(
        "pass",
        metric="size",
        statistic="once",
        unit="byte",
        baseline=None,
        difference=None,
        value=23.3e6,
        low=None,
        high=None,
        bound=25e6,
    )

    assert (
        as_text([report(verdicts=(size_verdict,))]).splitlines()[-1].endswith("size is 23.3 MB, at most 25.0 allowed")
    )


def test_flipped_rows_are_shown_only_after_a_verdict_that_failed():
    flipped = Example(
        variant=NAMES[1],
        kind="flipped",
        row=17,
        answer="rent",
        baseline=NAMES[0],
        baseline_answer="fuel",
        expected="fuel",
    )

    assert "row 17" not in as_text([report(verdicts=(verdict("pass"),), examples=(flipped,))])
    text = as_text([report(verdicts=(verdict("fail"),), examples=(flipped,))])
    assert "onnx-int8: row 17 flipped from fuel to rent (expected fuel)" in text


def test_slices_have_a_row_each_and_the_worst_is_named():
    changes = tuple(
        Difference(
            variant=NAMES[1],
            baseline=NAMES[0],
            target="laptop",
            metric="nearest_accuracy",
            unit="1",
            difference=value,
            low=low,
            high=0.1,
            n=n,
            slice=place,
        )
        for place, value, low, n in (("region=north", -0.2, -0.3, 30), ("region=south", 0.01, -0.01, 300))
    )
    base = report()

    text = as_text([msgspec.structs.replace(base, differences=(*base.differences, *changes))])

    assert row(text, "region=north").split()[1] == "30"
    assert "onnx-int8 changed most for the worse in region=north: -0.200 [-0.300, +0.100] on 30 rows" in text


def change(name, metric, place, value, *, low=-1.0, n=30):
    """A difference of a slice from the baseline."""
    return Difference(
        variant=name, baseline=NAMES[0], target="laptop", metric=metric, unit="1", difference=value, low=low, high=1.0,
        n=n, slice=place,
    )  # fmt: skip


def figure(name, metric, value, place=None, *, statistic="mean", task="feature-extraction"):
    """A measurement, of a slice or of all rows."""
    return Measurement(
        variant=name, target="laptop", how="measured", task=task, metric=metric, unit="1", value=value, n=30,
        statistic=statistic, provenance={"dataset": "lines.csv", "seed": "20"}, environment=HERE, slice=place,
        low=value - 0.01, high=value + 0.01,
    )  # fmt: skip


def test_without_labels_slices_show_likeness_to_the_baseline_and_never_tokens():
    places = ("lang=de", "lang=en")
    other = "minilm/onnx-q4"
    tokens = tuple(change(name, "tokens", place, 0.0) for name in (NAMES[1], other) for place in places)
    likeness = (
        figure(NAMES[1], "fidelity.cosine", 0.95, "lang=de"),
        figure(NAMES[1], "fidelity.cosine", 0.99, "lang=en"),
        figure(NAMES[1], "fidelity.spearman", 0.1, "lang=en"),
        figure(other, "fidelity.cosine", 0.98, "lang=de"),
        figure(other, "fidelity.cosine", 0.90, "lang=en"),
    )
    whole = (figure(NAMES[0], "latency", 2.0, statistic="median"),)

    text = as_text([Report(measurements=(*whole, *likeness), differences=tokens)])

    assert "tokens" not in text
    assert row(text, "lang=de").split()[:2] == ["lang=de", "30"]
    assert "0.9500 [0.9400, 0.9600]" in row(text, "lang=de")
    assert "0.9000 [0.8900, 0.9100]" in row(text, "lang=en")
    assert "onnx-int8 is least like the baseline in lang=de: 0.9500 [0.9400, 0.9600] on 30 rows" in text
    assert "onnx-q4 is least like the baseline in lang=en: 0.9000" in text


def test_slices_with_nothing_but_tokens_have_no_table():
    shown = as_text([msgspec.structs.replace(report(), differences=(change(NAMES[1], "tokens", "lang=de", 0.0),))])

    assert "lang=de" not in shown


def test_slices_show_the_tasks_headline_whatever_stands_first():
    changes = tuple(
        change(NAMES[1], metric, place, value)
        for metric, moves in (("tokens", (0.0, 1.0)), ("nearest_accuracy", (-0.2, 0.1)))
        for place, value in zip(("lang=de", "lang=en"), moves, strict=True)
    )

    text = as_text([msgspec.structs.replace(report(), differences=changes)])

    assert "change of nearest_accuracy" in text
    assert "onnx-int8 changed most for the worse in lang=de: -0.200" in text


def test_of_a_metric_that_is_better_low_the_worst_slice_is_the_one_that_rose_most():
    changes = (
        change(NAMES[1], "contract.truncated", "lang=de", -0.3),
        change(NAMES[1], "contract.truncated", "lang=en", 0.2),
    )
    made = Report(
        measurements=(figure(NAMES[0], "contract.truncated", 0.1, task="text-generation"),), differences=changes
    )

    assert "onnx-int8 changed most for the worse in lang=en: +0.200" in as_text([made])


def test_where_no_slice_lost_none_is_called_the_worst():
    changes = tuple(change(NAMES[1], "nearest_accuracy", place, value) for place, value in (("a=1", 0.0), ("a=2", 0.1)))

    assert "for the worse" not in as_text([msgspec.structs.replace(report(), differences=changes)])
    alike = tuple(figure(NAMES[1], "fidelity.cosine", 1.0, place) for place in ("a=1", "a=2"))
    text = as_text([Report(measurements=alike)])
    assert "a=2" in text
    assert "least like" not in text


@pytest.mark.parametrize("metric", ["fidelity.agreement", "fidelity.cosine"])
def test_likeness_to_the_baseline_stays_on_a_narrow_screen_where_it_is_all_that_is_known(metric):
    base = report(names=NAMES)
    costs = tuple(one for one in base.measurements if one.metric != "nearest_accuracy")
    likeness = figure(NAMES[1], metric, 0.912)

    title = {"fidelity.agreement": "as baseline", "fidelity.cosine": "cosine to"}[metric]
    alone = as_text([Report(measurements=(*costs, likeness))], width=60)
    beside = as_text([Report(measurements=(*base.measurements, likeness), differences=base.differences)], width=60)
    assert title in alone.partition("(no room for")[0]
    assert title in beside.partition("(no room for")[2]


def test_many_variants_have_a_row_each_in_every_slice():
    names = tuple(f"minilm/onnx-variant{number}" for number in range(5))
    changes = tuple(
        change(name, "nearest_accuracy", place, -0.1 * number)
        for number, name in enumerate(names)
        for place in ("lang=de", "lang=en")
    )
    text = as_text([msgspec.structs.replace(report(), differences=changes)], width=110)

    lines = [line for line in text.splitlines() if line.startswith("lang=")]
    assert len(lines) == 10
    assert lines[1].split() == ["lang=de", "30", "onnx-variant1", "-0.100", "[-1.000,", "+1.000]"]
    assert max(map(len, lines)) <= 110
    assert text.count("changed most for the worse") == 4


def test_an_answer_that_is_not_of_the_schema_is_told_with_its_row():
    made = Example(variant=NAMES[1], kind="invalid", row=7, answer='{"zip":\n 1}')

    assert 'onnx-int8: row 7: the answer is not of the schema: {"zip": 1}' in as_text([report(examples=(made,))])
    empty = msgspec.structs.replace(made, answer=" ")
    assert as_text([report(examples=(empty,))]).endswith("onnx-int8: row 7: the answer is not of the schema")


def test_what_puts_a_figure_in_doubt_is_said_once_with_the_metrics_that_it_concerns():
    base = report()
    marked = tuple(
        msgspec.structs.replace(one, marks=("drifted by +12 %",)) if one.metric == "latency" else one
        for one in base.measurements
    )

    lines = as_text([msgspec.structs.replace(base, measurements=marked)]).splitlines()

    assert lines.count("in doubt: onnx-int8: drifted by +12 % (latency)") == 1


def test_an_early_look_tells_its_level_and_an_interval_with_room_says_so():
    early = verdict("pass", level=0.9945, method="paired bootstrap over rows, with room for rows too rare to be seen")

    said = as_text([report(verdicts=(early,))]).splitlines()[-1]

    assert "interval at 99.45% for an early look" in said
    assert said.endswith("interval with room for rows too rare to be seen")
