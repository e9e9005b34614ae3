import numpy as np
import pytest
from msgspec.structs import replace

from edgeml.scores import scores
from edgeml_runtime.checks import check_of
from edgeml_runtime.records import decode, encode
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.tasks.encoding import packed
from edgeml_runtime.types import Environment, Generate, Job, Outcome, Vectors
from tiny.variants import onnx_variant

MACHINE = Environment(machine="x86_64", system="Linux", python="3.11", threads=1, cores=2, libraries={})


def job(task, rows):
    return Job(task=task, rows=rows, variant="x", target="laptop", threads=1, warmups=0, repeats=1, seed=1)


def quiet(step, done, total):
    pass


def lines(*texts):
    return tuple({"text": text} for text in texts)


def array(vectors):
    return np.frombuffer(vectors.data, "<f2").reshape(-1, vectors.width).astype(np.float32)


@pytest.fixture
def session(tmp_path):
    return open_session(onnx_variant(tmp_path / "variant").path, threads=1)


def test_vectors_are_kept_a_text_each_in_the_order_of_rows_and_columns(session):
    rows = ({"sentence1": "rent", "sentence2": "fuel"}, {"sentence1": "post", "sentence2": "rent"})

    kept = array(task_of("sentence-similarity").answers(session, job("sentence-similarity", rows), quiet).vectors)

    np.testing.assert_allclose(kept, session.embed(["rent", "fuel", "post", "rent"]), atol=1e-3)
    assert (kept[0] == kept[3]).all()  # a text that comes twice is there twice


def test_a_kept_vector_has_length_1_so_that_none_is_too_long_for_its_type():
    kept = array(packed(np.array([[3e6, 4e6], [3e-6, 4e-6], [0.0, 0.0]], np.float32)))

    np.testing.assert_allclose(kept, [[0.6, 0.8], [0.6, 0.8], [0.0, 0.0]], atol=1e-3)


def test_a_cosine_of_kept_vectors_is_exact_to_a_hundred_thousandth():
    random = np.random.default_rng(0)
    first = random.standard_normal((100, 384)).astype(np.float32)
    second = first + 0.1 * random.standard_normal(first.shape).astype(np.float32)

    exact, kept = (
        (one / np.linalg.norm(one, axis=1, keepdims=True) * (other / np.linalg.norm(other, axis=1, keepdims=True))).sum(
            1
        )
        for one, other in ((first, second), (array(packed(first)), array(packed(second))))
    )

    np.testing.assert_allclose(kept, exact, atol=1e-5)


def test_the_vectors_of_3000_texts_make_a_few_megabytes_of_json():
    data = np.random.default_rng(0).standard_normal((3000, 384)).astype(np.float32)
    outcome = Outcome(environment=MACHINE, samples=(), vectors=packed(data))

    text = encode(outcome)

    assert len(text) < 3.2e6
    assert decode(text, Outcome, where="x").vectors == outcome.vectors
    assert isinstance(outcome.vectors, Vectors)


def test_the_nearest_of_a_text_that_comes_twice_is_its_double(session):
    found = task_of("feature-extraction").answers(
        session, job("feature-extraction", lines("rent march", "fuel", "rent march", "rent april")), quiet
    )

    assert (found.values[0]["nearest"], found.values[2]["nearest"]) == (2, 0)
    assert found.values[0]["cosine"] == pytest.approx(1.0, abs=1e-6)


def test_of_rows_that_are_equally_near_the_first_counts_wherever_they_stand(session):
    texts = ["fuel", *["rent"] * 40, "RENT", "rent march"]  # capitals are small letters to its tokenizer

    found = task_of("feature-extraction").answers(session, job("feature-extraction", lines(*texts)), quiet)

    nearest = [answer["nearest"] for answer in found.values]
    assert nearest[1] == 2
    assert set(nearest[2:42]) == {1}
    assert nearest[42] == 1


def test_tokens_are_counted_a_row_with_all_of_its_texts(session):
    rows = ({"sentence1": "ab", "sentence2": "c"}, {"sentence1": "abcd", "sentence2": "abcd"})

    found = task_of("sentence-similarity").answers(session, job("sentence-similarity", rows), quiet)

    [tokens] = [sample for sample in found.samples if sample.metric == "tokens"]
    assert tokens.values == (7.0, 12.0)  # each text has a token at its beginning and one at its end
    assert (tokens.unit_of_sample, tokens.statistics) == ("row", ("mean",))


def test_the_nearest_is_sought_among_reference_rows_where_there_are_some(session):
    references = ({"text": "rent april", "label": "home"}, {"text": "fuel", "label": 7})
    asked = replace(job("feature-extraction", lines("rent march")), reference_rows=references)

    found = task_of("feature-extraction").answers(session, asked, quiet)
    [score] = scores("feature-extraction", found.values, ("home",), Generate())

    assert [(answer["nearest"], answer["label"]) for answer in found.values] == [(0, "home")]
    assert score.columns == ((1.0,),)
    for check in ("sensitivity", "batch-invariance"):
        tried = check_of(check).run(session, asked, found.values, quiet)
        assert all(sample.values in ((0.0,), (1.0,)) for sample in tried.samples if sample.metric != "batch.shift")


def test_labels_of_reference_rows_are_compared_as_text_like_those_of_the_data():
    [score] = scores("feature-extraction", [{"nearest": 9, "cosine": 0.5, "label": 7}], ("7",), Generate())

    assert score.columns == ((1.0,),)
