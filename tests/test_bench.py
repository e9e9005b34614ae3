import json

import msgspec
import pytest

from edgeml.bench import Bounds, Result, bench, forecast
from edgeml.conditions import Conditions, done
from edgeml.dataset import choose_task, dataset_for, read_dataset, read_schema
from edgeml.errors import EdgemlError
from edgeml.measurements import differences
from edgeml.sequential import drawn
from edgeml.store import Store
from edgeml.targets import own_name, profile
from edgeml.threads import candidates
from edgeml.types import Dataset, Run
from edgeml.verdicts.limits import limit_of
from edgeml_runtime.machine import cores
from edgeml_runtime.records import read_record
from edgeml_runtime.rows import parse_columns
from edgeml_runtime.types import EnergyPlan, Generate, Outcome
from test_comparable import HERE
from test_comparable import run as run_of
from tiny.variants import onnx_variant

PAIRS = "sentence1\tsentence2\tscore\nrent march\trent april\t4\nfuel\trent\t1\nfuel\tfuel\t5\npost\tpost office\t3\n"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.tsv"
    header, *rows = PAIRS.splitlines(keepends=True)
    path.write_text(header + "".join(rows) * 4)
    return path


def two_variants(store):
    first = onnx_variant(store.root / "tiny" / "onnx-fp32", name="tiny/onnx-fp32")
    second = onnx_variant(store.root / "tiny" / "onnx-int8", name="tiny/onnx-int8", seed=1)
    return first, second


def conditions(task="sentence-similarity", **fields):
    return Conditions(task=task, profile=profile(None), threads=1, warmups=1, repeats=12, **fields)


def test_a_report_holds_accuracy_cost_and_the_paired_difference(store, pairs):
    first, second = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})

    report = bench([first, second], dataset, conditions(), store=store, baseline=first)

    keys = {(one.variant, one.metric, one.statistic) for one in report.measurements}
    assert {(name, "spearman", "spearman") for name in ("tiny/onnx-fp32", "tiny/onnx-int8")} <= keys
    assert {("tiny/onnx-int8", "latency", statistic) for statistic in ("median", "p95", "p99")} <= keys
    assert report.measurements[0].variant == "tiny/onnx-fp32"
    assert {(one.variant, one.baseline) for one in report.differences} == {("tiny/onnx-int8", "tiny/onnx-fp32")}
    latency = next(one for one in report.measurements if (one.metric, one.statistic) == ("latency", "median"))
    assert latency.low <= latency.value <= latency.high
    assert (latency.n, latency.level, latency.how, latency.unit) == (12, 0.95, "measured", "ms")


def test_raw_values_warmups_and_answers_are_kept_in_one_file_a_run(store, pairs):
    first, _ = two_variants(store)
    bench([first], read_dataset(pairs, task="sentence-similarity", columns={}), conditions(), store=store)

    [path] = (store.root / "tiny" / "measurements").glob("onnx-fp32.sentence-similarity.*.json")
    run = read_record(path, Run)
    latency = next(sample for sample in run.outcome.samples if sample.metric == "latency")
    assert (len(latency.values), len(latency.warmups)) == (12, 1)
    assert len(run.outcome.answers) == len(run.gold) == 16
    assert (run.how, run.target, run.seed) == ("measured", own_name(), 20)


def test_a_variant_compared_with_itself_differs_by_nothing(store, pairs):
    first, _ = two_variants(store)
    bench([first], read_dataset(pairs, task="sentence-similarity", columns={}), conditions(), store=store)
    [path] = (store.root / "tiny" / "measurements").glob("onnx-*.json")
    run = read_record(path, Run)

    assert {one.difference for one in differences(run, msgspec.structs.replace(run, variant="other"))} == {0.0}


def test_a_flipped_byte_in_the_model_is_noticed_before_anything_is_measured(store, pairs):
    first, _ = two_variants(store)
    path = first.path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})

    with pytest.raises(EdgemlError, match=r"model\.onnx is not the file that was recorded"):
        bench([first], dataset, conditions(), store=store)
    assert not (store.root / "tiny" / "measurements").exists()


def test_a_target_that_is_not_here_is_refused_and_says_what_to_do(store, pairs):
    first, _ = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})
    away = "pi4" if own_name() != "pi4" else "pi5"

    with pytest.raises(EdgemlError, match="is no Raspberry Pi") as caught:
        bench([first], dataset, Conditions(task="sentence-similarity", profile=profile(away)), store=store)
    assert "--host user@address" in caught.value.hint


