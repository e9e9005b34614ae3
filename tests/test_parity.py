"""Parity: what two machines compute for the same rows, how far apart it is, and what of that is allowed."""

from __future__ import annotations

import math

import numpy as np
import pytest
from msgspec.structs import replace
from scipy.special import rel_entr, softmax

from edgeml import parity
from edgeml.cli import cli
from edgeml.conditions import Conditions
from edgeml.errors import EdgemlError
from edgeml.measurements import measurements
from edgeml.metrics import metric
from edgeml.parity import compare, parity_job, parity_rows, parity_verdicts
from edgeml.sequential import drawn
from edgeml.targets import profile
from edgeml.types import Dataset, Run
from edgeml_runtime import worker
from edgeml_runtime.records import decode, encode
from edgeml_runtime.tolerances import KL_DIVERGENCE, SAME_TOP, of_cosine
from edgeml_runtime.types import Array, EnergyPlan, Generate, Job, Outcome
from test_comparable import HERE, run
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.int8 import int8_variant
from tiny.labels import classifier_variant
from tiny.pictures import drawn as picture
from tiny.pictures import image_variant
from tiny.seq2seq import seq2seq_variant
from tiny.variants import gguf_variant, onnx_variant

THERE = replace(HERE, machine="aarch64", emulator="qemu-aarch64 7.2", threads=1)
FP32 = "onnx:fp32"


def outcome(*arrays, environment=HERE):
    made = [np.asarray(one, dtype="<f4") for one in arrays]
    return Outcome(
        environment=environment, samples=(), trace=tuple(Array(shape=one.shape, data=one.tobytes()) for one in made)
    )


def compared(here, there, task="feature-extraction", scheme=FP32):
    """The samples by metric, of tables of numbers here and there."""
    found = compare(outcome(*here), outcome(*there, environment=THERE), task=task, scheme=scheme)
    return {one.metric: one for one in found}


def judged(samples, task="feature-extraction", scheme=FP32):
    """The verdicts by metric."""
    kept = Outcome(environment=THERE, samples=tuple(samples.values()))
    found = parity_verdicts(run(THERE, task=task, how="emulated", target="pi5", outcome=kept), scheme=scheme)
    return {one.metric: one for one in found}


def words(samples, **more):
    return {name: one.verdict for name, one in judged(samples, **more).items()}


def turned(cosine):
    """A vector and another one at that cosine."""
    return [[1.0, 0.0]], [[cosine, math.sqrt(1 - cosine**2)]]


def made(folder, kind):
    """A variant of that kind and a job for it; the second of a kind has other weights."""
    text = "a text that is long enough for a few chunks of forty-eight tokens, one letter each, as it were, or so"
    rows = tuple({"text": f"line {number}", "tokens": ["line", str(number)]} for number in range(3))
    makers = {
        "feature-extraction": lambda seed: onnx_variant(folder, seed=seed).path,
        "text-classification": lambda seed: classifier_variant(folder, seed=seed).path,
        "token-classification": lambda seed: classifier_variant(folder, task="token-classification", seed=seed).path,
        "text-generation": lambda seed: gguf_variant(folder, llama_gguf(folder.with_suffix(".gguf"), seed=seed)),
        "perplexity": lambda seed: gguf_variant(folder, llama_gguf(folder.with_suffix(".gguf"), seed=seed)),
    }
    asked = {"text": text, "target": "pi5", "threads": 2, "warmups": 2, "repeats": 2, "seed": 1, "rows": rows}
    return makers[kind], lambda variant: parity_job(Job(variant=str(variant), task=kind, **asked))


@pytest.mark.parametrize(
    "task", ["feature-extraction", "text-classification", "token-classification", "text-generation", "perplexity"]
)
def test_a_variant_is_bit_equal_to_itself_and_another_one_is_not_whatever_its_kind(tmp_path, task):
    traces = []
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        make, job = made(tmp_path / name, task)
        traces.append(worker.run(job(make(seed))))
    one, again, other = traces

    same = {sample.metric: sample for sample in compare(one, again, task=task, scheme=FP32)}
    apart = {sample.metric: sample for sample in compare(one, other, task=task, scheme=FP32)}

    assert set(same["parity.bit_equal"].values) == {1.0}
    assert set(words(same, task=task).values()) == {"pass"}
    assert set(apart["parity.bit_equal"].values) == {0.0}
    assert "fail" in words(apart, task=task).values()


