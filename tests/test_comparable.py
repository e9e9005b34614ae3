import msgspec
import pytest

from edgeml.comparable import differing_machine, differing_question, require_comparable
from edgeml.errors import EdgemlError
from edgeml.types import Run
from edgeml_runtime.types import Environment, Generate, Outcome

HERE = Environment(
    machine="x86_64", system="Linux 6.1", python="3.11.2", threads=2, cores=2, libraries={"onnxruntime": "1.32.0"}
)


def run(environment=HERE, **fields):
    own = {
        "variant": "tiny/onnx-fp32",
        "variant_sha256": "0" * 64,
        "target": "laptop",
        "how": "measured",
        "task": "feature-extraction",
        "started": "2026-11-20T10:00:00.000+00:00",
        "dataset": "lines.csv",
        "dataset_sha256": "1" * 64,
        "seed": 20,
        "repeats": 200,
        "warmups": 10,
        "batch_size": 32,
        "context_tokens": 512,
        "generate": Generate(),
        "outcome": Outcome(environment=environment, samples=()),
    }
    return Run(**own | fields)


def test_runs_of_the_same_question_on_the_same_machine_are_comparable():
    require_comparable(run(), run(variant="tiny/onnx-int8", repeats=50))


def test_a_comparison_across_machines_is_refused_and_every_differing_key_is_named():
    there = msgspec.structs.replace(
        HERE, machine="aarch64", governor="ondemand", libraries={"onnxruntime": "1.22.0", "numpy": "2.4"}
    )

    with pytest.raises(EdgemlError, match="another machine") as caught:
        require_comparable(run(), run(there))

    for words in (
        "machine x86_64, not aarch64",
        "governor unknown, not ondemand",
        "onnxruntime 1.32.0, not 1.22.0, numpy missing, not 2.4",
    ):
        assert words in caught.value.message


def test_runs_on_other_data_or_with_other_options_are_refused():
    with pytest.raises(EdgemlError, match="dataset_sha256"):
        require_comparable(run(), run(dataset_sha256="2" * 64))
    with pytest.raises(EdgemlError, match="was asked something else: generate"):
        require_comparable(run(), run(generate=Generate(max_new_tokens=5)))
    with pytest.raises(EdgemlError, match="target laptop, not pi5"):
        require_comparable(run(), run(target="pi5"))


def test_a_patch_of_python_changes_nothing_that_is_measured():
    assert differing_machine(HERE, msgspec.structs.replace(HERE, python="3.11.9")) == []


def test_runs_that_sampled_rows_otherwise_are_refused():
    with pytest.raises(EdgemlError, match="seed 20, not 21; batch_size 32, not 4"):
        require_comparable(run(), run(seed=21, batch_size=4))


def test_a_run_that_stopped_early_is_no_run_of_the_whole_file():
    def answered(count, **fields):
        return run(outcome=Outcome(environment=HERE, samples=(), answers=(0.5,) * count), **fields)

    whole, stopped = answered(4), answered(2, numbers=(4, 1))

    assert differing_question(whole, stopped) == ["answers 4, not 2", "order that of the file, not drawn"]
    assert differing_question(whole, answered(4, numbers=(4, 1, 2, 3))) == ["order that of the file, not drawn"]
    assert differing_question(stopped, answered(2, numbers=(4, 1))) == []