def test_without_data_costs_are_measured_and_accuracy_is_absent_with_a_reason(store):
    first, _ = two_variants(store)
    dataset = dataset_for("feature-extraction", None, {}, limit=None)

    report = bench([first], dataset, conditions("feature-extraction"), store=store)

    assert "nearest_accuracy" not in {one.metric for one in report.measurements}
    absent = next(one for one in report.absent if one.metric == "nearest_accuracy")
    assert (absent.variant, absent.reason) == ("tiny/onnx-fp32", "the data has no column 'label'")


def test_the_task_follows_from_the_columns_of_the_data(tmp_path, pairs):
    lines = tmp_path / "lines.csv"
    lines.write_text("text,label\na,x\n")

    assert choose_task("sentence-similarity", pairs, {}) == "sentence-similarity"
    assert choose_task("sentence-similarity", lines, {}) == "feature-extraction"
    assert choose_task("sentence-similarity", None, {}) == "feature-extraction"
    assert choose_task("text-generation", lines, {}) == "text-generation"


def test_columns_are_mapped_and_limited(tmp_path):
    path = tmp_path / "ours.csv"
    path.write_text("line,category\nfuel,car\nrent,house\nx,y\n")

    dataset = read_dataset(
        path, task="feature-extraction", columns=parse_columns(("line=text", "category=label")), limit=2
    )

    assert dataset.rows == ({"text": "fuel", "label": "car"}, {"text": "rent", "label": "house"})


@pytest.mark.parametrize("text", ["label", "=label", "ours="])
def test_a_column_mapping_that_does_not_parse_is_refused(text):
    with pytest.raises(EdgemlError, match="cannot read --columns"):
        parse_columns((text,))


@pytest.mark.parametrize(
    ("content", "complaint"), [("", "is empty"), ("  \n", "is empty"), (b"\xff\xfe\x00", "is not UTF-8")]
)
def test_a_text_that_cannot_be_used_is_refused(tmp_path, content, complaint):
    path = tmp_path / "text.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())

    with pytest.raises(EdgemlError, match=complaint):
        read_dataset(path, task="perplexity", columns={})


def test_a_missing_file_and_a_missing_column_are_refused(tmp_path, pairs):
    with pytest.raises(EdgemlError, match="nowhere"):
        read_dataset(tmp_path / "nowhere.csv", task="feature-extraction", columns={})
    with pytest.raises(EdgemlError, match="'text'"):
        read_dataset(pairs, task="feature-extraction", columns={})


def test_a_schema_is_a_json_object(tmp_path):
    path = tmp_path / "schema.json"
    path.write_text(json.dumps({"type": "object"}))
    assert read_schema(path) == {"type": "object"}
    path.write_text("[]")
    with pytest.raises(EdgemlError, match="no JSON Schema"):
        read_schema(path)
    path.write_text("{")
    with pytest.raises(EdgemlError, match="is not JSON"):
        read_schema(path)


def test_two_folders_of_one_name_are_refused_rather_than_one_left_out(store, pairs, tmp_path):
    first, _ = two_variants(store)
    other = onnx_variant(tmp_path / "copy", name="tiny/onnx-fp32", seed=3)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})

    with pytest.raises(EdgemlError, match="two folders hold a variant named tiny/onnx-fp32"):
        bench([other], dataset, conditions(), store=store, baseline=first)


def test_data_that_cannot_be_scored_is_refused_before_anything_is_measured(store, tmp_path):
    first, _ = two_variants(store)
    path = tmp_path / "pairs.csv"
    path.write_text("sentence1,sentence2,score\na,b,1\nc,d,high\n")

    with pytest.raises(EdgemlError, match="row 2"):
        bench([first], read_dataset(path, task="sentence-similarity", columns={}), conditions(), store=store)
    assert not (store.root / "tiny" / "measurements").exists()


def test_a_run_keeps_what_was_asked(store):
    first, _ = two_variants(store)
    asked = conditions("feature-extraction", limit=3, context_tokens=64)
    bench([first], dataset_for("feature-extraction", None, {}, limit=3), asked, store=store)

    [path] = (store.root / "tiny" / "measurements").glob("onnx-*.json")
    run = read_record(path, Run)
    assert (run.limit, run.context_tokens, run.generate) == (3, 64, asked.generate)


