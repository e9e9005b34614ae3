"""ONNX variants through the runtime: texts in, vectors or tokens out, and broken files refused."""

import numpy as np
import pytest
from msgspec.structs import replace

from edgeml_runtime.backends.onnx_encoder import pool
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.session import open_session
from edgeml_runtime.types import Generate, VariantManifest
from tiny.graphs import decoder_variant
from tiny.variants import onnx_variant

TEXTS = ["some words", "x", "a much longer line of words, and more"]


@pytest.fixture
def encoder(tmp_path):
    onnx_variant(tmp_path / "model", max_tokens=12)
    return open_session(tmp_path / "model", threads=1)


@pytest.fixture
def decoder(tmp_path):
    return open_session(decoder_variant(tmp_path / "decoder"), threads=1)


def manifest_of(folder):
    return read_record(folder / "variant.json", VariantManifest)


def test_a_text_in_a_batch_gets_the_vector_that_it_gets_alone(encoder):
    together = encoder.embed(TEXTS)

    for index, text in enumerate(TEXTS):
        np.testing.assert_allclose(together[index], encoder.embed([text])[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    assert together.dtype == np.float32


@pytest.mark.parametrize("text", ["", "   ", "\n", "a\x00b", "👍🏽 fine", "\u200b", "日本語"])
def test_any_text_gets_a_vector(encoder, text):
    vectors = encoder.embed([text, "some words"])

    assert np.isfinite(vectors).all()
    np.testing.assert_allclose(vectors[0], encoder.embed([text])[0], atol=1e-6)


def test_a_text_is_cut_at_the_models_limit_and_counted_whole(encoder):
    long = "a " * 40

    assert encoder.count_tokens(long) == 42
    np.testing.assert_array_equal(encoder.embed([long]), encoder.embed(["a " * 10]))  # ten and two special tokens
    assert (encoder.embed([long]) != encoder.embed(["a " * 9])).any()


def test_padding_and_truncation_in_the_tokenizer_file_are_not_followed(tmp_path):
    from tokenizers import Tokenizer

    folder = tmp_path / "model"
    onnx_variant(folder)
    plain = open_session(folder, threads=1).embed(TEXTS)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding(length=30)
    tokenizer.enable_truncation(4)
    tokenizer.save(str(folder / "tokenizer.json"))

    session = open_session(folder, threads=1)
    np.testing.assert_array_equal(session.embed(TEXTS), plain)
    assert session.count_tokens("a b c d e") == 7


def test_a_text_without_a_token_is_refused(tmp_path):
    from tokenizers import Tokenizer, processors

    folder = tmp_path / "model"
    onnx_variant(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    tokenizer.save(str(folder / "tokenizer.json"))

    with pytest.raises(EdgemlError, match="a text has no tokens"):
        open_session(folder, threads=1).embed(["words", ""])


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [("mean", [[2.0, 3.0], [5.0, 6.0]]), ("cls", [[1.0, 2.0], [5.0, 6.0]]), ("last", [[3.0, 4.0], [5.0, 6.0]])],
)
def test_only_tokens_that_are_not_padding_are_pooled(tmp_path, pooling, expected):
    onnx_variant(tmp_path / "model")
    manifest = replace(manifest_of(tmp_path / "model"), pooling=pooling, normalize=False)
    hidden = np.array([[[1, 2], [3, 4]], [[5, 6], [70, 80]]], np.float32)
    mask = np.array([[1, 1], [1, 0]])

    np.testing.assert_array_equal(pool(hidden, mask, manifest), expected)
    np.testing.assert_array_equal(pool(hidden[:1], mask[:1], manifest), expected[:1])


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.onnx", b"", "cannot load model.onnx"),
        ("model.onnx", b"\x00garbage" * 20, "cannot load model.onnx"),
        ("model.onnx", None, "cannot load model.onnx"),
        ("tokenizer.json", b'{"model": {}}', "cannot read tokenizer.json"),
        ("tokenizer.json", None, r"tokenizer\.json is missing"),
    ],
)
def test_a_variant_with_a_broken_file_is_refused(tmp_path, file, content, message):
    onnx_variant(tmp_path / "model")
    path = tmp_path / "model" / file
    path.unlink() if content is None else path.write_bytes(content)

    with pytest.raises(EdgemlError, match=message) as caught:
        open_session(tmp_path / "model", threads=1)
    assert "\n" not in caught.value.message


def test_a_truncated_graph_is_refused(tmp_path):
    path = onnx_variant(tmp_path / "model").path / "model.onnx"
    path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(EdgemlError, match=r"cannot load model\.onnx"):
        open_session(path.parent, threads=1)


def test_tokens_follow_one_another_as_the_whole_text_says(decoder):
    prompt = decoder.prompt(None, "abc")
    made = decoder.generate(prompt, Generate(max_new_tokens=8))

    whole = decoder.logits([*prompt, *made.tokens])
    assert made.tokens == tuple(whole[len(prompt) - 1 : -1].argmax(1))
    assert (made.prompt_tokens, made.finish_reason, len(made.token_times_s)) == (len(prompt), "length", 8)
    assert sorted(made.token_times_s) == list(made.token_times_s)
    assert len(set(made.tokens)) > 1


def test_an_end_token_ends_the_text_and_is_no_part_of_it(decoder, tmp_path):
    prompt = decoder.prompt(None, "abc")
    tokens = decoder.generate(prompt, Generate(max_new_tokens=8)).tokens
    end = next(token for token in tokens if token != tokens[0])
    folder = tmp_path / "decoder"
    write_record(folder / "variant.json", replace(manifest_of(folder), end_tokens=(end,)))

    made = open_session(folder, threads=1).generate(prompt, Generate(max_new_tokens=8))

    assert made.tokens == tokens[: tokens.index(end)]
    assert made.finish_reason == "stop"


def test_an_instruction_stands_before_the_text(decoder):
    assert decoder.prompt("do it", "abc") == [2, *decoder.tokenize("do it\n\nabc\n")]
    assert decoder.prompt(None, "abc") == [2, *decoder.tokenize("abc\n")]  # nothing ends a text to be continued


@pytest.mark.parametrize(
    ("form", "start"), [("[CLS] $A [SEP]", 2), ("[CLS] $A", 2), ("$A [SEP]", None), ("$A", None), (None, None)]
)
def test_the_start_token_is_what_the_tokenizer_puts_before_a_text(tmp_path, form, start):
    from tokenizers import Tokenizer, processors

    folder = decoder_variant(tmp_path / "decoder")
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = form and processors.TemplateProcessing(
        single=form, special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))

    assert open_session(folder, threads=1).start_token == start


@pytest.mark.parametrize(
    ("tokens", "options", "message"),
    [
        ([5] * 30, Generate(max_new_tokens=8), "30 tokens and 8 new ones do not fit the 32 of"),
        ([], Generate(max_new_tokens=8), "there is no token to continue from"),
        ([5], Generate(schema={"type": "object"}), "an ONNX model cannot be held to a schema"),
    ],
)
def test_a_generation_that_cannot_be_had_is_refused(decoder, tokens, options, message):
    with pytest.raises(EdgemlError, match=message):
        decoder.generate(tokens, options)
