"""Labels of texts and of words: the same answers as PyTorch, the same scores as scikit-learn and seqeval."""

import random

import numpy as np
import pytest

from edgeml.errors import EdgemlError
from edgeml.scores import gold, scorer_of, scores, unscored
from edgeml.scores.token_classification import entities, f1
from edgeml_runtime.tasks import ready
from edgeml_runtime.types import Generate

LABELS = ("fuel", "rent", "travel costs")
TAGS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC", "E-LOC", "S-PER", "I-ORG-X", "B", "I")


def of(task, answers, expected):
    return {one.metric: one for one in scores(task, answers, expected, Generate())}


def value(score):
    return float(score.statistic(*map(np.asarray, score.columns)))


@pytest.mark.parametrize("rows", [1, 7, 200])
@pytest.mark.parametrize("labels", [2, 9])
def test_accuracy_and_macro_f1_are_those_of_scikit_learn(rows, labels):
    from sklearn.metrics import accuracy_score, f1_score

    draw = random.Random(rows * labels)
    wanted, given = ([f"label {draw.randrange(labels)}" for _ in range(rows)] for _ in range(2))
    answers = [{"label": label, "score": 0.5} for label in given]

    found = of("text-classification", answers, wanted)

    assert value(found["accuracy"]) == pytest.approx(accuracy_score(wanted, given))
    assert value(found["macro_f1"]) == pytest.approx(f1_score(wanted, given, average="macro"))
    assert found["accuracy"].is_right_or_wrong
    assert not found["macro_f1"].is_right_or_wrong


def test_resamples_of_macro_f1_are_computed_at_once_as_one_by_one():
    random = np.random.default_rng(0)
    given, wanted = random.integers(0, 5, (2, 3, 4, 20)).astype(float)
    statistic = of("text-classification", [{"label": "a"}], ("a",))["macro_f1"].statistic

    together = statistic(given, wanted)

    alone = [[statistic(given[i, j], wanted[i, j]) for j in range(4)] for i in range(3)]
    np.testing.assert_allclose(together, alone)


@pytest.mark.parametrize("seed", range(30))
def test_entities_and_their_f1_are_those_of_seqeval(seed):
    from seqeval.metrics import accuracy_score, f1_score
    from seqeval.metrics.sequence_labeling import get_entities

    draw = random.Random(seed)
    lengths = [draw.randrange(1, 12) for _ in range(20)]
    wanted, given = ([draw.choices(TAGS, k=length) for length in lengths] for _ in range(2))
    wanted[0], given[0] = ["B-PER", "I-PER", "O", "S-PER"], ["B-PER", "I-PER", "O", "S-PER"]

    found = of("token-classification", [{"tags": tags} for tags in given], [tuple(tags) for tags in wanted])

    for tags in given:
        ours = {(kind or "_", first, last) for kind, first, last in entities(tags)}
        assert ours == set(get_entities(tags))
    assert value(found["entity_f1"]) == pytest.approx(f1_score(wanted, given))
    assert value(found["token_accuracy"]) == pytest.approx(accuracy_score(wanted, given))
    assert len(found["entity_f1"].columns[0]) == 20  # a row is what is resampled


def test_rows_without_any_entity_have_no_f1_rather_than_zero():
    found = of("token-classification", [{"tags": ["O", "O"]}], [("O", "O")])

    assert np.isnan(value(found["entity_f1"]))
    assert value(found["token_accuracy"]) == 1
    counts = np.array([[[1, 0], [0, 0]], [[2, 0], [0, 0]], [[1, 1], [0, 0]]], float)
    np.testing.assert_array_equal(f1(*counts), [0.5, np.nan])


def test_tags_without_a_beginning_are_types_whose_neighbours_are_one_entity():
    assert entities(["PER", "PER", "O", "LOC", "PER"]) == {("PER", 0, 1), ("LOC", 3, 3), ("PER", 4, 4)}


@pytest.mark.parametrize(
    ("given", "label"),
    [("fuel", "fuel"), (2, "travel costs"), ("1", "rent"), ("LABEL_0", "fuel")],
)
def test_a_right_label_may_be_given_by_name_or_by_place(given, label):
    rows = [{"text": "a", "label": given}]

    assert gold("text-classification", rows, LABELS) == (label,)
    assert gold("token-classification", [{"tokens": ["a"], "tags": [given]}], LABELS) == ((label,),)


@pytest.mark.parametrize("given", [3, "LABEL_3", "-1", "Rent", "rents", True, 1.0, "²"])
def test_a_label_that_the_model_does_not_know_is_refused_with_the_nearest(given):
    rows = [{"text": "a", "label": "fuel"}, {"text": "a", "label": given}]

    with pytest.raises(EdgemlError, match=r"row 2 has the label .*, which the model does not know") as caught:
        gold("text-classification", rows, LABELS)
    assert caught.value.hint.endswith("all: fuel, rent, travel costs")
    if given in ("Rent", "rents"):
        assert "the nearest that it knows is 'rent'" in caught.value.hint


def test_a_name_that_looks_like_a_place_is_a_name():
    assert gold("text-classification", [{"text": "a", "label": "0"}], ("1", "0")) == ("0",)


@pytest.mark.parametrize("tags", [["O"], "O", "", "[]", "O O O", None, 7])
def test_a_row_with_more_or_fewer_tags_than_tokens_is_refused(tags):
    rows = [{"tokens": ["a", "b"], "tags": "O O"}, {"tokens": ["a", "b"], "tags": tags}]

    with pytest.raises(EdgemlError, match=r"row 2 has (\d tags for 2 tokens|no tags, others have)"):
        gold("token-classification", rows, TAGS)


@pytest.mark.parametrize("cell", [["two", "words"], '["two", "words"]', "two  words", " two words\n"])
def test_words_are_a_list_or_json_or_stand_between_spaces(cell):
    [row] = ready("token-classification", [{"tokens": cell, "tags": "O O"}], "x.csv")

    assert row["tokens"] == ["two", "words"]
    assert gold("token-classification", [row]) == (("O", "O"),)


def test_a_plain_text_is_cut_into_words_and_has_no_score():
    rows = ready("token-classification", [{"text": "[a b] 3"}, {"text": " "}], "x.txt")

    assert [row["tokens"] for row in rows] == [["[a", "b]", "3"], []]
    [absent] = unscored("token-classification", gold("token-classification", rows, TAGS))
    assert (absent.metric, absent.reason) == ("entity_f1", "the data has no column 'tags'")


@pytest.mark.parametrize("cell", [[1, 2], "[1, 2]", None, 4, ["a", None], {"a": 1}])
def test_tokens_that_are_no_words_are_refused_with_their_row(cell):
    rows = [{"tokens": "a b"}, {"tokens": cell}]

    with pytest.raises(EdgemlError, match=r"'tokens' in row 2 of x\.jsonl are no words"):
        ready("token-classification", rows, "x.jsonl")


@pytest.mark.parametrize("rows", [[{"words": "a"}], [{"tokens": "a"}, {"text": "a"}], [{"text": "a"}, {"tokens": "a"}]])
def test_rows_that_lack_the_column_of_the_first_are_refused(rows):
    with pytest.raises(EdgemlError, match=r"has no column '(tokens|text)' in row"):
        ready("token-classification", rows, "x.jsonl")


def test_answers_are_the_same_when_their_labels_are():
    assert scorer_of("text-classification").essence({"label": "rent", "score": 0.4}) == "rent"
    assert scorer_of("token-classification").essence({"tags": ["O", "B-LOC"]}) == "O B-LOC"