def test_a_single_line_is_refused_before_anything_is_measured(tmp_path):
    path = tmp_path / "lines.csv"
    path.write_text("text,label\nrent,home\nfuel,car\n")

    for data in (path, None):
        with pytest.raises(EdgemlError, match="single text") as caught:
            dataset_for("feature-extraction", data, {}, limit=1)
        assert caught.value.hint == "give at least two rows"
    assert len(dataset_for("feature-extraction", path, {}, limit=2).rows) == 2


def bounded(*texts, option="max-drop", **fields):
    return conditions(limits=tuple(limit_of(option, text) for text in texts), **fields)


def measured(store, path, terms, **fields):
    first, second = two_variants(store)
    dataset = read_dataset(path, task="sentence-similarity", columns={})
    return bench([first, second], dataset, terms, store=store, baseline=first, **fields)


def test_a_bound_on_a_drop_is_judged_of_every_variant_but_the_baseline(store, pairs):
    report = measured(store, pairs, bounded("1%", "pearson=0.9"))

    assert [(one.variant, one.metric) for one in report.verdicts] == [
        ("tiny/onnx-int8", "spearman"),
        ("tiny/onnx-int8", "pearson"),
    ]
    assert report.verdicts[0].verdict in ("fail", "cannot tell")  # another model altogether
    assert store.reports("tiny") == [report]


def test_a_bound_on_a_cost_is_measured_by_five_processes_and_kept_with_the_run(store, pairs):
    report = measured(store, pairs, bounded("1s", option="max-latency"))

    [verdict] = report.verdicts
    assert (verdict.metric, verdict.verdict, verdict.n) == ("latency", "pass", 5)
    latency = next(sample for sample in report.measurements if sample.metric == "latency")
    run = store.run("tiny", latency.provenance["run"])
    assert (latency.n, latency.statistic) == (5, "median")
    assert latency.low < latency.value < latency.high
    assert len(run.processes) == 4
    assert all(not outcome.answers for outcome in run.processes)


def test_a_sequential_bench_stops_once_every_verdict_is_clear(store, tmp_path):
    path = tmp_path / "many.tsv"
    header, *rows = PAIRS.splitlines(keepends=True)
    path.write_text(header + "".join(rows) * 100)
    first = onnx_variant(store.root / "tiny" / "onnx-fp32", name="tiny/onnx-fp32")
    same = onnx_variant(store.root / "tiny" / "onnx-int8", name="tiny/onnx-int8")
    dataset = read_dataset(path, task="sentence-similarity", columns={})

    report = bench([same], dataset, bounded("50%", sequential=True), store=store, baseline=first)

    [verdict] = report.verdicts
    assert (verdict.verdict, verdict.n) == ("pass", 100)
    assert verdict.level > 0.95  # an early look has to be surer
    assert "the verdicts were clear after 100 of 400 rows, drawn by seed; the others were not run" in report.warnings
    spearman = next(one for one in report.measurements if one.metric == "spearman")
    assert spearman.n == 100


def test_a_sequential_bench_without_a_bound_on_a_drop_is_refused(store, pairs):
    with pytest.raises(EdgemlError, match="when to stop"):
        measured(store, pairs, conditions(sequential=True))
    first, _ = two_variants(Store(store.root / "more"))
    terms = Conditions(task="feature-extraction", profile=profile(None), sequential=True)
    with pytest.raises(EdgemlError, match="cannot stop early"):
        bench([first], dataset_for("feature-extraction", None, {}, limit=None), terms, store=store)


def test_an_earlier_run_is_a_baseline_where_it_was_asked_the_same(store, pairs):
    first, second = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})
    bench([first], dataset, conditions(), store=store)
    [path] = (store.root / "tiny" / "measurements").glob("onnx-fp32*.json")
    earlier = store.baseline(str(path))

    report = bench([second], dataset, bounded("1%"), store=store, baseline=earlier)

    assert {one.variant for one in report.measurements} == {"tiny/onnx-int8"}
    assert report.verdicts[0].baseline == "tiny/onnx-fp32"
    elsewhere = msgspec.structs.replace(earlier.outcome.environment, cpu="another")
    moved = msgspec.structs.replace(earlier, outcome=msgspec.structs.replace(earlier.outcome, environment=elsewhere))
    with pytest.raises(EdgemlError, match=r"another machine: cpu .*, not another"):
        bench([second], dataset, bounded("1%"), store=store, baseline=moved)


