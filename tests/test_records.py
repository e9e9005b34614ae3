import math

import pytest

from edgeml.errors import EdgemlError
from edgeml.recipe import Recipe
from edgeml_runtime.records import build, decode, describe, encode, read_record, verify, write_record
from edgeml_runtime.types import Absent, Audit, File, Outcome, Samples, VariantManifest

ABSENT = Absent(metric="energy", reason="no sensor", hint="edgeml doctor")


def test_what_is_written_is_read_again(tmp_path):
    write_record(tmp_path / "deep" / "absent.json", ABSENT)

    assert read_record(tmp_path / "deep" / "absent.json", Absent) == ABSENT
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["absent.json"]


def test_absent_keys_are_not_written():
    assert encode(ABSENT) == (
        '{"schema":"edgeml.absent/1","metric":"energy","reason":"no sensor","hint":"edgeml doctor"}'
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not valid JSON"),
        ('{"metric":"e","reason":"r","hint":"h"}', "schema None"),
        ('{"schema":"edgeml.absent/2","metric":"e","reason":"r","hint":"h"}', "edgeml.absent/2"),
        ('{"schema":"edgeml.absent/1","metric":"e","metric":"f","reason":"r","hint":"h"}', "'metric' stands twice"),
        ('{"schema":"edgeml.absent/1","metric":NaN,"reason":"r","hint":"h"}', "NaN is no JSON number"),
        ('{"schema":"edgeml.absent/1","metric":1,"reason":"r","hint":"h"}', r"\$\.metric"),
        ('{"schema":"edgeml.absent/1","metric":"e","reason":"r"}', "hint"),
    ],
)
def test_what_msgspec_would_let_through_is_refused(text, complaint):
    with pytest.raises(EdgemlError, match=complaint):
        decode(text, Absent, where="absent.json")


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_known_one():
    plain = {
        "schema": "edgeml.recipe/1",
        "about": "a",
        "download": "pypi:x",
        "quantize": {"to": ["onnx:int8"]},
        "bench": {"task": "perplexity", "data": "x", "repeat": 3},
    }

    with pytest.raises(EdgemlError, match=r"unknown field `repeat` - at `\$\.bench`") as caught:
        build(plain, Recipe, where="similarity.yaml")

    assert caught.value.hint == "did you mean 'repeats'?"


def test_every_record_inside_a_record_is_strict():
    text = '{"path":"a","size_bytes":1,"sha256":"x","size":1}'
    with pytest.raises(EdgemlError, match="unknown field `size`"):
        decode(text, File, where="file")


def test_a_number_that_json_cannot_hold_is_never_written():
    sample = Samples(
        metric="m", unit="1", values=(1.0, math.nan), statistics=("mean",), unit_of_sample="row", method="none"
    )
    with pytest.raises(ValueError, match=r"samples\[0\]\.values\[1\] is nan"):
        encode(_outcome(sample))


def _outcome(sample):
    from edgeml_runtime.machine import environment

    return Outcome(environment=environment(1), samples=(sample,))


def test_a_flipped_byte_and_a_missing_file_are_noticed(tmp_path):
    (tmp_path / "a").write_bytes(b"hello")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b").write_bytes(b"world")
    files = describe(tmp_path)

    verify(tmp_path, files)
    assert [file.path for file in files] == ["a", "sub/b"]
    (tmp_path / "a").write_bytes(b"hellp")
    with pytest.raises(EdgemlError, match="a is not the file that was recorded"):
        verify(tmp_path, files)
    (tmp_path / "a").unlink()
    with pytest.raises(EdgemlError, match="is missing"):
        verify(tmp_path, files)


def test_a_manifest_survives_the_journey():
    manifest = VariantManifest(
        name="m/onnx-int8",
        model="pypi:m==1",
        scheme="onnx:int8",
        task="sentence-similarity",
        architecture="BertModel",
        weights="model.onnx",
        files=(File(path="model.onnx", size_bytes=3, sha256="x"),),
        source_files=(),
        audit=Audit(parameters=1, bits_per_weight=8.0, tensor_types={"INT8": 1}, share_quantized=1.0, earned=True),
        max_tokens=256,
        pooling="mean",
    )

    assert decode(encode(manifest), VariantManifest, where="x") == manifest
    assert manifest.size_bytes == 3
