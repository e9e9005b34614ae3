import pytest

from edgeml.errors import EdgemlError
from edgeml.scores import gold, scores, unscored
from edgeml_runtime.types import Generate


def test_nearest_accuracy_counts_equal_labels():
    answers = [{"nearest": 1, "cosine": 0.9}, {"nearest": 0, "cosine": 0.8}, {"nearest": 0, "cosine": 0.7}]

    [score] = scores("feature-extraction", answers, ("rent", "rent", "fuel"), Generate())

    assert (score.metric, score.columns) == ("nearest_accuracy", ((1.0, 1.0, 0.0),))


@pytest.mark.parametrize("label", [1, 1.5, True, ["a"]])
def test_a_label_need_not_be_a_string_to_be_equal(label):
    expected = gold("feature-extraction", [{"text": "a", "label": label}, {"text": "b", "label": label}])

    answers = [{"nearest": 1, "cosine": 0.9}, {"nearest": 0, "cosine": 0.9}]
    [score] = scores("feature-extraction", answers, expected, Generate())

    assert score.columns == ((1.0, 1.0),)


def test_generated_json_matches_whatever_its_spacing_and_key_order():
    texts = ('{"b": 2,\n "a": 1}', '{"a": 1, "b": 3}', '{"a": 1')
    answers = [{"text": text, "finish_reason": "stop"} for text in texts]
    expected = gold("text-generation", [{"text": "x", "expected": {"a": 1, "b": 2}}] * 3)

    by_name = {score.metric: score.columns[0] for score in scores("text-generation", answers, expected, Generate())}

    assert by_name["contract.valid"] == (1.0, 1.0, 0.0)
    assert by_name["exact_match"] == (1.0, 0.0, 0.0)


def test_a_score_that_is_no_number_is_refused_with_its_row():
    rows = [{"sentence1": "a", "sentence2": "b", "score": "3.5"}, {"sentence1": "a", "sentence2": "b", "score": "high"}]

    with pytest.raises(EdgemlError, match="row 2 has score 'high'"):
        gold("sentence-similarity", rows)


def test_data_without_right_answers_makes_accuracy_absent_with_a_reason():
    expected = gold("feature-extraction", [{"text": "a", "category": "x"}])

    [absent] = unscored("feature-extraction", expected)

    assert (absent.metric, expected) == ("nearest_accuracy", ())
    assert "--columns YOURS=label" in absent.hint


def test_equal_scores_are_refused_since_nothing_correlates_with_them():
    with pytest.raises(EdgemlError, match="same score"):
        gold("sentence-similarity", [{"sentence1": "a", "sentence2": "b", "score": 1}] * 3)


@pytest.mark.parametrize("value", ["nan", "inf", float("nan"), 1e999, [1], {"a": 1}])
def test_a_score_that_is_not_finite_or_not_one_number_is_refused_with_its_row(value):
    rows = [{"sentence1": "a", "sentence2": "b", "score": 1}, {"sentence1": "a", "sentence2": "b", "score": value}]

    with pytest.raises(EdgemlError, match=r"row 2 has score .*, which is no finite number"):
        gold("sentence-similarity", rows)


@pytest.mark.parametrize("lacking", [{}, None])
@pytest.mark.parametrize(
    ("task", "column"),
    [("sentence-similarity", "score"), ("feature-extraction", "label"), ("text-generation", "expected")],
)
@pytest.mark.parametrize("place", [0, 2])
def test_a_right_answer_that_some_rows_lack_is_refused_with_the_first_of_them(task, column, lacking, place):
    rows = [{column: 1}, {column: 2}, {column: 3}]
    rows[place] = {} if lacking == {} else {column: None}

    with pytest.raises(EdgemlError, match=f"row {place + 1} has no {column}"):
        gold(task, rows)


def test_a_column_of_nothing_but_null_is_no_column():
    assert gold("feature-extraction", [{"text": "a", "label": None}] * 2) == ()


@pytest.mark.parametrize("blank", ["", "  ", None])
def test_a_blank_cell_is_no_right_answer(blank):
    with pytest.raises(EdgemlError, match="row 2 has no label, others have"):
        gold("feature-extraction", [{"text": "a", "label": "x"}, {"text": "b", "label": blank}])
    assert gold("feature-extraction", [{"text": "a", "label": blank}, {"text": "b", "label": blank}]) == ()
