import subprocess
import sys
import time

import msgspec
import pytest

from edgeml.targets import local
from edgeml_runtime import worker
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.meters import About, Reading, energy
from edgeml_runtime.records import decode, encode
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import EnergyPlan, Generate, Job, Outcome, Refusal, State
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.variants import gguf_variant, onnx_variant

ROWS = tuple({"text": text, "label": "x"} for text in ("one", "two", "three"))


def job(folder, **fields):
    defaults = {"task": "feature-extraction", "target": "laptop", "threads": 1, "warmups": 1, "repeats": 5, "seed": 1}
    return Job(variant=str(folder), rows=ROWS, **{**defaults, **fields})


def work(one, **options):
    command = [sys.executable, "-m", "edgeml_runtime.worker"]
    return subprocess.run(command, input=encode(one), capture_output=True, text=True, check=False, **options)


def silent(step, done, total):
    pass


def test_the_worker_answers_one_line_on_stdout(tmp_path):
    done = work(job(onnx_variant(tmp_path / "variant").path))

    outcome = decode(done.stdout, Outcome, where="stdout")
    metrics = {sample.metric: sample for sample in outcome.samples}
    assert (done.returncode, done.stdout.count("\n")) == (0, 1)
    assert {"latency_load", "latency_first", "latency", "throughput", "memory_peak", "truncated"} <= set(metrics)
    assert len(metrics["latency"].values) == 5
    assert len(outcome.answers) == 3
    assert outcome.environment.threads == 1
    assert outcome.environment.libraries["onnxruntime"]


def test_energy_is_a_number_with_a_sensor_and_a_reason_without(tmp_path):
    quick = EnergyPlan(settle_s=0.0, idle_s=0.0, windows=1, window_s=0.0)
    outcome = local.run(job(onnx_variant(tmp_path / "variant").path, energy=quick), progress=silent)
    measured = [sample for sample in outcome.samples if sample.metric == "energy"]
    absent = [one for one in outcome.absent if one.metric == "energy"]

    assert len(measured) + len(absent) == 1
    assert all(sample.values[0] > 0 for sample in measured)
    assert all(one.reason for one in absent)


class Steady:
    """A meter of a machine that uses four watts whatever it does."""

    def about(self):
        return About(scope="the machine", kind="counter", excludes="nothing")

    def start(self):
        self.began = time.perf_counter()

    def enough(self):
        return True

    def stop(self):
        return Reading(joules=4 * (time.perf_counter() - self.began), readings=2)

    def warnings(self):
        return ("energy: the meter has a warning",)


def test_a_meters_figures_scope_and_warnings_are_in_the_outcome(tmp_path, monkeypatch):
    monkeypatch.setattr(energy, "choose", lambda plan: ("steady", Steady()))
    plan = EnergyPlan(settle_s=0.0, idle_s=0.01, windows=2, window_s=0.02)
    found = worker.run(job(onnx_variant(tmp_path / "variant").path, energy=plan))
    samples = {sample.metric: sample for sample in found.samples}

    assert len(samples["energy"].values) == 2
    assert all(value > 0 for value in samples["energy"].values)
    assert samples["power_idle"].values == pytest.approx((4.0, 4.0), rel=0.3)
    assert (found.energy.meter, found.energy.scope) == ("steady", "the machine")
    assert "energy: the meter has a warning" in found.warnings
    assert not [one for one in found.absent if one.metric == "energy"]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [("feature-extraction", ["steady"]), ("text-generation", ["steady", "prefill", "decode"])],
)
def test_the_windows_for_an_outside_meter_hold_whole_inferences_and_their_times(tmp_path, name, kinds):
    encoder = name == "feature-extraction"
    folder = onnx_variant(tmp_path / "variant").path if encoder else decoder_variant(tmp_path / "decoder")
    plan = EnergyPlan(meter="external", settle_s=0.0, idle_s=0.0, windows=2, window_s=0.01)
    found = worker.run(job(folder, task=name, energy=plan, generate=Generate(max_new_tokens=4)))

    assert [window.kind for window in found.energy.windows] == ["idle", *kinds * 2, "idle"]
    assert all(window.units > 0 and window.duration_s > 0 for window in found.energy.windows if window.kind != "idle")
    assert found.energy.unit_of_work == ("inference" if encoder else "answer")


