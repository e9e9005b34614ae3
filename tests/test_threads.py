import pytest
from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.threads import candidates, fastest, parse_threads, sweep
from edgeml_runtime.machine import cores
from edgeml_runtime.types import Environment, Job, Outcome, Samples

JOB = Job(variant="v", task="text-generation", target="laptop", threads=2, warmups=1, repeats=0, seed=1)


def outcome(threads, rates):
    samples = tuple(
        Samples(
            metric=metric,
            unit="token/s",
            values=(value,),
            statistics=("median",),
            unit_of_sample="generation",
            method="",
        )
        for metric, value in rates.items()
    )
    here = Environment(machine="x", system="y", python="3", threads=threads, cores=4, libraries={})
    return Outcome(environment=here, samples=samples)


def test_every_small_count_is_tried_and_the_largest_of_all():
    assert list(candidates(2)) == [1, 2]
    assert list(candidates(9)) == [1, 2, 3, 4, 6, 8, 9]


def test_a_larger_count_must_be_clearly_faster():
    assert fastest("latency", {"1": 10.0, "2": 9.9}) == 1
    assert fastest("latency", {"1": 10.0, "2": 6.0, "4": 5.9}) == 2
    assert fastest("decode_rate", {"2": 34.7, "3": 31.2, "4": 29.9}) == 2


def test_prompt_and_answer_get_the_counts_that_are_fastest_for_each():
    asked = []

    def run(job, progress):
        asked.append(job)
        return outcome(job.threads, {"decode_rate": 30.0 / job.threads, "prefill_rate": 100.0 * job.threads})

    found = sweep(JOB, run, progress=silent)

    assert (found.threads, found.threads_prefill) == (1, max(candidates(cores())))
    assert found.tried["decode_rate"]["1"] == 30.0
    assert [job.threads for job in asked] == list(candidates(cores()))
    assert all(not job.answers and job.energy.meter == "off" and not job.checks for job in asked)


@pytest.mark.parametrize("text", ["0", "two", "-1", "1.5", ""])
def test_a_thread_count_that_is_none_is_refused(text):
    with pytest.raises(EdgemlError, match="--threads"):
        parse_threads(text)


def test_a_thread_count_is_a_number_or_auto_or_every_processor():
    assert [parse_threads(text) for text in ("3", "auto", None)] == [3, "auto", None]


@pytest.mark.parametrize("task", ["text-generation", "text2text-generation", "perplexity"])
def test_a_count_is_tried_by_a_few_generations_however_many_rows_there_are(task):
    asked = []

    def run(job, progress):
        asked.append(job)
        return outcome(job.threads, {"prefill_rate": 100.0, "decode_rate": 10.0})

    rows = tuple({"text": str(index)} for index in range(1000))
    sweep(replace(JOB, task=task, rows=rows, repeats=200), run, progress=silent)

    assert {job.repeats for job in asked} == {3}
    assert task == "perplexity" or {job.generate.past_end for job in asked} == {True}  # one prompt, made of all rows