def test_a_column_that_no_row_has_is_no_slice(store, pairs):
    with pytest.raises(EdgemlError, match="no column 'region' to slice by"):
        measured(store, pairs, conditions(slices=("region",)))


def test_threads_are_chosen_by_trying_and_the_run_tells_what_was_tried(store, pairs):
    first, _ = two_variants(store)
    terms = msgspec.structs.replace(conditions(), threads="auto")

    bench([first], read_dataset(pairs, task="sentence-similarity", columns={}), terms, store=store)

    [path] = (store.root / "tiny" / "measurements").glob("onnx-fp32*.json")
    run = read_record(path, Run)
    assert run.outcome.environment.threads == run.sweep.threads
    assert set(run.sweep.tried["latency"]) >= {"1"}


def test_what_so_many_rows_can_show_is_told_before(pairs):
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})

    [sentence] = forecast(dataset, bounded("1%"))

    assert sentence.startswith("16 rows")
    assert forecast(dataset, conditions()) == []


def test_a_schema_that_is_none_is_refused_before_anything_is_measured(store):
    first, _ = two_variants(store)
    dataset = dataset_for("text-generation", None, {}, limit=None)
    terms = conditions("text-generation", generate=Generate(schema={"type": "no such type"}))

    with pytest.raises(EdgemlError, match="schema"):
        bench([first], dataset, terms, store=store)
    assert not (store.root / "tiny" / "measurements").exists()


@pytest.fixture
def jobs(monkeypatch):
    """Every job that is done, in order."""
    asked = []

    def noted(conditions, job, progress):
        asked.append(job)
        return done(conditions, job, progress)

    monkeypatch.setattr("edgeml.conditions.done", noted)
    return asked


