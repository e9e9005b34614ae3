"""What is told of a target that is not at hand: apart, never as measured, and without deciding what it cannot."""

import json
import platform
import sys
import sysconfig

import pytest

from edgeml.away import emulated_report, here_instead
from edgeml.bench import bench_away
from edgeml.conditions import Conditions
from edgeml.dataset import read_dataset
from edgeml.progress import silent
from edgeml.render.reports import reports as shown
from edgeml.store import Store, load_variant
from edgeml.targets import own_name, profile
from edgeml.targets.emulator import qemu_file, root_folder
from edgeml.targets.ways import away
from edgeml.types import Report
from edgeml.verdicts.limits import limit_of
from test_bench import PAIRS, two_variants
from test_emulator import put_wheels, write_program
from tiny.commands import inside
from tiny.gguf import llama_gguf
from tiny.variants import gguf_variant

pytestmark = pytest.mark.skipif(own_name() != "laptop", reason="these devices are away from an x86-64 machine alone")
emulates = pytest.mark.skipif(platform.system() != "Linux", reason="devices are emulated on Linux")


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))  # in which there is no emulator
    return Store(tmp_path / "artifacts")


@pytest.fixture
def data(tmp_path):
    return written(tmp_path)


def written(folder):
    path = folder / "pairs.tsv"
    header, *rows = PAIRS.splitlines(keepends=True)
    path.write_text(header + "".join(rows) * 4)
    return read_dataset(path, task="sentence-similarity", columns={})


def conditions(target="pi5", **fields):
    return Conditions(task="sentence-similarity", profile=profile(target), threads=1, repeats=12, **fields)


def limits(**asked):
    return tuple(limit_of(option.replace("_", "-"), text) for option, text in asked.items())


def reports_of(store, data, **fields) -> list[Report]:
    _, variant = two_variants(store)
    return bench_away([variant], data, conditions(**fields), store=store, baseline=None)


@pytest.fixture(scope="module")
def two_reports(tmp_path_factory):
    """What is measured here and what is estimated for a Pi 5, without an emulator."""
    folder = tmp_path_factory.mktemp("two")
    return reports_of(Store(folder / "artifacts"), written(folder), parity_rows=0)


def test_what_was_measured_here_and_what_is_estimated_there_stand_in_reports_of_their_own(two_reports):
    kinds = [{(one.how, one.target) for one in report.measurements} for report in two_reports]
    assert kinds == [{("measured", "laptop")}, {("estimated", "pi5")}]


def test_every_estimate_has_a_range_a_method_and_no_machine(two_reports):
    *_, estimated = two_reports

    assert {"latency", "memory_needed", "energy"} <= {one.metric for one in estimated.measurements}
    for one in estimated.measurements:
        assert one.low < one.high
        assert one.low <= one.value <= one.high
        assert one.environment is None
        assert one.provenance["method"]


def test_without_an_emulator_parity_is_absent_and_says_what_gets_one(store, data):
    _, emulated, estimated = reports_of(store, data)

    assert not emulated.measurements
    assert [(one.metric, one.target) for one in emulated.absent] == [("parity", "pi5")]
    assert emulated.absent[0].hint.startswith("edgeml download --emulator")
    assert estimated.measurements


def test_a_bound_on_a_drop_is_judged_by_what_was_measured_here(store, data):
    first, second = two_variants(store)
    asked = conditions(limits=limits(max_drop="90%", max_size="1GB"), parity_rows=0)

    here, estimated = bench_away([second], data, asked, store=store, baseline=first)

    assert {(one.target, one.metric) for one in here.verdicts} == {("laptop", "spearman"), ("laptop", "size")}
    assert not estimated.verdicts


@pytest.mark.parametrize("bound", [{"max_latency": "1000s"}, {"max_latency": "1us"}, {"max_memory": "900GB"}])
def test_an_estimate_decides_no_bound_on_a_cost_however_far_from_it(store, data, bound):
    here, estimated = reports_of(store, data, limits=limits(**bound), parity_rows=0)

    assert not here.verdicts
    (verdict,) = estimated.verdicts
    assert (verdict.verdict, verdict.target, verdict.value) == ("cannot tell", "pi5", None)
    assert "not measured" in verdict.reason


