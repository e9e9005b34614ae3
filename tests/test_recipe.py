"""Recipes: read strictly, checked as a whole before anything is fetched, and run in order."""

from __future__ import annotations

import json
import sysconfig
from pathlib import Path

import pytest

from edgeml import recipe as recipes
from edgeml.errors import EdgemlError
from edgeml.store import Store
from edgeml.targets import own_name, profile
from edgeml.types import Model, Report, Variant
from edgeml.wheels import default_python, requirements, wheel_folder
from tiny.commands import edgeml, inside, tree
from tiny.gguf import llama_gguf
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
WHOLE = {
    "schema": "edgeml.recipe/1",
    "about": "Lines continued by a small decoder.",
    "download": "./model/tiny.gguf",
    "quantize": {"to": ["gguf:q8_0", "gguf:q4_0"]},
    "bench": {
        "task": "text-generation",
        "data": "lines.csv",
        "baseline": "gguf:q8_0",
        "columns": {"line": "text"},
        "threads": 1,
        "warmups": 0,
        "limit": 2,
        "max_new_tokens": 3,
    },
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a model, data, and nothing downloaded."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    (tmp_path / "model").mkdir()
    llama_gguf(tmp_path / "model" / "tiny.gguf", width=64)
    (tmp_path / "lines.csv").write_text("line,expected\nrent,house\nfuel,car\npost,office\n")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    return tmp_path


def write(folder, changes=None, **more):
    """A recipe file with some values changed; `bench__task="x"` changes an inner one, None takes it away."""
    content = json.loads(json.dumps(WHOLE))
    for key, value in {**(changes or {}), **more}.items():
        outer, _, inner = key.partition("__")
        place = content.setdefault(outer, {}) if inner else content
        place[inner or outer] = value
        if value is None:
            del place[inner or outer]
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))  # JSON is YAML
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_whole(path):
    recipe = recipes.load(path)
    if not all((path.parent / name).exists() for name in recipe.needs):
        pytest.skip(f"made before by: {'; '.join(recipe.needs.values())}")

    plan = recipes.check(recipe, path.parent)

    assert plan.schemes
    assert plan.dataset
    assert plan.packed in plan.schemes


def test_there_are_recipes():
    assert {"similarity", "extraction", "address-parser"} <= {path.stem for path in RECIPES}


def test_what_a_recipe_needs_and_is_not_there_is_told_with_the_command_that_makes_it(folder):
    path = write(folder, needs={"lines.csv": "python make_lines.py", "made/rows.csv": "python make_rows.py"})

    done = inside("run", path)

    assert done.code == 3
    assert done.refusal == (f"{folder / 'made/rows.csv'} is not there yet", "python make_rows.py")


def test_every_script_that_a_recipe_names_is_there():
    for path in RECIPES:
        for command in recipes.load(path).needs.values():
            python, script = command.split()
            assert python == "python"
            assert (path.parent.parent / script).is_file()


@pytest.mark.parametrize(
    ("changes", "error", "hint"),
    [
        ({"quantise": {}}, "unknown field `quantise`", "did you mean 'quantize'?"),
        ({"bench__target": "pi5"}, "unknown field `target` - at `$.bench`", "'target' belongs to another part"),
        ({"bench__repeat": 3}, "unknown field `repeat` - at `$.bench`", "did you mean 'repeats'?"),
        ({"bench__threads": 0}, "at `$.bench.threads", ""),
        ({"quantize__to": []}, "at `$.quantize.to`", ""),
        ({"schema": None}, "has schema None, expected 'edgeml.recipe/1'", ""),
        ({"download": None}, "missing required field `download`", ""),
        ({"download": "hff:org/name"}, "cannot read model reference 'hff:org/name'", "did you mean hf:org/name?"),
        ({"target": "pi55"}, "unknown target 'pi55'", "did you mean pi5?"),
        ({"quantize__to": ["gguf:q8"]}, "unknown scheme 'gguf:q8'", "did you mean gguf:q8_0?"),
        ({"bench__task": "text-generatio"}, "unknown task 'text-generatio'", "did you mean text-generation?"),
        ({"bench__data": "nowhere.csv"}, "nowhere.csv: No such file", "check the path"),
        ({"bench__columns": {"words": "text"}}, "no column 'words'", "--columns"),
        ({"bench__columns": {}}, "has no column 'text'", "--columns"),
        ({"bench__json_schema": "nowhere.json"}, "nowhere.json: No such file", "check the path"),
        ({"bench__json_schema": "lines.csv"}, "is not JSON", "JSON Schema"),
        ({"bench__baseline": "onnx:fp32"}, "bench.baseline is onnx:fp32, which quantize.to does not make", "gguf:q8_0"),
        ({"package": {"variant": "onnx:int8"}}, "package.variant is onnx:int8, which quantize.to does not", "add it"),
        ({"quantize__calibration": "none.txt"}, "none.txt, quantize.calibration of the recipe, is not there", "check"),
        ({"quantize__block_size": 32}, "--block-size says nothing to gguf:q8_0, gguf:q4_0", "it is for onnx:int4"),
        ({"quantize__calibration_method": "max"}, "at `$.quantize.calibration_method`", ""),
        ({"quantize__memory": "much"}, "memory", ""),
        ({"package": {"variant": "gguf:q8_0", "kind": "zip"}}, "unknown kind of bundle 'zip'", "dir"),
    ],
)
def test_a_recipe_is_refused_before_anything_is_fetched(folder, changes, error, hint):
    path = write(folder, changes)
    before = tree(folder)

    done = inside("run", path)

    said, advice = done.refusal
    assert done.code == 3
    assert error in said
    assert hint in advice
    assert tree(folder) == before
    assert not (folder / "artifacts").exists()


