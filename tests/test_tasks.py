import numpy as np
import pytest

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import NAMES, task_of
from edgeml_runtime.types import Generate, Job
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.variants import gguf_variant, onnx_variant

PAIRS = tuple(
    {"sentence1": one, "sentence2": two, "score": score}
    for one, two, score in (("rent march", "rent april", 4), ("fuel", "rent march", 1), ("fuel", "fuel", 5))
)
LINES = tuple(
    {"text": text, "label": label}
    for text, label in (("a" * 9, "x"), ("aaaaaaaab", "x"), ("z" * 9, "y"), ("zzzzzzzzy", "y"))
)


def job(task, rows, **fields):
    defaults = {"variant": "x", "target": "laptop", "threads": 1, "warmups": 1, "repeats": 3, "seed": 1}
    return Job(task=task, rows=rows, **{**defaults, **fields})


def quiet(step, done, total):
    pass


@pytest.fixture
def session(tmp_path):
    return open_session(onnx_variant(tmp_path / "variant").path, threads=1)


@pytest.mark.parametrize("name", NAMES)
def test_every_task_that_is_named_exists(name):
    task = task_of(name)

    assert all(callable(getattr(task, verb)) for verb in ("first", "cost", "answers", "predict"))


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(EdgemlError, match="unknown task") as caught:
        task_of("sentence-similarty")
    assert caught.value.hint == "did you mean sentence-similarity?"


def test_the_answer_to_a_pair_is_the_cosine_of_its_vectors(session):
    found = task_of("sentence-similarity").answers(session, job("sentence-similarity", PAIRS), quiet)
    first, second = session.embed(["rent march"])[0], session.embed(["rent april"])[0]

    assert found.values[0] == pytest.approx(float(first @ second), abs=1e-6)
    assert found.values[2] == pytest.approx(1.0, abs=1e-6)


def test_the_nearest_line_is_never_the_line_itself(session):
    found = task_of("feature-extraction").answers(session, job("feature-extraction", LINES), quiet)

    assert [answer["nearest"] for answer in found.values] == [1, 0, 3, 2]


def test_a_single_line_has_no_nearest_other(session):
    with pytest.raises(EdgemlError, match="single text") as caught:
        task_of("feature-extraction").answers(session, job("feature-extraction", LINES[:1]), quiet)

    assert caught.value.hint == "give at least two rows"


def test_latency_counts_repeats_and_keeps_warmups_apart(session):
    [latency] = task_of("feature-extraction").cost(session, job("feature-extraction", LINES))

    assert (len(latency.values), len(latency.warmups)) == (3, 1)
    assert latency.unit == "ms"
    assert all(value > 0 for value in latency.values)


def test_texts_longer_than_the_limit_are_counted_and_told(tmp_path):
    session = open_session(onnx_variant(tmp_path / "variant", max_tokens=6).path, threads=1)
    rows = ({"text": "ab"}, {"text": "abcdefghij"})

    found = task_of("feature-extraction").answers(session, job("feature-extraction", rows), quiet)

    truncated = next(sample for sample in found.samples if sample.metric == "truncated")
    assert truncated.values == (1.0,)
    assert found.warnings == ("1 of 2 texts in 2 rows are cut at 6 tokens",)


def test_a_model_whose_answer_does_not_depend_on_its_input_is_called_broken(tmp_path):
    session = open_session(onnx_variant(tmp_path / "variant", constant=True).path, threads=1)

    with pytest.raises(EdgemlError, match="broken: every text gets the same vector"):
        task_of("feature-extraction").answers(session, job("feature-extraction", LINES), quiet)


def test_an_encoder_refuses_to_generate(session):
    with pytest.raises(EdgemlError, match="generates no text"):
        task_of("text-generation").predict(session, {"text": "hello"}, Generate())


def test_padding_never_changes_a_vector(session):
    texts = ["a", "a much longer line of text", "bc"]

    together = session.embed(texts)
    alone = np.concatenate([session.embed([text]) for text in texts])

    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_a_text_is_cut_at_the_limit_and_keeps_its_last_special_token(tmp_path):
    session = open_session(onnx_variant(tmp_path / "variant", max_tokens=6).path, threads=1)

    np.testing.assert_allclose(session.embed(["abcdefghij"]), session.embed(["abcd"]), atol=1e-6)
    assert session.count_tokens("abcdefghij") == 12


@pytest.mark.parametrize("tokens", [2, 1])
def test_a_plain_prompt_is_told_where_the_model_may_have_a_chat_template(tmp_path, tokens):
    session = open_session(decoder_variant(tmp_path / "decoder"), threads=1)
    options = Generate(max_new_tokens=tokens)

    found = task_of("text-generation").answers(session, job("text-generation", LINES, generate=options), quiet)

    assert found.warnings == (
        "prompts are plain: a chat template of the model is not applied in onnx:fp32",
        f"4 of 4 answers were cut at {tokens} tokens",
    )


def test_a_turn_without_a_template_is_the_same_text_in_every_format(tmp_path):
    gguf = open_session(gguf_variant(tmp_path / "gguf", llama_gguf(tmp_path / "x.gguf", width=64)), threads=1)
    onnx = open_session(decoder_variant(tmp_path / "onnx"), threads=1)

    for session in (gguf, onnx):
        for instruction, words in ((None, "it\n"), ("Do", "Do\n\nit\n"), ("", "\n\nit\n")):
            assert session.prompt(instruction, "it") == [session.start_token, *session.tokenize(words)]