def test_a_bound_of_the_baselines_latency_is_not_judged_by_an_estimate_either(store, data):
    first, second = two_variants(store)
    asked = conditions(limits=limits(max_latency="120%"), parity_rows=0)

    *_, estimated = bench_away([second], data, asked, store=store, baseline=first)

    assert {one.verdict for one in estimated.verdicts} == {"cannot tell"}
    assert {one.variant for one in estimated.verdicts} == {second.name}


def test_this_machine_is_measured_under_its_own_name():
    assert here_instead(conditions()).profile.name == own_name()


def test_an_estimate_names_the_chip_and_memory_that_it_is_of_wherever_it_is_shown(store, data):
    *_, estimated = reports_of(store, data, target="apple-silicon:m2:16gb", parity_rows=0)

    assert {one.target for one in estimated.measurements} == {"apple-silicon"}
    assert {one.provenance["asked"] for one in estimated.measurements} == {"apple-silicon:m2:16gb"}
    lines = shown([estimated], 100)[0].splitlines()
    assert any("estimated for apple-silicon:m2:16gb" in line for line in lines)
    assert any(line.startswith("latency, energy: not estimated, nothing was published") for line in lines)


def test_bounds_that_are_stated_claim_no_share_of_devices(two_reports):
    *_, estimated = two_reports

    levels = {one.metric: one.level for one in estimated.measurements}
    assert levels == {"latency": 0.8, "energy": None, "memory_needed": None}
    head = shown([estimated], 100)[0].partition("──")[0]
    assert head.count("[80%]") == 1
    assert head.count("[least, most]") == 2


def test_memory_is_told_in_one_unit_beside_what_the_system_leaves(store, data):
    *_, estimated = reports_of(store, data, target="pi5:1gb", parity_rows=0)

    (line,) = [line for line in shown([estimated], 100)[0].splitlines() if " MiB; the system leaves " in line]
    assert line.endswith("the system leaves 0 to 717 of 1 GB")


def test_a_language_model_is_judged_by_the_memory_of_the_device(store, tmp_path):
    folder = gguf_variant(store.root / "tiny" / "gguf-q8_0", llama_gguf(tmp_path / "tiny.gguf"))
    variant = load_variant(folder)
    text = tmp_path / "text.jsonl"
    text.write_text('{"text": "hello"}\n' * 2)
    asked = Conditions(task="text-generation", profile=profile("pi-zero2w"), threads=1, repeats=2, parity_rows=0)

    *_, estimated = bench_away([variant], read_dataset(text, task="text-generation", columns={}), asked, store=store)

    (fit,) = estimated.fits
    assert fit.word in ("fits", "tight")
    assert fit.needed_bytes <= fit.needed_high_bytes


def test_the_command_says_first_that_nothing_was_measured_there_and_shows_each_kind_apart(store, data):
    two_variants(store)

    done = inside("bench", "tiny/onnx-int8", "--target", "pi", "--repeats", 12, "--threads", 1)

    assert done.code == 0
    assert done.err.splitlines()[0].startswith("nothing below was measured on a Raspberry Pi 5")
    heads = [line for line in done.out.splitlines() if " on laptop" in line or " for pi5" in line]
    assert [head.split()[0] for head in heads] == ["measured", "estimated"]
    assert "parity: not measured" in done.out


def test_each_json_line_says_how_it_was_had_and_of_what(store, data):
    two_variants(store)

    done = inside("bench", "tiny/onnx-int8", "--target", "pi5", "--repeats", 12, "--json", "--max-latency", "5ms")

    lines = [json.loads(line) for line in done.out.splitlines()]
    assert done.code == 5
    assert {(one["how"], one["target"]) for one in lines if one["schema"] == "edgeml.measurement/1"} == {
        ("measured", "laptop"),
        ("estimated", "pi5"),
    }
    assert {"edgeml.fit/1", "edgeml.absent/1", "edgeml.verdict/1"} <= {one["schema"] for one in lines}


def test_the_page_keeps_them_apart_too(store, data):
    two_variants(store)
    inside("bench", "tiny/onnx-int8", "--target", "pi5", "--repeats", 12, "--threads", 1)

    done = inside("report", "tiny", "--markdown")

    page = (store.root / "tiny" / "report.md").read_text()
    assert done.code == 0
    assert "on laptop" in page
    assert "on pi5, estimated" in page


