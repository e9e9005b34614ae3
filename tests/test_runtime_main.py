"""The command line that travels: what it prints, and what its exit codes mean."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import msgspec
import pytest

from edgeml.package import bundle_path, package
from edgeml.store import Store
from edgeml.targets import profile
from edgeml_runtime.__main__ import main
from edgeml_runtime.bundle import Goldens
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.types import Audit, VariantManifest
from tiny.variants import onnx_variant


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("runtime") / "artifacts")
    variant = onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    return bundle_path(store, package(variant, store=store, profile=profile("laptop"), kind="dir", wheels=False))


@pytest.fixture
def say(capsys):
    """Run one command: its exit code, stdout and stderr."""

    def run(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def rows(tmp_path):
    def write(content, name="rows.csv"):
        (tmp_path / name).write_text(content)
        return tmp_path / name

    return write


def test_selftest_says_what_passed(bundle, say):
    code, out, err = say("selftest", bundle)
    assert (code, err) == (0, "")
    assert "self-test passed" in out
    code, out, _ = say("selftest", bundle, "--json")
    assert json.loads(out)["schema"] == "edgeml.selftest/1"


def test_selftest_of_a_changed_bundle_exits_3_and_names_the_file(bundle, say, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    (folder / "variant" / "model.onnx").write_bytes(b"other")
    code, out, err = say("selftest", folder)
    assert (code, out) == (3, "")
    assert "model.onnx" in err
    assert "hint: " in err


def test_a_refusal_is_json_too_where_that_is_asked_for(say, tmp_path):
    code, out, err = say("info", tmp_path, "--json")
    assert code == 3
    refusal = json.loads(out)
    assert refusal["schema"] == "edgeml.refusal/1"
    assert refusal["message"] in err


def test_predict_gives_a_vector_for_each_text(bundle, say, rows):
    code, out, _ = say("predict", bundle, "--input", rows('one, "two"\nthree\n', "rows.txt"))
    assert code == 0
    assert [len(json.loads(line)) for line in out.splitlines()] == [8, 8]


def test_predict_compares_the_pairs_of_rows_that_have_them(bundle, say, rows):
    data = rows("text,sentence1,sentence2\nx,hello there,hello there\nx,hello,xyz\n")
    _, out, _ = say("predict", bundle, "--input", data)
    same, other = map(json.loads, out.splitlines())
    assert same == pytest.approx(1.0, abs=1e-6)
    assert other < 0.99
    _, out, _ = say("predict", bundle, "--input", data, "--task", "feature-extraction")
    assert len(json.loads(out.splitlines()[0])) == 8


def test_predict_reads_columns_under_the_users_names(bundle, say, rows):
    data = rows("body\thello\none\ttwo\n", "rows.tsv")
    code, _, err = say("predict", bundle, "--input", data)
    assert code == 3
    assert "no column 'text'" in err
    code, out, _ = say("predict", bundle, "--input", data, "--columns", "body=text")
    assert code == 0
    assert len(out.splitlines()) == 1


def test_predict_takes_a_variants_folder_too(bundle, say, rows):
    assert say("predict", bundle / "variant", "--input", rows("a\n", "a.txt"))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "none.csv"], "cannot read none.csv"),
        (["--task", "sentence-similarty"], "did you mean sentence-similarity?"),
        (["--task", "perplexity"], "answers no single rows"),
        (["--task", "text-generation"], "generates no text"),
        (["--threads", "0"], "'0' is no count"),
        (["--schema", "none.json"], "cannot read none.json"),
        (["--columns", "text"], "--columns body=text"),
    ],
)
def test_bad_values_exit_3_with_a_sentence_and_a_hint(bundle, say, rows, arguments, words):
    code, out, err = say("predict", bundle, "--input", rows("text\nhello\n"), *arguments)
    assert (code, out) == (3, "")
    assert words in err
    assert err.count("\n") == 2


@pytest.mark.parametrize("arguments", [[], ["frobnicate", "."], ["predict", "."], ["info", ".", "--loud"]])
def test_unknown_commands_and_options_exit_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_info_tells_what_was_found_out_and_the_limits(bundle, say, tmp_path):
    folder = shutil.copytree(bundle, tmp_path / "bundle")
    manifest = read_record(folder / "variant" / "variant.json", VariantManifest)
    audit = Audit(
        parameters=1_000_000,
        bits_per_weight=9.5,
        tensor_types={"F16": 1, "Q8_0": 2},
        share_quantized=0.5,
        earned=False,
        shortfalls=("the embedding is still F16",),
    )
    changed = msgspec.structs.replace(manifest, audit=audit, source_quantized="Q4_1", built_for="arm64-dotprod")
    write_record(folder / "variant" / "variant.json", changed)
    _, out, _ = say("info", folder)
    for words in (
        "pypi:tiny-model==1.0",
        "onnx:fp32",
        "laptop (x86_64",
        "apache-2.0",
        "NOT EARNED: 9.50 bits a weight, 50.0% of 1.0 million",
        "32 tokens a text",
        "already quantized (Q4_1)",
        "arm64-dotprod",
        "the embedding is still F16",
    ):
        assert words in out


def test_info_as_json_is_the_two_records(bundle, say):
    _, out, _ = say("info", bundle, "--json")
    assert [json.loads(line)["schema"] for line in out.splitlines()] == ["edgeml.bundle/1", "edgeml.variant/1"]


def test_goldens_are_written_whole_or_not_at_all(bundle, say, tmp_path, rows):
    assert say("goldens", bundle, "--output", tmp_path / "goldens.json")[0] == 0
    assert read_record(tmp_path / "goldens.json", Goldens).synthetic
    texts = rows('{"text": 5}\n', "rows.jsonl")
    code, _, err = say("goldens", bundle, "--output", tmp_path / "other.json", "--texts", texts)
    assert code == 3
    assert "is no text" in err
    assert not (tmp_path / "other.json").exists()


def test_a_missing_package_is_a_sentence_and_names_the_way(bundle):
    command = [sys.executable, "-S", "-B", "-m", "edgeml_runtime", "selftest", "."]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    assert "is missing" in done.stderr
    assert "sh run.sh" in done.stderr


def test_a_reader_that_leaves_early_is_no_error(bundle, rows):
    data = rows("hello\n" * 20000, "rows.txt")
    command = f"'{sys.executable}' -B -m edgeml_runtime predict . --input '{data}' | head -n 1"
    done = subprocess.run(command, shell=True, cwd=bundle, capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)) == 8
    assert done.stderr == ""
