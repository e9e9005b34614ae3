"""Model cards: the Hub reads their metadata, and a person what is known and what is not."""

from __future__ import annotations

import msgspec
import pytest
from huggingface_hub import ModelCard

from edgeml.papers.evidence import Evidence
from edgeml.papers.model_card import model_card
from edgeml.papers.own import CardNotes
from edgeml.targets import profile
from edgeml.types import Difference, Measurement, Verdict
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


def found(*measurements, **more):
    return Evidence(measurements=measurements, **more)


def section(card, title):
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_metadata_is_read_by_the_hubs_own_class(manifest):
    card = ModelCard(model_card(manifest, profile("pi5"), found=found(measured("spearman"), measured("latency"))))
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


@pytest.mark.parametrize(
    ("built_for", "target", "said"),
    [
        ("arm64", "pi5", "Its integer weights were made for arm64."),  # the same weights as for that target
        ("x86-64-avx2", "pi5", "Made for x86-64-avx2, not for this target's arm64-dotprod, where its weights have 7"),
        ("arm64", "laptop", "Made for arm64, not for this target's x86-64-avx2, where sums of its 8-bit weights may"),
    ],
)
def test_limits_tell_what_weights_for_another_processor_cost(manifest, built_for, target, said):
    card = model_card(msgspec.structs.replace(manifest, built_for=built_for), profile(target))
    assert said in section(card, "Limits")


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
    card = model_card(manifest, profile("pi5"), found=found(measured("spearman", low=0.8, high=0.83, level=0.95)))
    row = next(line for line in section(card, "Measurements").splitlines() if line.startswith("| spearman"))
    assert row == "| spearman | 0.818765 | 0.8 to 0.83 (95%) |  | spearman | 1379 | pi5 | measured | dev.tsv |"


def test_what_was_not_measured_is_listed_with_reasons(manifest):
    bare = section(model_card(manifest, profile("pi5")), "Not measured")
    for words in ("accuracy on any task", "latency on pi5", "memory on pi5", "energy on pi5"):
        assert words in bare
    absent = (Absent(metric="energy", reason="no sensor here", hint="x"),)
    taken = [measured("spearman"), measured("latency"), measured("memory_peak_pss")]
    rest = section(model_card(manifest, profile("pi5"), found=found(*taken, absent=absent)), "Not measured")
    assert "accuracy" not in rest
    assert "latency" not in rest
    assert "energy: no sensor here" in rest


def test_speed_on_another_machine_does_not_count_as_the_targets(manifest):
    card = model_card(manifest, profile("pi5"), found=found(measured("latency", target="laptop")))
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


def difference(metric, change, **more):
    names = {"variant": "tiny/onnx-fp32", "baseline": "tiny/onnx-fp16", "target": "pi5", "unit": "", "n": 1379}
    return Difference(metric=metric, difference=change, **names | more)


def test_the_machine_readable_index_says_of_which_data_and_that_nobody_verified_it(manifest):
    one = measured("spearman", provenance={"dataset": "dev.tsv", "dataset_sha256": "d" * 64})
    card = ModelCard(model_card(manifest, profile("pi5"), found=found(one)))
    (result,) = card.data.eval_results
    assert (result.dataset_revision, result.verified) == ("d" * 64, False)
    assert result.metric_name == "spearman, spearman, on pi5"


def test_slices_show_their_drop_and_the_worst_is_named(manifest):
    slices = [
        measured("spearman", slice="language=de", value=0.8),
        measured("spearman", slice="language=en", value=0.7),
    ]
    drops = (difference("spearman", -0.02, slice="language=de"), difference("spearman", -0.01, slice="language=en"))
    text = section(model_card(manifest, profile("pi5"), found=found(*slices, differences=drops)), "Slices")
    assert "| language=de (worst) | 0.8 |  | -0.02 |" in text
    assert "| language=en | 0.7 |" in text
    alone = section(model_card(manifest, profile("pi5"), found=found(*slices)), "Slices")
    assert "language=en (worst)" in alone  # without a baseline, the least
    assert "language" not in section(model_card(manifest, profile("pi5"), found=found(*slices)), "Measurements")


def test_a_verdict_that_cannot_tell_says_what_would(manifest):
    verdict = Verdict(
        variant="tiny/onnx-fp32", target="pi5", metric="spearman", statistic="spearman", unit="1",
        verdict="cannot tell", bound=-0.01, n=100, level=0.95, method="bootstrap", n_needed=900, reason="too few rows",
    )  # fmt: skip
    drop = difference("spearman", -0.004, low=-0.02, high=0.01, level=0.95)
    card = model_card(manifest, profile("pi5"), found=found(differences=(drop,), verdicts=(verdict,)))
    assert "| **cannot tell** | too few rows; about 900 rows would tell |" in section(card, "Verdicts")
    assert "| -0.004 | -0.02 to 0.01 (95%) |" in section(card, "Against the baseline")


def test_emulated_and_estimated_figures_stand_apart_and_count_as_nothing_measured(manifest):
    emulated = measured("accuracy", how="emulated")
    estimated = measured("energy", how="estimated", unit="J", provenance={"sources": "a table of 2026"})
    card = model_card(manifest, profile("pi5"), found=found(emulated, estimated))
    titles = [line for line in section(card, "Measurements").splitlines() if line.startswith("### ")]
    assert titles == ["### pi5, emulated: its instructions ran under an emulator", "### pi5, estimated"]
    assert "Nothing ran: calculated from published figures (a table of 2026)" in section(card, "Measurements")
    assert "accuracy on any task" in section(card, "Not measured")
    assert "energy on pi5" in section(card, "Not measured")
    assert "estimated on pi5; source: a table of 2026" in section(card, "Energy")
    assert ModelCard(card).data.eval_results is None


def test_what_only_the_user_can_say_is_named_as_missing_or_said(manifest):
    assert "Not stated: intended use, out of scope" in section(model_card(manifest, profile("pi5")), "Use")
    notes = CardNotes(intended_use="Sorting our mail.", languages=("de",))
    card = model_card(manifest, profile("pi5"), notes=notes)
    assert "**Intended use.** Sorting our mail." in section(card, "Use")
    assert "Not stated: out of scope" in section(card, "Use")
    assert ModelCard(card).data.language == ["de"]


def test_a_name_with_a_bar_or_a_line_break_breaks_no_table(manifest):
    one = measured("spearman", provenance={"dataset": "a|b\n## c.tsv"})
    card = model_card(manifest, profile("pi5"), found=found(one))
    assert "a\\|b ## c.tsv |" in section(card, "Measurements")
