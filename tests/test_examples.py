from edgeml.examples import MOST, examples
from edgeml.types import Run
from edgeml_runtime.types import Environment, Generate, Outcome

MACHINE = Environment(machine="x86_64", system="Linux", python="3.11", threads=1, cores=2, libraries={})


def run(answers, *, task="text-classification", variant="tiny/onnx-int8", gold=(), schema=None):
    return Run(
        variant=variant,
        variant_sha256="0",
        target="laptop",
        how="measured",
        task=task,
        started="2026-01-01T00:00:00.000+00:00",
        dataset="lines.csv",
        dataset_sha256="1",
        seed=20,
        repeats=1,
        warmups=0,
        batch_size=32,
        context_tokens=512,
        generate=Generate(schema=schema),
        outcome=Outcome(environment=MACHINE, samples=(), answers=tuple(answers)),
        gold=tuple(gold),
    )


def generated(text):
    return {"text": text, "finish_reason": "stop", "tokens": 3}


def labels(*names):
    return [{"label": name, "score": 0.5} for name in names]


def test_of_flipped_rows_those_that_became_wrong_come_first_and_rows_count_from_one():
    base = run(labels("a", "b", "a", "b"), variant="tiny/onnx-fp32", gold="aaab")
    own = run(labels("a", "a", "b", "b"), gold="aaab")

    found = examples(own, base)

    assert [(one.row, one.baseline_answer, one.answer, one.expected) for one in found] == [
        (3, "a", "b", "a"),  # was right
        (2, "b", "a", "a"),  # became right
    ]
    assert {(one.kind, one.variant, one.baseline) for one in found} == {("flipped", "tiny/onnx-int8", "tiny/onnx-fp32")}


def test_without_right_answers_the_first_flipped_rows_are_shown_and_no_more_than_a_few():
    found = examples(run(labels(*"b" * 9)), run(labels(*"a" * 9)))

    assert [one.row for one in found] == list(range(1, MOST + 1))
    assert {one.expected for one in found} == {None}


def test_pairs_whose_cosine_moved_most_come_first_and_those_that_hardly_moved_not_at_all():
    base, own = [0.5, 0.5, 0.5, 0.5], [0.50001, 0.6, 0.2, 0.5]

    gold = (5.0, 4.0, 3.0, 2.0)

    found = examples(*(run(cosines, task="sentence-similarity", gold=gold) for cosines in (own, base)))

    assert [(one.row, one.baseline_answer, one.answer) for one in found] == [
        (3, "0.500", "0.200"),
        (2, "0.500", "0.600"),
    ]
    assert {one.expected for one in found} == {None}


def test_another_nearest_row_is_shown_by_its_label_where_that_differs():
    base, own = ([{"nearest": row, "cosine": 0.5} for row in rows] for rows in ((1, 0, 0), (2, 2, 1)))
    gold = ("rent", "rent", "fuel")

    found = examples(run(own, task="feature-extraction", gold=gold), run(base, task="feature-extraction", gold=gold))

    assert [(one.row, one.baseline_answer, one.answer, one.expected) for one in found] == [
        (1, "rent", "fuel", "rent"),
        (2, "rent", "fuel", "rent"),
        (3, "row 1", "row 2", None),
    ]


def test_a_right_answer_is_written_as_the_answer_is_so_that_they_can_be_compared():
    own = run([generated('{"b": 1, "a": 2}')], task="text-generation", gold=('{ "a":2,"b":1 }',))
    [found] = examples(own, run([generated("no")], task="text-generation", gold=own.gold))
    tags = [
        run([{"tags": names}], task="token-classification", gold=(("O", "B-LOC"),)) for names in ("OO", ["O", "B-LOC"])
    ]
    [tagged] = examples(tags[1], tags[0])

    assert found.answer == found.expected == '{"a": 2, "b": 1}'
    assert tagged.answer == tagged.expected == "O B-LOC"


def test_invented_values_are_shown_with_their_place_without_any_baseline():
    invented = {"ungrounded": [["zip", "123"], ["a.b", "7"]]}
    answers = [generated("{}"), generated('{"zip": "123"}') | invented]

    found = examples(run(answers, task="text-generation"), None)

    assert [(one.kind, one.row, one.answer) for one in found] == [
        ("ungrounded", 2, "zip: 123"),
        ("ungrounded", 2, "a.b: 7"),
    ]


def test_an_answer_that_is_not_of_the_schema_is_shown_as_it_is():
    answers = [generated('{"zip": "1"}'), generated("I think it is")]

    found = examples(run(answers, task="text-generation", schema={"type": "object"}), None)

    assert [(one.kind, one.row, one.answer) for one in found] == [("invalid", 2, "I think it is")]


def test_equal_answers_give_no_example():
    assert examples(run(labels("a")), run(labels("a"))) == []
