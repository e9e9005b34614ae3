import math

import numpy as np
import pytest

from edgeml.bench import Conditions, bench
from edgeml.errors import EdgemlError
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.types import Dataset
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Job
from tiny.gguf import llama_gguf
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


def answers(folder, **fields):
    session = open_session(folder, threads=1)
    found = task_of("perplexity").answers(session, job(folder, **fields), quiet)
    return {sample.metric: sample for sample in found.samples}


def test_perplexity_is_that_of_the_second_half_of_each_chunk(full):
    session = open_session(full, threads=1)
    tokens = session.tokenize(TEXT)
    chunk = tokens[:CHUNK]
    logits = session.logits(chunk).astype(np.float64)
    likelihoods = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    by_hand = -np.mean([likelihoods[at, chunk[at + 1]] for at in range(CHUNK // 2, CHUNK - 1)])

    found = answers(full)["perplexity"]

    assert found.values[0] == pytest.approx(by_hand, rel=1e-4)
    assert len(found.values) == len(tokens) // CHUNK
    assert found.statistics == ("exp_mean",)


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