@pytest.mark.skipif(own_name() == "pi5", reason="here it can be measured")
def test_a_bench_on_a_device_that_is_not_at_hand_is_planned_as_one(folder):
    plan = recipes.check(recipes.load(write(folder, target="pi5")), folder)

    assert plan.conditions.is_away
    assert plan.conditions.profile.name == "pi5"


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("a: [1\nb: 2\n", "recipe.yaml is not YAML: line 2, expected ',' or ']'"),
        ("a: 1\nb: {c: 1,\n  c: 2}\n", "recipe.yaml is not YAML: line 3, c stands there twice"),
        ("a: 1\nb: 2\na: 3\n", "recipe.yaml is not YAML: line 3, a stands there twice"),
        ("- a\n- b\n", "recipe.yaml has schema None, expected 'edgeml.recipe/1'"),
        ("", "recipe.yaml has schema None"),
        (b"a: \xff\n", "recipe.yaml is not YAML: 'utf-8' codec can't decode"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused(folder, text, error):
    path = folder / "recipe.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(EdgemlError) as caught:
        recipes.load(path)
    assert error in caught.value.message
    assert "\n" not in caught.value.message


def test_the_verbs_run_in_order_and_paths_are_the_recipes_own(folder, tmp_path_factory, monkeypatch):
    path = write(folder)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    plan = recipes.check(recipes.load(path), path.parent)

    results = list(recipes.run(plan, store=Store(folder / "artifacts")))

    assert [type(one) for one in results] == [Model, Variant, Variant, Report]
    report = results[-1]
    assert {(one.variant, one.baseline) for one in report.differences} == {("tiny/gguf-q4_0", "tiny/gguf-q8_0")}
    assert all(one.environment.threads == 1 for one in report.measurements)
    assert {one.n for one in report.measurements if one.metric == "contract.valid"} == {2}


def test_each_result_is_given_as_soon_as_its_verb_ends(folder):
    path = write(folder)
    plan, store = recipes.check(recipes.load(path), path.parent), Store(folder / "artifacts")

    results = recipes.run(plan, store=store)

    assert isinstance(next(results), Model)
    assert store.variants() == []
    assert isinstance(next(results), Variant)
    assert not (store.root / "tiny" / "measurements").exists()


def test_a_second_run_reuses_what_is_there(folder):
    path = write(folder, bench=None)

    first, second = inside("run", path, "--json"), inside("run", path, "--json")

    assert (first.code, second.code) == (0, 0)
    assert not [line for line in second.err.splitlines() if "quantize" in line and not line.startswith("next")]
    assert first.steps == ["edgeml bench tiny"]


def test_a_model_that_was_made_anew_replaces_its_variants_where_that_is_wished(folder):
    path = write(folder, bench=None)
    assert inside("run", path).code == 0
    llama_gguf(folder / "model" / "tiny.gguf", width=128)

    refused, forced = inside("run", path), inside("run", path, "--force")

    assert "add --force to replace it" in refused.err
    assert (refused.code, forced.code) == (3, 0)


def test_strict_holds_in_a_recipe(folder):
    llama_gguf(folder / "model" / "tiny.gguf", width=320)  # no multiple of 256: K-quants fall back
    path = write(folder, bench=None, quantize={"to": ["gguf:q4_k_m"], "strict": True})

    assert inside("run", path, "--json").code == 3
    assert "gguf:q4_k_m is not earned" in inside("run", path).err


def test_what_was_done_before_a_failure_is_shown(folder):
    (folder / "lines.csv").write_text("line\n" + "word " * 2000 + "\n")

    done = inside("run", write(folder))

    assert done.code == 3
    assert "tiny" in done.out
    assert done.err.splitlines()[-2].startswith("error: ")


def test_what_failed_a_bound_is_not_packed_and_that_is_said(folder):
    path = write(folder, bench__max_size=["1B"], package={"variant": "gguf:q4_0"})

    done = inside("run", path)

    assert done.code == 4
    assert "warning: gguf:q4_0 is not packed, since it failed a bound" in done.err
    assert not (folder / "artifacts" / "bundles").exists()


@pytest.fixture
def without_llama(tmp_path):
    """What runs this Python without llama.cpp, and the environment for it."""
    links = tmp_path / "site"
    links.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if not path.name.startswith("llama_cpp"):
            (links / path.name).symlink_to(path)
    source = Path(recipes.__file__).parent.parent
    return {"PYTHONPATH": f"{source}:{links}"}


@pytest.fixture
def onnx_model(tmp_path):
    """A small encoder that is ONNX already, as a folder to download."""
    variant = onnx_variant(tmp_path / "encoder")
    (variant.path / "variant.json").unlink()
    config = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 32}
    (variant.path / "config.json").write_text(json.dumps(config))
    (variant.path / "modules.json").write_text('[{"type": "sentence_transformers.models.Transformer"}]')
    return variant.path


