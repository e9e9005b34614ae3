"""The user's inputs that a scheme may look at: read once, digested, and never a label of theirs."""

import hashlib
import platform

import numpy as np
import pytest
from msgspec.structs import replace

from edgeml.calibration import read_calibration
from edgeml.formats import Wishes, unused_wish, wishes_for
from edgeml.package import bundle_path, package
from edgeml.quantize import Terms, quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Model, Scheme
from edgeml.verify import Rebuild, verify
from edgeml_runtime.records import describe, write_record
from edgeml_runtime.session import open_session
from tiny.gguf import llama_gguf
from tiny.graphs import onnx_source
from tiny.pictures import picture_folder
from tiny.refusals import refusal
from tiny.works import LINES

SIMILARITY = "sentence-similarity"


def text(path, content):
    path.write_text(content, encoding="utf-8")
    return path


def test_lines_of_plain_text_are_texts(tmp_path):
    path = text(tmp_path / "lines.txt", "one line\n\nanother ☃\n")

    found = read_calibration(path, task=SIMILARITY, columns={})

    assert found.texts == ("one line", "another ☃")
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (found.name, len(found)) == ("lines.txt", 2)


def test_both_sentences_of_a_pair_are_texts_and_the_score_is_not(tmp_path):
    path = text(tmp_path / "pairs.tsv", "sentence1\tsentence2\tscore\na b\tc d\t4.2\ne\t\t1\n")

    assert set(read_calibration(path, task=SIMILARITY, columns={}).texts) == {"a b", "c d", "e"}


def test_columns_of_other_names_are_mapped(tmp_path):
    path = text(tmp_path / "rows.csv", "body,account\nhello,5\n")

    assert read_calibration(path, task="text-classification", columns={"body": "text"}).texts == ("hello",)
    assert "no column text to calibrate with" in refusal(read_calibration, path, task="text-classification", columns={})


@pytest.mark.parametrize("value", ["5", "0", "true", '["a"]', "{}"])
def test_an_input_that_is_no_text_is_refused_with_its_row(tmp_path, value):
    path = text(tmp_path / "rows.jsonl", f'{{"text": "a"}}\n{{"text": null}}\n{{"text": {value}}}\n')

    assert f"'text' in row 3 of {path} is no text" in refusal(read_calibration, path, task=SIMILARITY, columns={})


def test_rows_without_an_input_are_left_out(tmp_path):
    path = text(tmp_path / "rows.jsonl", '{"text": "a"}\n{"text": null}\n{"body": "b"}\n{"text": " "}\n{"text": "c"}\n')

    assert read_calibration(path, task=SIMILARITY, columns={}).texts == ("a", "c")


def test_words_with_tags_are_words_alone(tmp_path):
    path = text(tmp_path / "tagged.jsonl", '{"tokens": ["Ada", "left"], "tags": ["B-PER", "O"]}\n')

    found = read_calibration(path, task="token-classification", columns={})

    assert found.words == (("Ada", "left"),)
    assert found.texts == ()


def test_pictures_are_their_absolute_paths_and_other_pictures_have_another_digest(tmp_path):
    first = read_calibration(picture_folder(tmp_path / "one", 1), task="image-classification", columns={})
    other = read_calibration(picture_folder(tmp_path / "two", 1, seed=5), task="image-classification", columns={})

    assert len(first) == 3
    assert all(path.startswith(str(tmp_path)) for path in first.images)
    assert first.sha256 != other.sha256


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_any_input_is_refused(tmp_path, content):
    assert refusal(read_calibration, text(tmp_path / "empty.txt", content), task=SIMILARITY, columns={})


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "nothing.txt" in refusal(read_calibration, tmp_path / "nothing.txt", task=SIMILARITY, columns={})


STATIC, INT4, FP32, Q4 = (Scheme.parse(name) for name in ("onnx-int8-static", "onnx:int4", "onnx:fp32", "gguf:q4_0"))
F16 = Scheme.parse("gguf:f16")


def test_a_wish_goes_to_the_schemes_that_have_a_use_for_it():
    wishes = Wishes(block_size=64, calibration_method="entropy", exclude=("head",), tensor_types=("a=q8_0",))

    assert unused_wish(wishes, [STATIC, INT4, FP32, Q4]) is None
    assert wishes_for(STATIC, wishes) == Wishes(calibration_method="entropy", exclude=("head",))
    assert wishes_for(INT4, wishes) == Wishes(block_size=64, exclude=("head",))
    assert wishes_for(Q4, wishes) == Wishes(tensor_types=("a=q8_0",))
    assert wishes_for(FP32, wishes) == Wishes()


@pytest.mark.parametrize(
    ("wishes", "schemes", "said", "hint"),
    [
        (Wishes(block_size=32), [STATIC], "--block-size says nothing to onnx:int8-static", "it is for onnx:int4"),
        (
            Wishes(tensor_types=("a=b",)),
            [INT4],
            "--tensor-type says nothing to onnx:int4",
            "it is for quantized gguf: schemes",
        ),
        (Wishes(tensor_types=("a=q8_0",)), [F16], "--tensor-type says nothing to gguf:f16", "quantized gguf: schemes"),
        (Wishes(memory_bytes=1), [FP32, Q4], "--memory says nothing to onnx:fp32, gguf:q4_0", "onnx:int8-static"),
        (Wishes(min_agreement=0.0), [FP32], "--min-agreement says nothing to onnx:fp32", "onnx:int4"),
    ],
)
def test_a_wish_that_no_scheme_has_a_use_for_is_refused(wishes, schemes, said, hint):
    found = unused_wish(wishes, schemes)

    assert found.message == said
    assert hint in found.hint