def test_the_page_names_the_chip_that_an_estimate_is_of(store, data):
    two_variants(store)
    inside("bench", "tiny/onnx-int8", "--target", "apple-silicon:m2", "--repeats", 12, "--threads", 1)

    inside("report", "tiny", "--markdown")

    page = (store.root / "tiny" / "report.md").read_text()
    assert "on apple-silicon:m2, estimated" in page
    assert "the system leaves 2048 to 5120 of 8 GB" in page


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--clean"], "--clean says nothing without a device"),
        (["--accept-new"], "--accept-new says nothing without a device"),
        (["--host", "pi@[bad"], ""),
    ],
)
def test_options_of_a_device_need_one(store, data, arguments, error):
    two_variants(store)

    said, hint = inside("bench", "tiny/onnx-int8", *arguments).refusal

    assert said.startswith(error)
    assert hint


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "--count-instructions counts in an emulator, and this device is measured"),
        (["--target", "pi5", "--parity-rows", 0], "--parity-rows 0 leaves the emulator out"),
    ],
)
def test_instructions_are_not_silently_left_uncounted(store, arguments, error):
    two_variants(store)

    said, hint = inside("bench", "tiny/onnx-int8", "--count-instructions", *arguments).refusal

    assert said.startswith(error)
    assert hint


def test_without_rows_to_emulate_nobody_is_told_that_they_are():
    assert away(profile("pi5"), parity_rows=0)[2] == "not emulated: no rows were asked for"


def test_what_nothing_here_emulates_is_told_with_what_measures_it(store, data):
    _, emulated, _ = reports_of(store, data, target="apple-silicon")

    (absent,) = emulated.absent
    assert absent.reason == "Apple-silicon Mac: nothing here runs its programs"
    assert absent.hint == "measure on the device: edgeml bench --host user@address"


@pytest.fixture
def stand_in(store):
    """A program in the emulator's place that runs the job with this machine's own Python and libraries."""
    start = f'shift 5; PYTHONPATH="{sysconfig.get_paths()["purelib"]}:$PYTHONPATH" exec "{sys.executable}" "$@"'
    write_program(qemu_file(), start)
    write_program(root_folder() / "usr/bin/python3.11", "")
    (root_folder() / "lib").mkdir()
    put_wheels("onnx")


@emulates
def test_each_emulation_is_kept_in_a_file_of_its_own(store, data, stand_in):
    _, variant = two_variants(store)
    found = [
        emulated_report([variant], data, conditions(parity_rows=rows), store=store, progress=silent) for rows in (2, 3)
    ]

    runs = [{one.provenance["run"] for one in report.measurements} for report in found]
    assert [len(names) for names in runs] == [1, 1]
    assert runs[0].isdisjoint(runs[1])
    for report, (name,) in zip(found, runs, strict=True):
        (cosine,) = [one for one in store.run("tiny", name).outcome.samples if one.metric == "parity.cosine"]
        assert len(cosine.values) == report.measurements[0].n


@emulates
def test_what_ran_in_an_emulator_has_answers_alone_however_it_was_found_out(store, data, stand_in):
    _, variant = two_variants(store)

    emulated = emulated_report([variant], data, conditions(parity_rows=2), store=store, progress=silent)

    assert {one.how for one in emulated.measurements} == {"emulated"}
    assert {one.metric.partition(".")[0] for one in emulated.measurements} == {"parity"}
    assert {one.environment.emulator for one in emulated.measurements} == {"qemu-aarch64"}
    assert [one.verdict for one in emulated.verdicts] == ["pass"]


@emulates
@pytest.mark.real
def test_an_emulated_device_answers_as_this_machine_does_and_has_no_times(emulator_cache, tmp_path, data):
    store = Store(tmp_path / "artifacts")
    _, variant = two_variants(store)

    _, emulated, _ = bench_away([variant], data, conditions(), store=store)

    assert {one.how for one in emulated.measurements} == {"emulated"}
    assert {one.metric for one in emulated.measurements} == {"parity.cosine", "parity.difference", "parity.bit_equal"}
    assert {one.environment.machine for one in emulated.measurements} == {"aarch64"}
    assert [one.verdict for one in emulated.verdicts] == ["pass"]
    assert {one.metric for one in emulated.absent} == {"latency", "memory", "energy"}
    (kept,) = [run for run in store.measurements_folder("tiny").glob("*.pi5.*.json") if "report" not in run.name]
    assert "latency" not in {one["metric"] for one in json.loads(kept.read_text())["outcome"]["samples"]}