def test_the_machine_is_described_before_and_after_and_what_it_did_is_marked_on_times_alone(tmp_path, monkeypatch):
    states = iter([State(swapped_pages=0), State(swapped_pages=9000), State(swapped_pages=9000)])
    monkeypatch.setattr(worker, "read_state", lambda: next(states))
    found = worker.run(job(onnx_variant(tmp_path / "variant").path))
    marked = {sample.metric for sample in found.samples if sample.marks}

    assert (found.before.swapped_pages, found.after.swapped_pages) == (0, 9000)
    assert marked == {"latency"}  # throughput was timed after that, memory is no time


def test_a_refusal_crosses_the_process_border(tmp_path):
    variant = onnx_variant(tmp_path / "variant")
    (variant.path / "model.onnx").write_bytes(b"not a model")

    done = work(job(variant.path))
    refusal = decode(done.stdout, Refusal, where="stdout")

    assert done.returncode == 3
    assert refusal.message.startswith("cannot load model.onnx")
    with pytest.raises(EdgemlError, match=r"cannot load model\.onnx"):
        local.run(job(variant.path), progress=silent)


def test_a_worker_that_is_killed_is_one_sentence_with_its_signal(tmp_path, monkeypatch):
    dying = tmp_path / "edgeml_runtime"
    dying.mkdir()
    (dying / "__init__.py").write_text("")
    (dying / "worker.py").write_text("import os, sys\nprint('last words', file=sys.stderr, flush=True)\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # found before the real one: a worker that dies as llama.cpp does

    with pytest.raises(EdgemlError, match="the worker died of SIGABRT") as caught:
        local.run(job("anything"), progress=silent)

    assert "last words" in caught.value.hint


def test_a_bug_in_the_worker_keeps_its_traceback(tmp_path):
    variant = onnx_variant(tmp_path / "variant")
    broken = msgspec.structs.replace(job(variant.path), rows=({"other": "no text, which bench would have refused"},))

    with pytest.raises(RuntimeError, match="Traceback"):
        local.run(broken, progress=silent)


def test_progress_is_told_between_measurements(tmp_path):
    seen = []

    local.run(
        job(onnx_variant(tmp_path / "variant").path),
        progress=lambda step, done, total: seen.append((step, done, total)),
    )

    silently = "silent while the clock runs"
    assert [step for step, _, _ in seen[:2]] == [f"load, {silently}", f"warm-up and steady runs, {silently}"]
    assert ("answers", 0, 3) in seen


def test_a_worker_that_dies_before_it_reads_the_job_is_told_by_its_end(tmp_path, monkeypatch):
    dying = tmp_path / "edgeml_runtime"
    dying.mkdir()
    (dying / "__init__.py").write_text("import os\nos.close(0)\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    long = msgspec.structs.replace(job("anything"), rows=({"text": "x" * 1_000_000},))

    with pytest.raises(EdgemlError, match="the worker died of SIGABRT"):
        local.run(long, progress=silent)


@pytest.mark.parametrize(("name", "readings"), [("text-generation", 5), ("perplexity", 4)])
def test_memory_is_read_again_after_answers_that_are_the_plain_use(tmp_path, monkeypatch, name, readings):
    folder = decoder_variant(tmp_path / "decoder") if name == "text-generation" else llama(tmp_path)
    task, done = task_of(name), []
    for step in ("first", "cost", "answers"):
        real = getattr(task, step)
        monkeypatch.setattr(task, step, lambda *given, step=step, real=real: (real(*given), done.append(step))[0])
    monkeypatch.setattr(worker.Memory, "read", lambda self: done.append("read"))

    options = {"text": "the pump stopped " * 9, "context_tokens": 16, "generate": Generate(max_new_tokens=4)}
    worker.run(job(folder, task=name, warmups=0, **options))

    assert done.count("read") == readings
    assert (done[-1] == "read") == (name == "text-generation")


def test_generated_answers_stay_with_their_rows_though_these_come_in_a_drawn_order(tmp_path):
    folder, options = decoder_variant(tmp_path / "decoder"), Generate(max_new_tokens=4)
    asked = job(folder, task="text-generation", warmups=0, repeats=0, generate=options, seed=3)
    found = worker.run(asked)

    session, task = open_session(folder, threads=1), task_of("text-generation")
    assert [one["text"] for one in found.answers] == [task.predict(session, row, options) for row in ROWS]
    assert len({one["text"] for one in found.answers}) > 1  # else any order would do


def llama(folder):
    return gguf_variant(folder / "gguf", llama_gguf(folder / "model.gguf", width=64))
