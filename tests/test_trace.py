"""Raw outputs of few rows: whatever the kind of model, each row alone, in full precision and nothing beside it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import numpy_helper

from edgeml.targets import local
from edgeml_runtime import worker
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import open_session, started
from edgeml_runtime.trace import trace
from edgeml_runtime.types import Generate, Job
from tiny.gguf import bert_gguf, llama_gguf
from tiny.graphs import decoder_variant
from tiny.int8 import OUTLIER, int8_variant
from tiny.labels import classifier_variant
from tiny.pictures import drawn, image_variant
from tiny.seq2seq import seq2seq_variant
from tiny.variants import WIDTH, gguf_variant, onnx_variant

TEXTS = ("one", "another line", "three words here")
BYTES = 288  # tokens of the tiny Llama


def job(folder, task, rows=None, **fields):
    rows = tuple({"text": text} for text in TEXTS) if rows is None else rows
    own = {"target": "pi5", "threads": 1, "warmups": 0, "repeats": 0, "seed": 1, "trace": True}
    return Job(variant=str(folder), task=task, rows=rows, **own | fields)


def silent(step, done, total):
    pass


def traced(folder, task, rows=None, **fields):
    """The arrays, and the session that they came from."""
    asked = job(folder, task, rows, **fields)
    session = open_session(folder, threads=1)
    return [numbers(one) for one in trace(session, asked, silent)], session


def numbers(array):
    return np.frombuffer(array.data, dtype="<f4").reshape(array.shape)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return gguf_variant(folder / "variant", llama_gguf(folder / "model.gguf"))


def same(found, expected):
    return np.array_equal(found, expected)  # every bit: it is the same machine and the same call


def test_an_encoders_trace_is_the_vector_of_each_text_of_a_row(tmp_path):
    folder = onnx_variant(tmp_path / "variant").path
    pairs = ({"sentence1": "one", "sentence2": "two"}, {"sentence1": "three", "sentence2": "four"})

    found, session = traced(folder, "sentence-similarity", pairs)

    assert [one.shape for one in found] == [(2, WIDTH), (2, WIDTH)]
    assert same(found[1], np.concatenate([session.embed([text]) for text in ("three", "four")]))


def test_an_encoder_in_gguf_is_traced_as_well(tmp_path):
    own = {"task": "feature-extraction", "scheme": "gguf:q8_0", "pooling": "mean", "normalize": True}
    folder = gguf_variant(tmp_path / "variant", bert_gguf(tmp_path / "model.gguf"), **own)

    found, session = traced(folder, "feature-extraction")

    assert [one.shape for one in found] == [(1, 256)] * 3
    assert same(found[0], session.embed([TEXTS[0]]))


def test_no_row_depends_on_its_neighbours_although_int8_would(tmp_path):
    folder = int8_variant(tmp_path / "variant").path
    rows = ({"text": "a plain line"}, {"text": f"an outlier {OUTLIER}"})

    together, session = traced(folder, "feature-extraction", rows)
    alone, _ = traced(folder, "feature-extraction", rows[:1])

    assert not same(session.embed([row["text"] for row in rows])[:1], alone[0])
    assert same(together[0], alone[0])


def test_a_classifiers_trace_is_raw_logits(tmp_path):
    folder = classifier_variant(tmp_path / "variant").path
    found, session = traced(folder, "text-classification")
    assert [one.shape for one in found] == [(1, 3)] * 3
    assert same(found[2], session.classify([TEXTS[2]]))


def test_a_taggers_trace_is_the_logits_of_the_words_that_were_read(tmp_path):
    folder = classifier_variant(tmp_path / "variant", task="token-classification", max_tokens=8).path
    rows = ({"tokens": ["to", "oslo"]}, {"tokens": ["a", "b", "c", "d", "e", "f", "g", "h"]})

    found, session = traced(folder, "token-classification", rows)

    assert [one.shape for one in found] == [(2, 3), (6, 3)]  # with two special tokens, six letters are read
    assert same(found[0], session.tag([["to", "oslo"]])[0].logits)


def test_an_image_classifiers_trace_is_raw_logits(tmp_path):
    folder, file = image_variant(tmp_path / "variant"), tmp_path / "circle.png"
    drawn("circle", 1).save(file)

    found, session = traced(folder, "image-classification", ({"file": str(file)},))

    assert same(found[0], session.classify_images([file.read_bytes()]))


def test_a_decoders_trace_is_teacher_forced_logits_of_the_prompt(llama):
    asked = Generate(instruction="do:")
    found, session = traced(llama, "text-generation", generate=asked)
    assert same(found[1], session.logits(session.prompt("do:", TEXTS[1])))
    assert found[1].shape[1] == BYTES


def test_of_a_long_prompt_the_end_is_traced_after_the_start_token_since_an_instruction_is_the_same_in_all(llama):
    asked = Generate(instruction="always the same words, again and again")
    found, session = traced(llama, "text-generation", generate=asked, context_tokens=6)
    prompt = session.prompt(asked.instruction, TEXTS[0])

    assert [len(one) for one in found] == [6] * 3
    assert same(found[0], session.logits([session.start_token, *prompt[-5:]]))
    assert not same(found[0], found[1])


def test_an_onnx_decoder_without_a_start_token_gets_the_end_of_the_prompt_alone(tmp_path):
    folder = decoder_variant(tmp_path / "variant")
    found, session = traced(folder, "text-generation", context_tokens=4)
    tokens = session.prompt(None, TEXTS[2])[-4:]
    expected = tokens if session.start_token is None else [session.start_token, *tokens[1:]]
    assert same(found[2], session.logits(expected))


def test_no_more_tokens_are_traced_than_the_model_reads(tmp_path):
    folder = decoder_variant(tmp_path / "variant", max_tokens=8)
    found, _ = traced(folder, "text-generation", ({"text": "a line of many letters"},))
    assert found[0].shape[0] == 8


@pytest.mark.parametrize("limit", [1, 2])
def test_of_perplexity_as_many_chunks_of_the_text_are_traced_as_the_limit_says(llama, limit):
    text = "a text that is long enough for three chunks of ten tokens"
    found, session = traced(llama, "perplexity", (), text=text, context_tokens=10, limit=limit)
    assert [one.shape for one in found] == [(10, BYTES)] * limit
    assert same(found[0], session.logits(started(session, text)[:10]))


def test_a_model_that_reads_one_text_and_writes_another_is_forced_too(tmp_path):
    folder = seq2seq_variant(tmp_path / "variant")
    found, session = traced(folder, "text2text-generation", context_tokens=5)
    assert [len(one) for one in found] == [5] * 3
    assert same(found[0], session.logits(session.prompt(None, TEXTS[0])[-5:]))


def test_nan_is_kept_so_that_it_can_be_told(tmp_path):
    folder = onnx_variant(tmp_path / "variant").path
    model = onnx.load(folder / "model.onnx")
    table = next(one for one in model.graph.initializer if one.name == "table")
    table.CopyFrom(numpy_helper.from_array(np.full_like(numpy_helper.to_array(table), np.nan), "table"))
    onnx.save(model, folder / "model.onnx")

    found, _ = traced(folder, "feature-extraction")

    assert np.isnan(found[0]).all()


def test_a_model_of_another_kind_is_refused(tmp_path, llama):
    encoder = onnx_variant(tmp_path / "variant").path
    for task, folder in (
        ("text-classification", encoder),
        ("token-classification", encoder),
        ("image-classification", encoder),
        ("text-generation", encoder),
        ("perplexity", encoder),
        ("feature-extraction", llama),
    ):
        rows = ({"text": "a", "tokens": ["a"], "file": "a.png"},)
        with pytest.raises(EdgemlError) as caught:
            traced(folder, task, rows, text="a")
        assert caught.value.hint


def test_a_row_that_does_not_fit_is_named_by_its_place_in_the_file(tmp_path):
    weights = llama_gguf(tmp_path / "model.gguf", context=8192)
    folder = gguf_variant(tmp_path / "variant", weights, max_tokens=8192)
    with pytest.raises(EdgemlError, match="row 17: "):
        traced(folder, "text-generation", ({"text": "x" * 5000},), context_tokens=8192, numbers=(17,))


def test_a_text_shorter_than_a_chunk_is_refused(llama):
    with pytest.raises(EdgemlError, match="one chunk needs 40"):
        traced(llama, "perplexity", (), text="too short", context_tokens=40)


def test_the_worker_computes_nothing_beside_the_trace(tmp_path, capsys):
    folder = onnx_variant(tmp_path / "variant").path
    asked = job(folder, "feature-extraction", warmups=3, repeats=3, checks=("batch-invariance",))

    outcome = worker.run(asked)

    assert (outcome.samples, outcome.absent, outcome.answers, outcome.energy) == ((), (), (), None)
    assert outcome.environment.threads == 1
    assert [one.shape for one in outcome.trace] == [(1, WIDTH)] * 3
    assert capsys.readouterr().err == "@0/3 trace\n@1/3 trace\n@2/3 trace\n"
    assert not worker.run(replace(asked, trace=False)).trace


def test_a_trace_comes_through_another_process_bit_by_bit(tmp_path):
    asked = job(onnx_variant(tmp_path / "variant").path, "feature-extraction")
    assert local.run(asked, progress=silent).trace == worker.run(asked).trace