@pytest.mark.parametrize("make", [decoder_variant, seq2seq_variant])
def test_onnx_models_that_write_text_are_compared_by_position(tmp_path, make):
    folder = make(tmp_path / "variant")
    task = "text-generation" if make is decoder_variant else "text2text-generation"
    rows = tuple({"text": f"line number {number}"} for number in range(5))
    job = Job(variant=str(folder), task=task, target="pi5", threads=1, warmups=0, repeats=0, seed=1, rows=rows)
    found = worker.run(parity_job(job))
    samples = {one.metric: one for one in compare(found, found, task=task, scheme=FP32)}

    assert set(samples) == {"parity.kl_divergence", "parity.same_top", "parity.bit_equal"}
    assert {one.unit_of_sample for one in samples.values()} == {"position"}
    assert len(samples["parity.kl_divergence"].values) == sum(one.shape[0] for one in found.trace) >= 20


def test_pictures_and_int8_are_compared_as_well(tmp_path):
    file = tmp_path / "circle.png"
    picture("circle", 1).save(file)
    jobs = {
        "image-classification": (image_variant(tmp_path / "image"), {"file": str(file)}),
        "feature-extraction": (int8_variant(tmp_path / "int8").path, {"text": "a line"}),
    }
    for task, (folder, row) in jobs.items():
        job = Job(variant=str(folder), task=task, target="pi5", threads=1, warmups=0, repeats=0, seed=1, rows=(row,))
        found = worker.run(parity_job(job))
        samples = compare(found, found, task=task, scheme="onnx:int8")
        assert {one.metric: one.values for one in samples}["parity.bit_equal"] == (1.0,)


def test_one_bit_is_a_difference():
    one = np.array([[0.1, 0.2]], dtype=np.float32)
    other = np.nextafter(one, 1, dtype=np.float32)
    found = compared([one], [other])
    assert found["parity.bit_equal"].values == (0.0,)
    assert 0 < found["parity.difference"].values[0] < 2e-8
    assert found["parity.cosine"].values[0] == pytest.approx(1.0)


def test_the_divergence_is_that_of_scipy_in_nats_for_each_position():
    random = np.random.default_rng(3)
    here, there = (random.standard_normal((4, 50)).astype(np.float32) * 3 for _ in range(2))
    expected = rel_entr(softmax(here.astype(float), axis=1), softmax(there.astype(float), axis=1)).sum(axis=1)

    found = compared([here[:3], here[3:]], [there[:3], there[3:]], "text-generation")["parity.kl_divergence"]

    assert found.values == pytest.approx(expected, rel=1e-9)
    assert (found.unit, found.statistics) == ("nat", ("mean",))


def test_the_divergence_of_a_coin_by_hand():
    found = compared([[[0.0, 0.0]]], [[[math.log(3), 0.0]]], "text-generation")  # a half each against 3/4 and 1/4
    assert found["parity.kl_divergence"].values == pytest.approx([0.5 * math.log(4 / 3)], rel=1e-6)


def test_huge_and_shifted_logits_have_a_divergence_too():
    here = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    found = compared([here], [here + 64], "text-generation")
    assert found["parity.kl_divergence"].values == (0.0,)
    assert found["parity.same_top"].values == (1.0,)


def test_of_several_vectors_of_a_row_the_worst_counts():
    one, other = turned(0.8)
    found = compared([[*one, *one]], [[*one, *other]])
    assert found["parity.cosine"].values == pytest.approx([0.8])
    assert found["parity.difference"].values == pytest.approx([0.6])