def test_a_gguf_made_without_calibration_inputs_is_not_given_back_where_some_are_named(tmp_path):
    (tmp_path / "tiny").mkdir()
    path = llama_gguf(tmp_path / "tiny" / "tiny.gguf", width=256, layers=1)
    files = describe(path.parent)
    model = Model(name="t", ref="pypi:t==1", path=str(path.parent), files=files, format="gguf", downloaded="2026-01-01")
    here = {"profile": profile("laptop"), "store": Store(tmp_path / "artifacts")}
    q4_k, q8 = Scheme.parse("gguf:q4_k_m"), Scheme.parse("gguf:q8_0")
    plain = quantize(model, [q4_k, q8], **here)
    asked = terms(text(tmp_path / "lines.txt", "\n".join(LINES)))

    assert refusal(quantize, model, [q4_k], terms=asked, **here) == "t/gguf-q4_k_m was made with other options"
    assert quantize(model, [q8], terms=asked, **here) == plain[1:]


@pytest.fixture
def model(tmp_path):
    source = onnx_source(tmp_path / "source").parent
    files = describe(source)
    return Model(
        name="tiny", ref="pypi:tiny==1.0", path=str(source), files=files, format="onnx", downloaded="2026-01-01"
    )


def terms(path, *, wishes=None, **more):
    return Terms(calibration=read_calibration(path, task=SIMILARITY, columns={}), wishes=wishes or Wishes(), **more)


def test_static_int8_is_made_of_the_users_lines_and_answers_through_the_runtime(model, tmp_path):
    store, lines = Store(tmp_path / "artifacts"), text(tmp_path / "lines.txt", "\n".join(LINES))
    asked = terms(lines, wishes=Wishes(calibration_method="percentile", memory_bytes=10**9))

    whole, made = quantize(model, [FP32, STATIC], profile=profile("laptop"), store=store, terms=asked)

    manifest = made.manifest
    assert manifest.calibration_sha256 == hashlib.sha256(lines.read_bytes()).hexdigest()
    assert manifest.settings["chosen"] == "static, percentile"
    assert manifest.asked == {"calibration_method": "percentile", "memory_bytes": 10**9}
    assert whole.manifest.calibration_sha256 is None
    ours, theirs = (open_session(one.path, threads=1).embed(["a line"])[0] for one in (made, whole))
    assert ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.99
    again = quantize(model, [STATIC], profile=profile("laptop"), store=store, terms=asked)[0]
    assert again.manifest == manifest
    others = terms(text(tmp_path / "others.txt", "a\nb\n"), wishes=asked.wishes)
    said = refusal(quantize, model, [STATIC], profile=profile("laptop"), store=store, terms=others)
    assert said == "tiny/onnx-int8-static was made with other options"
    assert not list(tmp_path.rglob("scratch-*"))


@pytest.mark.parametrize(
    ("scheme", "wishes", "said"),
    [
        ("onnx:int8-static", Wishes(), "needs calibration inputs, which show the range of activations"),
        ("onnx:int8", Wishes(calibration_method="minmax"), "--calibration-method says nothing without calibration"),
        ("onnx:int8", Wishes(memory_bytes=1), "--memory says nothing without calibration inputs"),
        ("onnx:int4", Wishes(min_agreement=0.9), "--min-agreement says nothing without calibration inputs"),
    ],
)
def test_what_needs_inputs_is_refused_without_any(model, tmp_path, scheme, wishes, said):
    store = Store(tmp_path / "artifacts")

    found = refusal(
        quantize, model, [Scheme.parse(scheme)], profile=profile("laptop"), store=store, terms=Terms(wishes=wishes)
    )

    assert said in found


def test_one_input_is_refused_before_anything_is_exported_and_does_not_hinder_fp32(model, tmp_path):
    steps = []
    asked = terms(text(tmp_path / "line.txt", "only one\n"))
    here = {"profile": profile("laptop"), "store": Store(tmp_path / "artifacts"), "terms": asked}

    said = refusal(quantize, model, [STATIC], **here, progress=lambda step, *_: steps.append(step))

    assert said == "the calibration inputs are too few: one sets ranges, another judges"
    assert not [step for step in steps if "onnx-int8-static" in step]
    assert quantize(model, [FP32], **here)[0].manifest.calibration_sha256 is None


def test_a_calibrated_bundle_is_made_again_from_its_inputs_and_from_no_others(model, tmp_path):
    store, lines = Store(tmp_path / "artifacts"), text(tmp_path / "lines.txt", "\n".join(LINES))
    write_record(store.root / "tiny" / "model.json", model)
    here = replace(profile("laptop"), machine=platform.machine())
    (made,) = quantize(model, [STATIC], profile=here, store=store, terms=terms(lines))
    bundle = bundle_path(store, package(made, store=store, profile=here, kind="dir", wheels=False))
    others = text(tmp_path / "others.txt", "a\nb\n")

    def rebuilt(path=None):
        found = verify(bundle, store=store, rebuild=Rebuild(path))
        return {one.name: (one.result, one.detail) for one in found.checks}["rebuild"]

    state, detail = rebuilt()
    assert state == "not done"
    assert hashlib.sha256(lines.read_bytes()).hexdigest() in detail
    assert refusal(rebuilt, others) == f"{others} is not what tiny/onnx-int8-static was calibrated with"
    state, detail = rebuilt(lines)
    assert (state, detail) == ("done", "2 files came out equal from pypi:tiny==1.0")