def many(tmp_path, rows, *, rare=0):
    """So many pairs, of which the first ones are in another language."""
    path = tmp_path / "many.tsv"
    lines = [line.rstrip("\n") for line in PAIRS.splitlines()[1:]] * (rows // 4)
    langs = ["fi"] * rare + ["en"] * (rows - rare)
    body = "".join(f"{line}\t{lang}\n" for line, lang in zip(lines, langs, strict=True))
    path.write_text(f"sentence1\tsentence2\tscore\tlang\n{body}")
    return read_dataset(path, task="sentence-similarity", columns={})


def equal_variants(store):
    names = ("onnx-fp32", "onnx-int8")
    return tuple(onnx_variant(store.root / "tiny" / name, name=f"tiny/{name}") for name in names)


def kept(store, scheme):
    [path] = (store.root / "tiny" / "measurements").glob(f"{scheme}.*.json")
    return read_record(path, Run)


def test_a_sequential_bench_passes_no_slice_before_it_has_rows_of_every_slice(store, tmp_path):
    first, same = equal_variants(store)
    dataset = many(tmp_path, 160, rare=10)
    seed = next(seed for seed in range(99) if "fi" not in {row["lang"] for row in drawn(dataset, seed).rows[:40]})
    fields = {"option": "max-drop-worst-slice", "slices": ("lang",), "sequential": True, "seed": seed, "checks": ()}

    [verdict] = bench([same], dataset, bounded("fidelity.cosine=0.5", **fields), store=store, baseline=first).verdicts

    assert (verdict.verdict, verdict.slice, verdict.n) == ("pass", "lang=fi", 10)
    assert len(kept(store, "onnx-int8").outcome.answers) == 160


def test_a_mean_over_labels_does_not_pass_while_a_label_lacks_rows(store):
    variant, _ = two_variants(store)
    labels = ("usual",) * 100 + ("rare",) * 10
    terms = conditions("text-classification", limits=(limit_of("max-drop", "macro_f1=0.9"),))
    rows = tuple({"text": "x", "label": label} for label in labels)
    bounds = Bounds(terms, Dataset(name="x.csv", sha256="0" * 64, rows=rows))

    def result(count):
        answers = tuple({"label": label, "score": 1.0} for label in labels[:count])
        outcome = Outcome(environment=HERE, samples=(), answers=answers)
        found = run_of(task="text-classification", outcome=outcome, gold=labels[:count])
        return Result(variant, found, msgspec.structs.replace(found, variant="tiny/other"))

    assert not bounds.all_clear([result(109)], 0.95)
    assert bounds.verdicts(result(109))[0].verdict == "pass"  # of the rows so far, so it may not stand
    assert bounds.all_clear([result(110)], 0.95)


def test_a_later_part_of_the_data_gives_answers_alone(store, tmp_path, jobs):
    first, second = equal_variants(store)
    terms = bounded("fidelity.cosine=0.0001", sequential=True, checks=("sensitivity",), processes=2)
    terms = msgspec.structs.replace(terms, threads="auto")
    dataset = many(tmp_path, 20)

    report = bench([second], dataset, terms, store=store, baseline=first)

    swept, measured = [job for job in jobs if not job.answers], [job for job in jobs if job.answers]
    again = swept[-2:]
    assert [len(job.rows) for job in measured] == [10] * 4
    assert [bool(job.checks) for job in measured] == [True, True, False, False]
    assert {job.threads for job in measured[::2]} == {kept(store, "onnx-fp32").sweep.threads}
    assert len(swept) - len(again) == 2 * len(candidates(cores()))
    assert all(job.rows == measured[0].rows for job in again)  # its cost stands beside that of the first part
    samples = {sample.metric: sample for sample in kept(store, "onnx-int8").outcome.samples}
    assert (samples["sensitivity.typos"].unit_of_sample, len(samples["sensitivity.typos"].values)) == (
        "sampled row",
        10,
    )
    assert "sensitivity.typos" in {one.metric for one in report.differences}


def test_a_bound_on_a_cost_does_not_tell_when_to_stop(store, pairs):
    with pytest.raises(EdgemlError, match="when to stop"):
        measured(store, pairs, bounded("latency=10%", sequential=True))


@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({"seed": 21}, "seed 21, not 20"),
        ({"batch_size": 4}, "batch_size 4, not 32"),
        ({"limit": 8}, "limit 8, not unknown"),
        ({"generate": Generate(max_new_tokens=5)}, "generate"),
        ({"threads": 7}, "threads 7, not 1"),
    ],
)
def test_an_earlier_run_that_was_asked_something_else_is_refused_before_anything_runs(
    store, pairs, jobs, fields, complaint
):
    first, second = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})
    bench([first], dataset, conditions(checks=()), store=store)
    jobs.clear()

    terms = msgspec.structs.replace(conditions(checks=()), **fields)
    with pytest.raises(EdgemlError, match=complaint):
        bench([second], dataset, terms, store=store, baseline=kept(store, "onnx-fp32"))
    assert not jobs


def test_a_run_that_stopped_early_is_refused_as_the_baseline_of_a_whole_one(store, tmp_path, jobs):
    first, same = equal_variants(store)
    dataset = many(tmp_path, 400)
    bench([same], dataset, bounded("50%", sequential=True, checks=()), store=store, baseline=first)
    jobs.clear()

    with pytest.raises(EdgemlError, match="answers 400, not 100; order that of the file, not drawn"):
        bench([same], dataset, conditions(checks=()), store=store, baseline=kept(store, "onnx-fp32"))
    assert not jobs


def test_the_size_of_an_earlier_run_is_one_to_compare_with(store, pairs):
    first, second = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})
    bench([first], dataset, conditions(), store=store)

    terms = bounded("200%", option="max-size")
    [verdict] = bench([second], dataset, terms, store=store, baseline=kept(store, "onnx-fp32")).verdicts

    assert kept(store, "onnx-fp32").size_bytes == first.manifest.size_bytes
    assert (verdict.verdict, verdict.bound) == ("pass", first.manifest.size_bytes)


def test_the_log_of_an_outside_meter_is_looked_at_before_anything_runs(store, pairs, tmp_path, jobs):
    first, _ = two_variants(store)
    dataset = read_dataset(pairs, task="sentence-similarity", columns={})
    log = tmp_path / "log.csv"
    terms = conditions(energy_log=log, energy=EnergyPlan(meter="external"))

    with pytest.raises(EdgemlError, match=r"cannot read .*log\.csv"):
        bench([first], dataset, terms, store=store)
    log.write_text("time;power\n")
    with pytest.raises(EdgemlError, match="no columns timestamp and watts"):
        bench([first], dataset, terms, store=store)
    assert not jobs
