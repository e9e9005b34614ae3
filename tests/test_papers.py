"""Papers of a bundle: what they say is so, is the same each time, and holds no row of anybody's data."""

from __future__ import annotations

import json

import msgspec
import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from huggingface_hub import DatasetCard

from edgeml.errors import EdgemlError
from edgeml.package import bundle_path, package
from edgeml.papers import bom, origin
from edgeml.papers.data_card import data_card
from edgeml.papers.evidence import Evidence, evidence
from edgeml.papers.own import card_notes, data_notes
from edgeml.papers.wheel_papers import copy_texts, packed
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Measurement, Report, Run
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.records import describe, read_record, sha256
from edgeml_runtime.types import Environment, File, Generate, Outcome
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

ROWS = "text\tlabel\tlanguage\nsecret one\tspam\tde\nsecret two\tham\tde\nsecret three\tspam\ten\n"


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


@pytest.fixture
def variant(store):
    return onnx_variant(store.variant_folder("tiny", "onnx-fp32"))


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "mine.tsv"
    path.write_text(ROWS)
    return path


def a_run(variant, data=None, **more):
    asked = {
        "variant": variant.name,
        "variant_sha256": variant.manifest.weights_sha256,
        "target": "laptop",
        "how": "measured",
        "task": "text-classification",
        "started": "2026-01-01T00:00:00+00:00",
        "dataset": "mine.tsv",
        "dataset_sha256": sha256(data) if data else "d" * 64,
        "dataset_path": str(data) if data else None,
        "seed": 20,
        "repeats": 1,
        "warmups": 0,
        "batch_size": 1,
        "context_tokens": 8,
        "generate": Generate(),
        "gold": ("spam", "ham", "spam"),
        "slices": {"language": ("de", "de", "en")},
        "outcome": Outcome(
            environment=Environment(machine="x", system="x", python="3", threads=1, cores=1, libraries={}),
            samples=(),
            answers=({"label": "spam"}, {"label": "ham"}, {"label": "ham"}),
        ),
    }
    return Run(**asked | more)


def bill(variant, wheels=(), found=None, **more):
    manifest = msgspec.structs.replace(variant.manifest, **more)
    runtime = (File(path="edgeml_runtime/a.py", size_bytes=1, sha256="a" * 64),)
    parts = bom.Parts(
        name="b", manifest=manifest, wheels=wheels, runtime_files=runtime, found=found or Evidence(runs=())
    )
    return bom.bill(parts)


def faults(text):
    return JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)


def test_the_bill_of_materials_keeps_to_its_schema_and_is_the_same_each_time(variant, data, tmp_path):
    wheels = (packed(write_wheel(tmp_path / "wheels", {"x.py": b""})),)
    one = measurement("accuracy", slice="language=de", low=0.5, high=0.9)
    found = Evidence(measurements=(one,), runs=(a_run(variant, data),))
    text = bill(variant, wheels, found, calibration_sha256="c" * 64, source_quantized="Q4_1")
    assert faults(text) is None
    assert text == bill(variant, wheels, found, calibration_sha256="c" * 64, source_quantized="Q4_1")
    assert "timestamp" not in text
    serials = {json.loads(one)["serialNumber"] for one in (text, bill(variant, wheels))}
    assert len(serials) == 2


def measurement(metric, **more):
    known = {
        "variant": "tiny/onnx-fp32", "target": "laptop", "how": "measured", "task": "text-classification",
        "metric": metric, "unit": "1", "value": 0.7, "n": 3, "statistic": "mean", "provenance": {},
    }  # fmt: skip
    return Measurement(**known | more)


def test_the_bill_names_every_file_of_the_model_and_every_wheel_with_its_digest(variant, tmp_path):
    wheel = write_wheel(tmp_path / "wheels", {"x.py": b""}, name="a-wheel")
    text = bill(variant, (packed(wheel),))
    assert bom.listed(text) == {
        **{f"variant/{file.path}": file.sha256 for file in variant.manifest.files},
        f"wheels/{wheel.name}": sha256(wheel),
    }
    library = next(one for one in json.loads(text)["components"] if one["name"] == "a-wheel")
    assert library["licenses"] == [{"license": {"id": "MIT"}}]
    assert library["purl"] == "pkg:pypi/a-wheel@1.0"


def test_the_bill_says_from_what_and_how_the_weights_were_made(variant, data):
    found = Evidence(measurements=(measurement("accuracy", low=0.5, high=0.9),), runs=(a_run(variant, data),))
    plain = json.loads(bill(variant, found=found, calibration_sha256="c" * 64))
    model = next(one for one in plain["components"] if one["type"] == "machine-learning-model")
    (base,) = model["pedigree"]["ancestors"]
    assert base["purl"] == "pkg:pypi/tiny-model@1.0"
    assert base["components"][0]["hashes"] == [{"alg": "SHA-256", "content": "0" * 64}]
    assert {one["name"]: one["value"] for one in model["properties"]}["edgeml:scheme"] == "onnx:fp32"
    assert model["modelCard"]["quantitativeAnalysis"]["performanceMetrics"] == [
        {
            "type": "accuracy (mean, measured on laptop)",
            "value": "0.7",
            "confidenceInterval": {"lowerBound": "0.5", "upperBound": "0.9"},
        }
    ]
    used = [one["hashes"][0]["content"] for one in plain["components"] if one["type"] == "data"]
    assert sorted(used) == sorted(["c" * 64, sha256(data)])


