"""Model cards: the Hub reads their metadata, and a person what is known and what is not."""

from __future__ import annotations

import msgspec
import pytest
from huggingface_hub import ModelCard

from edgeml.cards import model_card
from edgeml.targets import profile
from edgeml.types import Measurement
from edgeml_runtime.types import Absent, Environment
from tiny.variants import onnx_variant


@pytest.fixture
def manifest(tmp_path):
    return onnx_variant(tmp_path / "variant").manifest


def measured(metric, *, target="pi5", **changed):
    values = {
        "variant": "tiny/onnx-fp32",
        "target": target,
        "how": "measured",
        "task": "sentence-similarity",
        "metric": metric,
        "unit": "",
        "value": 0.8187654321,
        "n": 1379,
        "statistic": "spearman",
        "provenance": {"dataset": "dev.tsv"},
        "environment": Environment(machine="x", system="x", python="3", threads=1, cores=1, libraries={}),
    }
    return Measurement(**values | changed)


def section(card, title):
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_metadata_is_read_by_the_hubs_own_class(manifest):
    card = ModelCard(model_card(manifest, profile("pi5"), measurements=[measured("spearman"), measured("latency")]))
    data = card.data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["pipeline_tag"] == "sentence-similarity"
    assert {"edgeml", "onnx", "fp32", "pi5"} == set(data["tags"])
    results = card.data.eval_results
    assert [(one.metric_type, one.metric_value, one.dataset_name) for one in results] == [
        ("spearman", 0.8187654321, "dev.tsv")
    ]
    assert "base_model" not in data


def test_a_model_of_the_hub_is_named_as_the_base(manifest):
    pinned = msgspec.structs.replace(manifest, model="hf:org/name@0123")
    assert ModelCard(model_card(pinned, profile("pi5"))).data.base_model == "org/name"


def test_a_licence_is_written_as_the_hub_does(manifest):
    card = model_card(msgspec.structs.replace(manifest, licence="Apache-2.0"), profile("pi5"))
    assert ModelCard(card).data.license == "apache-2.0"


def test_a_decoders_limit_counts_the_answer_too(manifest):
    card = model_card(msgspec.structs.replace(manifest, task="text-generation"), profile("pi5"))
    assert "Text and answer together" in section(card, "Limits")


def test_a_licence_that_is_not_stated_is_not_made_up(manifest):
    card = model_card(msgspec.structs.replace(manifest, licence=None), profile("pi5"))
    assert "not stated" in card
    assert "license" not in ModelCard(card).data.to_dict()


def test_measurements_show_interval_place_and_data(manifest):
    card = model_card(manifest, profile("pi5"), measurements=[measured("spearman", low=0.8, high=0.83, level=0.95)])
    row = next(line for line in section(card, "Measurements").splitlines() if line.startswith("| spearman"))
    assert row == "| spearman | 0.818765 | 0.8 to 0.83 (95%) |  | spearman | 1379 | pi5 | measured | dev.tsv |"


def test_what_was_not_measured_is_listed_with_reasons(manifest):
    bare = section(model_card(manifest, profile("pi5")), "Not measured")
    for words in ("accuracy on any task", "latency on pi5", "memory on pi5", "energy on pi5"):
        assert words in bare
    absent = [Absent(metric="energy", reason="no sensor here", hint="x")]
    taken = [measured("spearman"), measured("latency"), measured("memory_peak_pss")]
    rest = section(model_card(manifest, profile("pi5"), measurements=taken, absent=absent), "Not measured")
    assert "accuracy" not in rest
    assert "latency" not in rest
    assert "energy: no sensor here" in rest


def test_speed_on_another_machine_does_not_count_as_the_targets(manifest):
    card = model_card(manifest, profile("pi5"), measurements=[measured("latency", target="laptop")])
    assert "latency on pi5" in section(card, "Not measured")
    assert "laptop say nothing of speed or memory on: Raspberry Pi 5" in section(card, "Measurements")


def test_a_label_that_is_not_earned_is_said_with_its_reasons(manifest):
    audit = msgspec.structs.replace(manifest.audit, earned=False, shortfalls=("the embedding is in fp32",))
    card = model_card(msgspec.structs.replace(manifest, audit=audit, source_quantized="Q4_1"), profile("pi5"))
    assert "**The label `onnx:fp32` is not earned:**" in card
    assert "- the embedding is in fp32" in card
    assert "already quantized (Q4_1)" in section(card, "Limits")
    assert "32 tokens" in section(card, "Limits")


def test_the_source_is_pinned_by_the_digest_of_each_file(manifest):
    assert manifest.source_files[0].sha256 in section(model_card(manifest, profile("pi5")), "Source files")