def test_vectors_of_zeros_are_alike_and_unlike_any_other():
    zero, one = [[0.0, 0.0]], [[1.0, 0.0]]
    assert compared([zero], [zero])["parity.cosine"].values == (1.0,)
    assert compared([zero], [one])["parity.cosine"].values == (0.0,)


def test_of_words_the_share_with_the_same_label_counts_and_a_row_without_any_word_is_left_out():
    here = [[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [1.0, 0.0]], np.zeros((0, 2))]
    there = [[[2.0, 1.0], [0.0, 1.0], [3.0, 0.0], [0.0, 1.0]], np.zeros((0, 2))]
    found = compared(here, there, "token-classification")
    assert found["parity.same_top"].values == (0.75,)
    assert words(found, task="token-classification")["parity.same_top"] == "fail"


def test_of_words_all_logits_of_a_row_make_one_vector_since_those_of_one_may_be_near_nothing():
    here, there = [[[3.0, 0.0], [0.001, 0.0]]], [[[3.0, 0.0], [0.0, 0.001]]]
    assert compared(here, there, "token-classification")["parity.cosine"].values == pytest.approx([1.0], abs=1e-6)


def test_every_metric_has_its_unit_and_statistic_where_all_are_listed():
    for task in ("feature-extraction", "text-classification", "perplexity", "text2text-generation"):
        for one in compared([[[1.0, 0.0]]], [[[1.0, 0.0]]], task).values():
            assert (one.unit, one.statistics) == (metric(one.metric).unit, (metric(one.metric).statistics,))
            assert metric(one.metric).is_of(task)


def test_values_from_an_emulator_say_so_and_the_method_names_both_machines_and_the_range():
    found = compared([[[0.5, -0.25]]], [[[0.5, -0.25]]])["parity.difference"]
    assert found.how == "emulated"
    assert found.method == (
        "largest absolute difference of two numbers, of numbers from -0.25 to 0.5; x86_64, onnxruntime 1.32.0, "
        "2 threads, against aarch64 under qemu-aarch64 7.2, onnxruntime 1.32.0, 1 thread"
    )


def test_values_from_a_real_second_machine_are_measured():
    real = replace(THERE, emulator=None)
    found = compare(outcome([[1.0]]), outcome([[1.0]], environment=real), task="feature-extraction", scheme=FP32)
    assert {one.how for one in found} == {"measured"}


@pytest.mark.parametrize(
    ("here", "there", "message"),
    [
        ([[[1.0]]], [[[1.0]], [[1.0]]], "1 outputs here, 2 there"),
        ([[[1.0, 2.0]]], [[[1.0]]], r"output 1 has the shape \(1, 2\) here, \(1, 1\) there"),
        ([], [], "no output to compare"),
        ([np.zeros((0, 3))], [np.zeros((0, 3))], "no output to compare"),
        ([[1.0]], [[1.0]], "no table"),
    ],
)
def test_outputs_that_nothing_pairs_are_refused(here, there, message):
    with pytest.raises(EdgemlError, match=message) as caught:
        compared(here, there)
    assert caught.value.hint


def test_an_output_that_was_cut_is_refused():
    whole = outcome([[1.0, 2.0]])
    cut = replace(whole, trace=(Array(shape=(1, 2), data=whole.trace[0].data[:5]),))
    with pytest.raises(EdgemlError, match="5 bytes"):
        compare(whole, cut, task="feature-extraction", scheme=FP32)


@pytest.mark.parametrize("task", ["feature-extraction", "text-classification", "text-generation"])
@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("side", ["here", "there", "both"])
def test_nan_fails_and_is_counted_and_the_rest_is_still_compared(task, broken, side):
    good, bad = [[[1.0, 2.0]] for _ in range(30)], [[[1.0, 2.0]]] * 29 + [[[1.0, broken]]]
    found = compared(good if side == "there" else bad, good if side == "here" else bad, task)

    noun = "position" if task == "text-generation" else "traced row"
    assert {one.marks for one in found.values()} == {(f"NaN or infinity in 1 of 30 {noun}s",)}
    assert found["parity.bit_equal"].values[-1] == 0.0
    assert set(words(found, task=task).values()) == {"fail"}
    kept = Outcome(environment=THERE, samples=tuple(found.values()))
    assert decode(encode(kept), Outcome, where="a test") == kept  # JSON has no NaN


