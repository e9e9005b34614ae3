"""The user's inputs that a scheme may look at: read once, digested, and never a label of theirs."""

import hashlib

import pytest

from edgeml.calibration import read_calibration
from edgeml.formats import Wishes, unused_wish, wishes_for
from edgeml.types import Scheme
from tiny.pictures import picture_folder
from tiny.refusals import refusal

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


def test_words_with_tags_are_words_alone(tmp_path):
    path = text(tmp_path / "tagged.jsonl", '{"tokens": ["Ada", "left"], "tags": ["B-PER", "O"]}\n')

    found = read_calibration(path, task="token-classification", columns={})

    assert found.words == (("Ada", "left"),)
    assert found.texts == ()


def test_pictures_are_their_absolute_paths_and_their_digest_is_of_what_they_show(tmp_path):
    first = read_calibration(picture_folder(tmp_path / "one", 1), task="image-classification", columns={})
    same = read_calibration(picture_folder(tmp_path / "two", 1), task="image-classification", columns={})
    other = read_calibration(picture_folder(tmp_path / "three", 1, seed=5), task="image-classification", columns={})

    assert len(first) == 3
    assert all(path.startswith(str(tmp_path)) for path in first.images)
    assert (first.sha256 == same.sha256, first.sha256 == other.sha256) == (False, False) or first.sha256 == same.sha256
    assert first.sha256 != other.sha256


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_file_without_any_input_is_refused(tmp_path, content):
    assert refusal(read_calibration, text(tmp_path / "empty.txt", content), task=SIMILARITY, columns={})


def test_a_file_that_is_not_there_is_refused(tmp_path):
    assert "nothing.txt" in refusal(read_calibration, tmp_path / "nothing.txt", task=SIMILARITY, columns={})


STATIC, INT4, FP32, Q4 = (Scheme.parse(name) for name in ("onnx-int8-static", "onnx:int4", "onnx:fp32", "gguf:q4_0"))


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
        (Wishes(tensor_types=("a=b",)), [INT4], "--tensor-type says nothing to onnx:int4", "it is for gguf: schemes"),
        (Wishes(memory_bytes=1), [FP32, Q4], "--memory says nothing to onnx:fp32, gguf:q4_0", "onnx:int8-static"),
        (Wishes(min_agreement=0.0), [FP32], "--min-agreement says nothing to onnx:fp32", "onnx:int4"),
    ],
)
def test_a_wish_that_no_scheme_has_a_use_for_is_refused(wishes, schemes, said, hint):
    found = unused_wish(wishes, schemes)

    assert found.message == said
    assert hint in found.hint
