import os
import subprocess
import sys

import pytest

from edgeml.errors import EdgemlError
from edgeml.store import Store, cache_folder, fresh_folder, scratch_folder, take_place
from edgeml.types import Measurement, Model, ModelRef, Report
from edgeml_runtime.records import write_record
from edgeml_runtime.types import Audit, Environment, VariantManifest

AUDIT = Audit(parameters=1, bits_per_weight=8.0, tensor_types={}, share_quantized=1.0, earned=True)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


def add_model(store, name, *, ref=None, downloaded="2026-01-01T00:00:00Z"):
    model = Model(name=name, ref=ref or f"hf:org/{name}@abc", path="x", files=(), format="onnx", downloaded=downloaded)
    store.add_model(model)
    return model


def add_variant(store, name):
    model, _, folder_name = name.partition("/")
    manifest = VariantManifest(
        name=name,
        model=model,
        scheme=folder_name.replace("-", ":", 1),
        task="feature-extraction",
        architecture="BertModel",
        weights="model.onnx",
        files=(),
        source_files=(),
        audit=AUDIT,
        max_tokens=8,
    )
    write_record(store.variant_folder(model, folder_name) / "variant.json", manifest)


def test_no_model_named_means_the_newest(store):
    add_model(store, "old", downloaded="2026-01-01T00:00:00Z")
    add_model(store, "new", downloaded="2026-01-02T00:00:00Z")

    assert store.model(None).name == "new"


def test_a_model_is_found_by_name_prefix_and_reference(store):
    add_model(store, "minilm", ref="hf:org/minilm@abc")
    add_model(store, "mistral", ref="pypi:mistral==1")

    assert {store.model(text).name for text in ("minilm", "min", "hf:org/minilm", "hf:org/minilm@abc")} == {"minilm"}
    assert store.model("pypi:mistral").name == "mistral"


def test_an_ambiguous_prefix_is_refused_with_both_candidates(store):
    add_model(store, "minilm-l6")
    add_model(store, "minilm-l12")

    with pytest.raises(EdgemlError, match="begins 2 models") as caught:
        store.model("mini")
    assert "minilm-l12, minilm-l6" in caught.value.hint or "minilm-l6, minilm-l12" in caught.value.hint


def test_an_exact_name_wins_over_a_longer_one(store):
    add_model(store, "minilm")
    add_model(store, "minilm-l12")

    assert store.model("minilm").name == "minilm"


def test_an_unknown_name_is_refused_with_the_nearest(store):
    add_model(store, "minilm")

    with pytest.raises(EdgemlError, match="no model 'minlim'") as caught:
        store.model("minlim")
    assert caught.value.hint == "did you mean minilm?"


def test_an_empty_store_says_how_to_begin(store):
    with pytest.raises(EdgemlError, match="no model") as caught:
        store.model(None)
    assert "edgeml download" in caught.value.hint


def test_no_variant_named_or_a_models_name_means_all_of_its_variants(store):
    add_model(store, "a")
    for name in ("a/onnx-fp32", "a/onnx-int8", "b/onnx-int8"):
        add_variant(store, name)

    assert [variant.name for variant in store.select([])] == ["a/onnx-fp32", "a/onnx-int8"]
    assert [variant.name for variant in store.select(["b"])] == ["b/onnx-int8"]
    assert [variant.name for variant in store.select(["a/onnx-i", "a"])] == ["a/onnx-int8", "a/onnx-fp32"]


def test_a_variant_is_found_by_its_folder(store):
    add_variant(store, "a/onnx-fp32")

    assert store.variant(str(store.root / "a" / "onnx-fp32")).name == "a/onnx-fp32"


def test_one_variant_is_asked_for_and_several_fit(store):
    add_model(store, "a")
    add_variant(store, "a/onnx-fp32")
    add_variant(store, "a/onnx-int8")

    with pytest.raises(EdgemlError, match="names 2 variants"):
        store.variant("a")


def test_a_model_without_variants_says_how_to_make_one(store):
    add_model(store, "a")

    with pytest.raises(EdgemlError, match="a has no variants") as caught:
        store.select([])
    assert caught.value.hint == "edgeml quantize a"


def test_short_names_that_collide_are_told_apart_by_owner_then_revision(store):
    add_model(store, "minilm", ref="hf:one/minilm@11112222333")

    assert store.free_name(ModelRef.parse("hf:one/minilm@11112222333")) == "minilm"
    assert store.free_name(ModelRef.parse("hf:two/minilm@9999")) == "two-minilm"
    add_model(store, "two-minilm", ref="hf:two/minilm@9999")
    assert store.free_name(ModelRef.parse("hf:two/minilm@aaaabbbbcccc")) == "two-minilm-aaaabbbb"


def interrupted(goal):
    with fresh_folder(goal) as part:
        (part / "half").write_text("x")
        raise KeyboardInterrupt


def test_a_folder_takes_its_name_only_when_it_is_whole(tmp_path):
    goal = tmp_path / "variant"
    with pytest.raises(KeyboardInterrupt):
        interrupted(goal)

    assert list(tmp_path.iterdir()) == []
    with fresh_folder(goal) as part:
        (part / "whole").write_text("x")
        assert not goal.exists()
    assert [path.name for path in goal.iterdir()] == ["whole"]