def test_nothing_but_nan_fails_without_a_value():
    found = compared([[[math.nan]]], [[[math.nan]]])
    assert set(found) == {"parity.bit_equal"}
    verdict = judged(found)["parity.cosine"]
    assert (verdict.verdict, verdict.value, verdict.n) == ("fail", None, 0)
    assert verdict.reason == "NaN or infinity in 1 of 1 traced rows"


@pytest.mark.parametrize(
    ("scheme", "passes", "fails"),
    [
        ("onnx:fp32", 0.99991, 0.99989),
        ("onnx:int8", 0.9801, 0.9799),
        ("gguf:f16", 0.99991, 0.99989),
        ("gguf:q4_k_m", 0.9951, 0.9949),
    ],
)
def test_the_worst_cosine_that_passes_is_that_of_the_self_test(scheme, passes, fails):
    assert passes > of_cosine(scheme).bound > fails
    for cosine, word in ((passes, "pass"), (fails, "fail")):
        one, other = turned(cosine)
        found = compared([one] * 8, [one] * 7 + [other], scheme=scheme)
        verdict = judged(found, scheme=scheme)["parity.cosine"]
        assert (verdict.verdict, verdict.n, verdict.bound) == (word, 8, of_cosine(scheme).bound)
        assert verdict.value == pytest.approx(cosine)
        assert of_cosine(scheme).reason in verdict.method


def with_values(task, **values):
    """Samples with those values in place of compared ones."""
    base = compared([[[1.0, 2.0]]], [[[1.0, 2.0]]], task)
    return {name: replace(one, values=tuple(values[name.partition(".")[2]])) for name, one in base.items()}


@pytest.mark.parametrize(("cosine", "word"), [(0.9999, "pass"), (np.nextafter(0.9999, 0), "fail")])
def test_a_cosine_at_its_bound_passes(cosine, word):
    found = with_values("feature-extraction", cosine=[1.0, float(cosine)], difference=[0, 0], bit_equal=[0, 0])
    assert words(found)["parity.cosine"] == word


@pytest.mark.parametrize(("mean", "word"), [(0.0099, "pass"), (KL_DIVERGENCE.bound, "fail"), (0.0101, "fail")])
def test_a_mean_divergence_must_be_below_its_bound(mean, word):
    found = with_values("perplexity", kl_divergence=[mean] * 40, same_top=[1] * 40, bit_equal=[0] * 40)
    assert words(found, task="perplexity") == {"parity.kl_divergence": word, "parity.same_top": "pass"}


@pytest.mark.parametrize(
    ("same", "n", "word"), [(17, 20, "pass"), (16, 20, "fail"), (85, 100, "pass"), (84, 100, "fail")]
)
def test_of_a_hundred_likeliest_tokens_fifteen_may_differ(same, n, word):
    found = with_values("perplexity", kl_divergence=[0] * n, same_top=[1] * same + [0] * (n - same), bit_equal=[0] * n)
    verdict = judged(found, task="perplexity")["parity.same_top"]
    assert (verdict.verdict, verdict.value, verdict.n, verdict.bound) == (word, same / n, n, SAME_TOP.bound)


@pytest.mark.parametrize("same", [19, 5])
def test_a_share_of_few_positions_cannot_tell_and_the_divergence_still_can(same):
    found = with_values(
        "perplexity", kl_divergence=[0.2] * 19, same_top=[1] * same + [0] * (19 - same), bit_equal=[0] * 19
    )
    verdicts = judged(found, task="perplexity")
    assert verdicts["parity.same_top"].verdict == "cannot tell"
    assert verdicts["parity.same_top"].reason == "19 positions are too few for a share; it takes 20 at least"
    assert verdicts["parity.kl_divergence"].verdict == "fail"


