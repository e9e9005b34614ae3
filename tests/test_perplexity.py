import math

import numpy as np
import pytest

from edgeml.bench import Conditions, bench
from edgeml.errors import EdgemlError
from edgeml.measurements import differences
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.types import Dataset, Run
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.tasks.perplexity import _require_comparable
from edgeml_runtime.types import Environment, Generate, Job, Outcome, Samples
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.variants import gguf_variant

TEXT = "the pump in hall two stopped and restarted by itself. " * 8
CHUNK = 64


def job(folder, **fields):
    defaults = {"target": "laptop", "threads": 1, "warmups": 0, "repeats": 1, "seed": 1, "context_tokens": CHUNK}
    return Job(variant=str(folder), task="perplexity", text=TEXT, **{**defaults, **fields})


def quiet(step, done, total):
    pass


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    return gguf_variant(folder / "f16", llama_gguf(folder / "model.gguf", type="F16"))


@pytest.fixture(scope="module")
def rough(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rough")
    return gguf_variant(folder / "q4_0", llama_gguf(folder / "model.gguf", type="Q4_0"), name="tiny/gguf-q4_0")


def perplexity_run(name, chunks):
    sample = Samples(
        metric="perplexity",
        unit="perplexity",
        values=tuple(float(value) for value in range(chunks)),
        statistics=("exp_mean",),
        unit_of_sample="chunk",
        method="by hand",
    )
    where = Environment(machine="x", system="x", python="3", threads=1, cores=1, libraries={})
    return Run(
        variant=name,
        variant_sha256="0" * 64,
        target="laptop",
        how="measured",
        task="perplexity",
        started="2024-01-01",
        dataset="text",
        dataset_sha256="0" * 64,
        seed=1,
        repeats=1,
        warmups=1,
        batch_size=1,
        context_tokens=CHUNK,
        generate=Generate(),
        outcome=Outcome(environment=where, samples=(sample,)),
    )


def answers(folder, **fields):
    session = open_session(folder, threads=1)
    found = task_of("perplexity").answers(session, job(folder, **fields), quiet)
    return {sample.metric: sample for sample in found.samples}


def test_perplexity_is_that_of_the_second_half_of_each_chunk(full):
    session = open_session(full, threads=1)
    tokens = [session.start_token, *session.tokenize(TEXT)]
    chunk = tokens[:CHUNK]
    logits = session.logits(chunk).astype(np.float64)
    likelihoods = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    by_hand = -np.mean([likelihoods[at, chunk[at + 1]] for at in range(CHUNK // 2, CHUNK - 1)])

    found = answers(full)["perplexity"]

    assert found.values[0] == pytest.approx(by_hand, rel=1e-4)
    assert len(found.values) == len(tokens) // CHUNK
    assert found.statistics == ("exp_mean",)


def test_every_chunk_begins_with_the_start_token_where_the_vocabulary_asks_for_one(full, tmp_path):
    session, seen = open_session(full, threads=1), []
    evaluate = session.logits
    session.logits = lambda tokens: seen.append(list(tokens)) or evaluate(tokens)
    tokens = [1, *session.tokenize(TEXT)]

    task_of("perplexity").answers(session, job(full), quiet)
    task_of("perplexity").predict(session, {"text": "abc"}, Generate())

    *chunks, short = seen
    assert chunks == [[1, *tokens[at + 1 : at + CHUNK]] for at in range(0, len(tokens) - CHUNK + 1, CHUNK)]
    assert short == [1, *session.tokenize("abc")]
    bare = gguf_variant(tmp_path / "bare", llama_gguf(tmp_path / "bare.gguf", width=64, adds_start=False))
    assert open_session(bare, threads=1).start_token is None


def test_the_method_says_how_many_tokens_a_chunk_really_has(full, tmp_path):
    small = gguf_variant(tmp_path / "small", full / "model.gguf", max_tokens=16)

    assert answers(small)["perplexity"].method.startswith("chunks of 16 tokens")
    assert answers(full)["perplexity"].method.startswith(f"chunks of {CHUNK} tokens")


def test_a_text_without_a_token_to_go_by_has_no_perplexity(tmp_path):
    bare = gguf_variant(tmp_path / "bare", llama_gguf(tmp_path / "bare.gguf", width=64, adds_start=False))

    with pytest.raises(EdgemlError, match="no token"):
        task_of("perplexity").predict(open_session(bare, threads=1), {"text": ""}, Generate())


def test_a_reference_that_reads_other_tokens_is_refused(full, tmp_path):
    other = decoder_variant(tmp_path / "other")  # of letters, not of bytes

    with pytest.raises(EdgemlError, match="tiny/gguf-f16 and tiny/onnx-fp32 read the text as different tokens"):
        answers(full, reference=str(other))


def test_a_reference_that_reads_shorter_chunks_is_refused(full, tmp_path):
    other = gguf_variant(tmp_path / "short", full / "model.gguf", name="tiny/gguf-f16-short", max_tokens=16)

    with pytest.raises(EdgemlError, match="chunks of different lengths") as caught:
        answers(full, reference=str(other))
    assert "--context" in caught.value.hint


def test_a_reference_with_another_vocabulary_is_refused_though_it_reads_the_same_tokens(full):
    session, wider = open_session(full, threads=1), open_session(full, threads=1)
    evaluate = wider.logits
    wider.logits = lambda tokens: np.pad(evaluate(tokens), ((0, 0), (0, 3)))

    with pytest.raises(EdgemlError, match="knows 288 tokens, tiny/gguf-f16 291"):
        _require_comparable(session, wider, job(full))


def test_perplexities_of_unequal_numbers_of_chunks_have_no_difference():
    with pytest.raises(EdgemlError, match="reads the text as 3 chunks, tiny/gguf-f16 as 2"):
        differences(perplexity_run("other/gguf-f16", 3), perplexity_run("tiny/gguf-f16", 2))


def test_a_variant_does_not_diverge_from_itself(full):
    found = answers(full, reference=str(full))

    assert found["kl_divergence"].values == pytest.approx([0.0] * len(found["perplexity"].values), abs=1e-6)
    assert set(found["same_top"].values) == {1.0}


def test_a_rougher_variant_diverges_and_sometimes_prefers_another_token(full, rough):
    found = answers(rough, reference=str(full))

    assert all(value > 0 for value in found["kl_divergence"].values)
    assert min(found["same_top"].values) < 1


def test_a_text_shorter_than_one_chunk_is_refused_with_both_counts(full):
    with pytest.raises(EdgemlError, match=r"the text has \d+ tokens, one chunk needs 512"):
        answers(full, context_tokens=512)


def test_the_number_of_chunks_can_be_limited(full):
    assert len(answers(full, limit=2)["perplexity"].values) == 2


def test_bench_compares_with_the_baseline_and_gives_perplexity_not_its_logarithm(full, rough, tmp_path):
    variants = [load_variant(full), load_variant(rough)]
    conditions = Conditions(task="perplexity", profile=profile(None), threads=1, context_tokens=CHUNK)
    dataset = Dataset(name="text", sha256="0" * 64, text=TEXT)

    report = bench(variants, dataset, conditions, store=Store(tmp_path / "artifacts"), baseline=variants[0])

    found = {(one.variant, one.metric): one for one in report.measurements}
    assert found["tiny/gguf-f16", "perplexity"].value > 1
    assert ("tiny/gguf-f16", "kl_divergence") not in found  # the baseline has nothing to diverge from
    assert found["tiny/gguf-q4_0", "kl_divergence"].value > 0
    [difference] = [one for one in report.differences if one.metric == "perplexity"]
    assert difference.difference == pytest.approx(
        found["tiny/gguf-q4_0", "perplexity"].value - found["tiny/gguf-f16", "perplexity"].value
    )
    assert not math.isnan(difference.difference)


def test_times_of_chunks_are_no_chunks_and_so_pair_nothing(full):
    [rate] = task_of("perplexity").cost(open_session(full, threads=1), job(full, repeats=3))

    assert (rate.metric, len(rate.values), rate.unit_of_sample) == ("prefill_rate", 3, "evaluation")