def test_an_existing_folder_is_replaced_only_when_asked(tmp_path):
    goal = tmp_path / "variant"
    goal.mkdir()
    (goal / "old").write_text("x")

    with pytest.raises(EdgemlError, match="exists already"), fresh_folder(goal):
        pass
    assert (goal / "old").exists()
    with fresh_folder(goal, replace=True) as part:
        (part / "new").write_text("x")
    assert [path.name for path in goal.iterdir()] == ["new"]


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from edgeml.store import scratch_folder\n"
        "with scratch_folder(Path(sys.argv[1])) as part: (part / 'half').write_text('x'); os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "variant"], check=False).returncode == 9
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"]

    with fresh_folder(tmp_path / "variant") as part:
        assert list(part.iterdir()) == []
        assert list(tmp_path.iterdir()) == [part]


def test_two_that_work_for_the_same_name_leave_each_other_alone(tmp_path):
    with scratch_folder(tmp_path / "shared") as one:
        (one / "export").write_text("x")
        with scratch_folder(tmp_path / "shared") as other:
            assert list(other.iterdir()) == []
        assert [path.name for path in one.iterdir()] == ["export"]
    with fresh_folder(tmp_path / "variant") as one, fresh_folder(tmp_path / "variant", replace=True) as other:
        (one / "one").write_text("x")
        (other / "other").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["variant"]
    assert [path.name for path in (tmp_path / "variant").iterdir()] == ["one"]  # whoever ends last


@pytest.mark.parametrize("moves", [0, 1])
def test_what_is_replaced_comes_back_when_that_is_interrupted(tmp_path, monkeypatch, moves):
    goal, replace, done = tmp_path / "variant", os.replace, []
    goal.mkdir()
    (goal / "old").write_text("x")

    def interrupt(source, target):
        done.append(source)
        if len(done) == moves + 1:
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt), fresh_folder(goal, replace=True) as part:
        (part / "new").write_text("x")

    assert [path.name for path in tmp_path.iterdir()] == ["variant"]
    assert [path.name for path in goal.iterdir()] == ["old"]


def test_a_file_takes_the_place_of_another(tmp_path):
    for name in ("made", "goal"):
        (tmp_path / name).write_text(name)

    take_place(tmp_path / "made", tmp_path / "goal", tmp_path / "aside")

    assert (tmp_path / "goal").read_text() == "made"
    assert (tmp_path / "aside").read_text() == "goal"


def test_what_a_killed_process_left_is_no_variant(store):
    add_model(store, "a")
    add_variant(store, "a/onnx-fp32")
    add_variant(store, "a/onnx-int8.part")

    assert [variant.name for variant in store.select([])] == ["a/onnx-fp32"]


def test_a_model_is_found_by_a_bare_reference_and_a_path(store, tmp_path):
    add_model(store, "minilm", ref="hf:org/minilm@abc")
    add_model(store, "file", ref=str(tmp_path / "file.gguf"))

    assert store.model("org/minilm").name == "minilm"
    assert store.model(str(tmp_path / "x" / ".." / "file.gguf")).name == "file"


def test_a_reference_that_is_not_downloaded_says_how_to_fetch_it(store):
    add_model(store, "minilm", ref="hf:org/minilm@abc")

    for text in ("org/other", "pypi:other==1", str(store.root)):
        with pytest.raises(EdgemlError, match="is not downloaded") as caught:
            store.model(text)
        assert caught.value.hint == f"edgeml download {text}"


def test_each_part_of_a_variants_name_may_be_a_prefix(store):
    add_model(store, "minilm")
    add_variant(store, "minilm/onnx-int8")
    add_variant(store, "minilm/onnx-fp32")
    add_variant(store, "minilm-l12/onnx-int8")

    assert store.variant("minilm/onnx-i").name == "minilm/onnx-int8"
    assert store.variant("minilm-/onnx-i").name == "minilm-l12/onnx-int8"
    with pytest.raises(EdgemlError, match="begins 2 variants"):
        store.variant("mini/onnx-i")


def test_the_cache_is_where_its_variable_says(monkeypatch, tmp_path):
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("EDGEML_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "edgeml"


def make_measurement(task="perplexity", target="laptop"):
    here = Environment(machine="x86_64", system="Linux", python="3.11", threads=1, cores=1, libraries={})
    names = {"variant": "a/onnx-int8", "target": target, "task": task, "metric": "size", "statistic": "once"}
    return Measurement(
        **names, how="measured", unit="byte", value=1.0, n=1, provenance={"run": "a.json"}, environment=here
    )


def test_reports_come_back_newest_first_beside_runs_and_one_a_task_and_time(store):
    folder = store.measurements_folder("a")
    for started, task in (
        ("2026-01-02T03:04:05.678+00:00", "perplexity"),
        ("2026-02-01T00:00:00", "feature-extraction"),
    ):
        store.add_report("a", Report(started=started, measurements=(make_measurement(task),)))
    (folder / "onnx-int8.perplexity.laptop.20260101T000000.json").write_text("{}")

    assert [report.measurements[0].task for report in store.reports("a")] == ["feature-extraction", "perplexity"]
    assert (folder / "perplexity.laptop.20260102T030405.678+0000.report.json").is_file()
    assert store.reports("b") == []