@pytest.mark.parametrize("model", ["local:acme-model", "hf:org/name@0123abc"])
def test_a_base_from_anywhere_is_named(variant, model):
    text = bill(variant, model=model, licence="our-own-1.0")
    assert faults(text) is None
    assert '"name": "our-own-1.0"' in text


def test_a_data_card_counts_labels_and_slices_and_holds_no_row(variant, data):
    (data.parent / "mine.yaml").write_text(
        "origin: our mailbox\nlicence: cc-by-4.0\nsplit: test\nlanguages: [de, en]\n"
    )
    card = data_card(Evidence(runs=(a_run(variant, data),)))
    for words in ("| spam | 2 |", "| language | de | 2 |", "| columns | text, label, language |", "our mailbox",
                  sha256(data), "| rows that were read | 3 |"):  # fmt: skip
        assert words in card
    assert "secret" not in card
    assert DatasetCard(card).data.to_dict() == {
        "language": ["de", "en"],
        "license": ["cc-by-4.0"],
        "task_categories": ["text-classification"],
        "pretty_name": "Data that judged this model",
    }


def test_right_answers_that_are_texts_stay_out_of_the_data_card(variant, data):
    run = a_run(variant, data, task="text-generation", gold=("secret answer",) * 3)
    assert "secret" not in data_card(Evidence(runs=(run,)))


def test_a_data_card_says_that_nothing_was_measured_or_that_the_file_is_gone(variant, data):
    assert "Nothing was measured" in data_card(Evidence())
    run = a_run(variant, data)
    data.unlink()
    assert "no longer where it was read" in data_card(Evidence(runs=(run,)))


def test_data_that_calibrated_and_judged_the_model_is_told_of(variant, data):
    card = data_card(Evidence(runs=(a_run(variant, data),)), calibration_sha256=sha256(data))
    assert "its figures are not to be trusted" in card


def test_an_unknown_key_in_what_the_user_says_is_refused(tmp_path, data):
    (tmp_path / "card.yaml").write_text("intended_uses: x\n")
    with pytest.raises(EdgemlError, match="intended_uses"):
        card_notes(tmp_path)
    (tmp_path / "data.yaml").write_text("about: all files here\n")
    assert data_notes(data).about == "all files here"
    assert data_notes(None).about is None


def test_evidence_is_of_exactly_these_weights_and_an_estimate_counts_with_its_bench(store, variant):
    mine = {"variant_sha256": variant.manifest.weights_sha256}
    old, new = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+00:00"
    other = measurement("accuracy", value=0.1, provenance={"variant_sha256": "other"})
    store.add_report("tiny", Report(started=new, measurements=(other,)))
    store.add_report("tiny", Report(started=old, measurements=(measurement("accuracy", provenance=mine),)))
    for time, value in ((old, 5.0), (new, 6.0)):
        guess = measurement("latency", how="estimated", target="pi5", value=value)
        store.add_report("tiny", Report(started=time, measurements=(guess,)))
    found = evidence(variant, store)
    assert [(one.metric, one.value) for one in found.measurements] == [("accuracy", 0.7), ("latency", 5.0)]


def test_a_run_that_no_report_tells_of_counts_too(store, variant, data):
    store.add_run(a_run(variant, data))
    found = evidence(variant, store)
    assert {one.metric for one in found.measurements} >= {"accuracy", "size"}
    assert {one.slice for one in found.measurements} == {None, "language=de", "language=en"}
    assert [run.dataset for run in found.runs] == ["mine.tsv"]


def test_provenance_names_the_pinned_source_and_neither_a_person_nor_a_folder(variant):
    recipe = {"download": "/home/alice/model", "bench": {"data": "/home/alice/data.tsv", "task": "x"}}
    made = origin.provenance(variant.manifest, "pi5", (), recipe=recipe)
    assert made.source_files == variant.manifest.source_files
    assert made.weights_sha256 == variant.manifest.weights_sha256
    assert made.recipe == {"bench": {"data": "data.tsv", "task": "x"}, "download": "model"}
    assert "alice" not in msgspec.json.encode(made).decode()


def test_a_fix_of_the_runtime_leaves_the_models_digest_as_it_was(store, variant):
    bundle = package(variant, store=store, profile=profile(None), kind="dir", wheels=False)
    files = describe(bundle_path(store, bundle))
    fixed = [msgspec.structs.replace(one, sha256="f" * 64) if one.path == "run.sh" else one for one in files]
    assert origin.parts(files) == bundle.parts == read_record(bundle_path(store, bundle) / "bundle.json", Bundle).parts
    assert origin.parts(fixed)["model"] == bundle.parts["model"]
    assert origin.parts(fixed)["runtime"] != bundle.parts["runtime"]
    neither = [one.path for one in files if origin.part_of(one.path) is None]
    assert neither == ["SHA256SUMS", "bom.cdx.json", "bundle.json", "provenance.json"]


def test_the_texts_of_wheels_travel_once_and_a_standard_one_where_there_is_none(tmp_path):
    first = write_wheel(tmp_path / "a", {"x/LICENSE.txt": b"beside the code"}, name="one", tag="cp311-none-any")
    again = write_wheel(tmp_path / "b", {"x.py": b""}, name="one", tag="cp313-none-any")
    copy_texts([first, again], tmp_path / "bundle")
    texts = {file.path for file in describe(tmp_path / "bundle" / "licences" / "runtime")}
    assert texts == {"edgeml_runtime/LICENSE", "one/LICENSE", "one/LICENSE.txt"}