def test_a_recipe_calibrates_with_a_file_beside_it(folder, onnx_model, monkeypatch):
    (folder / "own.csv").write_text("body,label\n" + "fuel,car\nrent,house\n" * 4)
    step = {"to": ["onnx:int8-static"], "calibration": "own.csv", "columns": {"body": "text"}}
    step |= {"calibration_method": "minmax", "exclude": ["mix"], "memory": "2GB"}
    path = write(folder, download=str(onnx_model), quantize=step, bench=None)
    monkeypatch.chdir(folder.parent)

    done = inside("run", path)

    assert done.code == 0, done.err
    assert "chosen: static, minmax" in done.out
    assert "kept whole: " in done.out


def test_without_llama_cpp_the_onnx_table_comes_and_what_is_missing_is_said(folder, onnx_model, without_llama):
    (folder / "lines.csv").write_text("text,label\n" + "fuel,car\nrent,house\n" * 4)
    path = write(
        folder,
        download="./encoder",
        quantize={"to": ["onnx:fp32", "gguf:q8_0"]},
        bench={"task": "feature-extraction", "data": "lines.csv", "baseline": "gguf:q8_0", "repeats": 4},
        package={"variant": "gguf:q8_0"},
    )

    done = edgeml("run", path, python=("-S",), **without_llama)

    assert done.code == 0, done.err
    left_out = "gguf:q8_0 is left out: the Python module llama_cpp, which gguf needs, is missing"
    how = "to make what is left out: install a C++ compiler"
    for warning in (left_out, how, "nothing is packed", "nothing is compared"):
        assert [line for line in done.err.splitlines() if line.startswith(f"warning: {warning}")]
        assert [line for line in done.out.splitlines() if line.startswith(f"warning: {warning}")]
    assert "onnx-fp32" in done.out
    assert done.steps == ["edgeml bench encoder"]


def test_without_any_scheme_that_can_be_made_a_recipe_is_refused(folder, without_llama):
    done = edgeml("run", write(folder), python=("-S",), **without_llama)

    assert done.code == 3
    assert done.refusal[0] == "the Python module llama_cpp, which gguf needs, is missing"
    assert "make gguf" in done.refusal[1]
    assert not (folder / "artifacts").exists()


def test_the_last_result_of_a_recipe_is_its_bundle(folder, cached_wheels):
    done = inside("run", write(folder, bench=None, package={"variant": "gguf:q4_0", "kind": "dir"}), "--json")

    assert done.code == 0, done.err
    last = json.loads(done.out.splitlines()[-1])
    assert (last["schema"], last["variant"]) == ("edgeml.bundle/1", "tiny/gguf-q4_0")
    assert len(list((folder / "artifacts" / "bundles").iterdir())) == 1


def test_what_a_user_must_know_of_the_licence_is_told(folder, cached_wheels):
    bundle = {"variant": "gguf:q4_0", "kind": "dir"}

    done = inside("run", write(folder, bench=None, package=bundle))

    assert done.code == 0
    assert [line for line in done.err.splitlines() if line.startswith("warning: ") and "licence" in line], done.err


def test_a_variant_made_before_one_that_is_refused_is_shown(folder):
    llama_gguf(folder / "model" / "tiny.gguf", width=320)  # no multiple of 256: K-quants fall back

    done = inside("run", write(folder, bench=None, quantize={"to": ["gguf:q8_0", "gguf:q4_k_m"], "strict": True}))

    assert "gguf:q4_k_m is not earned" in done.err
    assert (done.code, "gguf-q8_0" in done.out) == (3, True)


@pytest.fixture
def cached_wheels():
    """Empty wheels under the right names, where downloads would put the real ones."""
    own = profile(None)
    for wanted in requirements("gguf"):
        name, _, version = wanted.partition("==")
        write_wheel(wheel_folder(own, default_python(own), "gguf"), {}, name=name, version=version)