def test_every_label_must_agree_and_few_rows_show_it():
    agree, differ = [[[2.0, 1.0]]] * 8, [[[2.0, 1.0]]] * 7 + [[[1.0, 1.001]]]
    assert words(compared(agree, agree, "text-classification"), task="text-classification") == {
        "parity.cosine": "pass",
        "parity.same_top": "pass",
    }
    assert (
        words(compared(agree, differ, "text-classification"), task="text-classification")["parity.same_top"] == "fail"
    )


def test_the_samples_become_measurements_that_say_how_they_were_had():
    found = compared([[[0.5, 1.0]]] * 8, [[[0.5, 1.0]]] * 8)
    kept: Run = run(THERE, outcome=Outcome(environment=THERE, samples=tuple(found.values())), slices={})
    told = {one.metric: one for one in measurements(kept, size_bytes=1) if one.metric.startswith("parity.")}
    assert {one.how for one in told.values()} == {"emulated"}
    assert (told["parity.cosine"].statistic, told["parity.cosine"].n) == ("min", 8)
    assert told["parity.cosine"].value == pytest.approx(1.0)
    assert told["parity.difference"].value == 0.0


def a_job(task="feature-extraction", rows=100, **fields):
    own = {"target": "pi5", "threads": 4, "warmups": 10, "repeats": 200, "seed": 20}
    texts = tuple({"text": f"line {number}"} for number in range(rows))
    return Job(variant="x", task=task, rows=texts, **own | fields)


def test_a_parity_job_traces_few_rows_on_one_thread_and_measures_nothing():
    given = a_job(checks=("batch-invariance",), reference="y", reference_rows=({"text": "z", "label": "a"},))
    job = parity_job(given)
    assert (job.trace, job.threads, job.threads_prefill, len(job.rows)) == (True, 1, None, 8)
    assert (job.warmups, job.repeats, job.checks, job.answers) == (0, 0, (), False)
    assert (job.reference, job.reference_rows, job.energy) == (None, (), EnergyPlan(meter="off"))
    assert len(parity_job(given, rows=3).rows) == 3
    assert len(parity_job(a_job(rows=2)).rows) == 2


def test_its_rows_are_drawn_by_the_seed_and_keep_their_numbers():
    given = a_job()
    places = parity_rows(given, 8)
    assert len(set(places)) == 8
    assert places != tuple(range(8))
    assert parity_rows(a_job(), 8) == places != parity_rows(a_job(seed=21), 8)
    assert parity_job(given).rows == tuple(given.rows[place] for place in places)
    assert parity_job(given).numbers == tuple(place + 1 for place in places)
    numbered = parity_job(replace(given, numbers=tuple(range(500, 600))))
    assert numbered.numbers == tuple(place + 500 for place in places)


def test_they_are_the_first_that_a_sequential_run_would_measure():
    given = a_job()
    whole = Dataset(name="d", sha256="0", rows=given.rows)
    assert drawn(whole, given.seed).rows[:8] == parity_job(given).rows


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation"])
def test_a_model_that_writes_text_is_traced_at_a_bounded_number_of_positions(task):
    job = parity_job(a_job(task, generate=Generate(instruction="do")), rows=50)
    assert len(job.rows) * job.context_tokens == parity.POSITIONS
    assert job.generate.instruction == "do"
    assert parity_job(a_job(task, context_tokens=8)).context_tokens == 8


def test_of_a_long_text_only_the_beginning_goes_to_the_other_machine():
    job = parity_job(a_job("perplexity", 0, text="many words " * 100_000))
    assert job.limit * job.context_tokens == parity.POSITIONS
    assert 4 * parity.POSITIONS < len(job.text) < 10_000


def test_the_command_line_offers_as_many_rows_as_they_are_by_default():
    (offered,) = (one.default for one in cli.commands["bench"].params if one.name == "parity_rows")
    assert offered == parity.ROWS == Conditions(task="x", profile=profile("pi5")).parity_rows
