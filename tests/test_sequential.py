import pytest

from edgeml.errors import EdgemlError
from edgeml.sequential import drawn, joined, lacks_rows, part, require_parts
from edgeml.types import Dataset
from edgeml_runtime.types import Outcome, Samples, Vectors
from test_comparable import HERE, run


def outcome(answers, tokens, latency):
    def sample(metric, values, unit_of_sample):
        return Samples(
            metric=metric, unit="1", values=values, statistics=("mean",), unit_of_sample=unit_of_sample, method=""
        )

    return Outcome(
        environment=HERE,
        samples=(sample("latency", latency, "text"), sample("tokens", tokens, "row")),
        answers=answers,
        warnings=("cut",),
        vectors=Vectors(width=1, data=bytes(2 * len(answers))),
    )


def test_parts_join_to_one_run_whose_cost_is_the_first_parts():
    first = run(outcome=outcome((0.1, 0.2), (3.0, 4.0), (5.0,)), gold=(1.0, 2.0), slices={"genre": ("a", "b")})
    more = run(outcome=outcome((0.3,), (6.0,), (9.0,)), gold=(3.0,), slices={"genre": ("a",)})

    whole = joined(first, more)

    assert whole.outcome.answers == (0.1, 0.2, 0.3)
    assert whole.gold == (1.0, 2.0, 3.0)
    assert whole.slices == {"genre": ("a", "b", "a")}
    by_metric = {sample.metric: sample.values for sample in whole.outcome.samples}
    assert by_metric == {"latency": (5.0,), "tokens": (3.0, 4.0, 6.0)}
    assert len(whole.outcome.vectors.data) == 6
    assert whole.outcome.warnings == ("cut",)


def test_a_part_keeps_the_name_and_digest_of_the_whole():
    rows = ({"text": "a"}, {"text": "b"}, {"text": "c"})
    whole = Dataset(name="x.csv", sha256="0" * 64, rows=rows)

    assert part(whole, 1, 3).rows == rows[1:]
    assert part(whole, 0, 1).sha256 == whole.sha256


@pytest.mark.parametrize("task", ["feature-extraction", "perplexity"])
def test_a_task_whose_answers_need_all_of_the_data_cannot_stop_early(task):
    with pytest.raises(EdgemlError, match="cannot stop early"):
        require_parts(task)


def test_parts_of_a_sorted_file_are_drawn_and_keep_their_numbers():
    whole = Dataset(name="x.csv", sha256="0" * 64, rows=tuple({"text": str(index)} for index in range(1, 41)))

    found = part(drawn(whole, 20), 0, 10)

    assert [row["text"] for row in found.rows] == list(map(str, found.numbers))
    assert max(found.numbers) > 20
    assert drawn(whole, 20) == drawn(whole, 20) != drawn(whole, 21)


def sample(metric, values, unit_of_sample, statistic="mean"):
    return Samples(
        metric=metric, unit="1", values=values, statistics=(statistic,), unit_of_sample=unit_of_sample, method=""
    )


def parts(ours, theirs):
    pair = [
        run(outcome=Outcome(environment=HERE, samples=samples, answers=(0.5,) * 3), slices={"lang": ("a", "b", "a")})
        for samples in (ours, theirs)
    ]
    return {one.metric: one for one in joined(*pair).outcome.samples}


@pytest.mark.parametrize("theirs", [(), (sample("sensitivity.typos", (1.0, 1.0), "sampled row"),)])
def test_a_check_of_the_first_part_alone_is_of_sampled_rows_and_never_one_value_a_row(theirs):
    found = parts((sample("sensitivity.typos", (0.0, 1.0, 0.0), "row"),), theirs)

    assert (found["sensitivity.typos"].unit_of_sample, found["sensitivity.typos"].values) == (
        "sampled row",
        (0.0, 1.0, 0.0),
    )


def test_what_is_counted_over_the_data_is_added_up():
    found = parts((sample("truncated", (2.0,), "dataset", "sum"),), (sample("truncated", (3.0,), "dataset", "sum"),))

    assert found["truncated"].values == (5.0,)


def test_counts_in_warnings_are_those_of_all_parts():
    def told(*warnings):
        return run(outcome=Outcome(environment=HERE, samples=(), warnings=warnings))

    first = told(
        "1 of 100 answers were cut at 128 tokens",
        "2 of 200 texts in 100 rows are cut at 128 tokens",
        "prompts are plain",
        "4 of 100 answers hold no value: the first is row 7",
    )
    more = told(
        "1 of 100 answers were cut at 128 tokens",
        "5 of 206 texts in 103 rows are cut at 128 tokens",
        "prompts are plain",
        "3 of 103 answers say nothing",
        "2 of 103 answers hold no value: the first is row 40",
    )

    assert joined(first, more).outcome.warnings == (
        "2 of 200 answers were cut at 128 tokens",
        "7 of 406 texts in 203 rows are cut at 128 tokens",
        "prompts are plain",
        "6 of 203 answers hold no value: the first is row 7",
        "3 of 103 answers say nothing",
    )


@pytest.mark.parametrize(("rare", "lacks"), [(9, True), (10, False), (0, True)])
def test_a_slice_of_the_whole_data_with_too_few_rows_so_far_is_noticed(rare, lacks):
    whole = {"lang": ("en",) * 90 + ("fi",) * 10}

    assert lacks_rows({"lang": ("en",) * 90 + ("fi",) * rare}, whole) is lacks
    assert not lacks_rows({}, {})
