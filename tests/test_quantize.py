"""The verb: what is kept, what is refused, and that nothing unfinished stays."""

import json
import shutil

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgeml.errors import EdgemlError
from edgeml.quantize import Terms, quantize, recommended
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Model, Scheme
from edgeml_runtime.records import describe, verify
from edgeml_runtime.session import open_session
from tiny.gguf import bert_gguf, llama_gguf
from tiny.graphs import onnx_source

FP32, INT8 = Scheme.parse("onnx:fp32"), Scheme.parse("onnx:int8")
LAPTOP, PI = profile("laptop"), profile("pi5")


def model_of(folder, format="onnx", **more):
    files = describe(folder)
    fields = {"ref": "pypi:tiny-model==1.0", "licence": "apache-2.0", **more}
    return Model(name="tiny", path=str(folder), files=files, format=format, downloaded="2026-01-01", **fields)


@pytest.fixture
def source(tmp_path):
    return onnx_source(tmp_path / "source")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "artifacts")


def in_half_floats(path):
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save_model(model, path)


def left_in(store):
    return sorted(path.name for path in store.root.rglob("*")) if store.root.exists() else []


def test_a_variant_is_complete_in_its_folder(source, store):
    model = model_of(source.parent)

    fp32, int8 = quantize(model, [FP32, INT8], profile=LAPTOP, store=store)

    shutil.rmtree(source.parent)  # a variant does not depend on its source
    made = int8.manifest
    assert int8.path == store.root / "tiny" / "onnx-int8"
    assert {file.path for file in made.files} == {"model.onnx", "tokenizer.json"}
    verify(int8.path, made.files)
    assert (made.name, made.model, made.scheme) == ("tiny/onnx-int8", "pypi:tiny-model==1.0", "onnx:int8")
    assert (made.architecture, made.task, made.pooling) == ("BertModel", "feature-extraction", "mean")
    assert (made.source_files, made.licence, made.max_tokens) == (model.files, "apache-2.0", 32)
    assert made.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert made.outputs == ("last_hidden_state",)
    assert (made.built_for, fp32.manifest.built_for) == ("x86-64-avx2", None)
    assert {"onnx", "onnxruntime"} < set(made.tools)
    assert made.audit.earned
    assert (fp32.manifest.audit.bits_per_weight, made.audit.share_quantized) == (32.0, 1.0)
    vectors = [open_session(variant.path, threads=1).embed(["some words"])[0] for variant in (fp32, int8)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=0.05)


def test_a_variant_of_the_same_source_is_given_back_as_it_is(source, store):
    model = model_of(source.parent)
    first = quantize(model, [FP32], profile=LAPTOP, store=store)
    stamp = (first[0].path / "model.onnx").stat().st_mtime_ns
    steps = []

    again = quantize(model, [FP32], profile=PI, store=store, progress=lambda step, done, total: steps.append(step))

    assert again == first
    assert set(steps) == {"verify tiny"}
    assert (first[0].path / "model.onnx").stat().st_mtime_ns == stamp


def test_a_variant_of_other_files_is_replaced_only_by_force(source, store):
    quantize(model_of(source.parent), [FP32], profile=LAPTOP, store=store)
    config = json.loads((source.parent / "config.json").read_text())
    (source.parent / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 16}))
    other = model_of(source.parent)

    with pytest.raises(EdgemlError, match="tiny/onnx-fp32 was made from other files"):
        quantize(other, [FP32], profile=LAPTOP, store=store)
    made = quantize(other, [FP32], profile=LAPTOP, store=store, terms=Terms(force=True))[0]

    assert (made.manifest.max_tokens, made.manifest.source_files) == (16, other.files)


def test_a_variant_for_other_integer_kernels_is_replaced_only_by_force(source, store):
    model = model_of(source.parent)
    quantize(model, [INT8], profile=LAPTOP, store=store)

    with pytest.raises(EdgemlError, match="was made for x86-64-avx2, and pi5 is arm64-dotprod"):
        quantize(model, [INT8], profile=PI, store=store)
    made = quantize(model, [INT8], profile=PI, store=store, terms=Terms(force=True))[0]

    assert made.manifest.built_for == "arm64-dotprod"


def test_strict_refuses_a_label_that_is_not_earned(source, store):
    in_half_floats(source)
    model = model_of(source.parent)
    strict = Terms(strict=True)

    with pytest.raises(EdgemlError, match="onnx:fp32 is not earned: table stayed in FLOAT16"):
        quantize(model, [FP32], profile=LAPTOP, store=store, terms=strict)
    assert left_in(store) == ["tiny"]

    made = quantize(model, [FP32], profile=LAPTOP, store=store)[0]
    assert not made.manifest.audit.earned
    with pytest.raises(EdgemlError, match="onnx:fp32 is not earned"):  # one that exists is no better
        quantize(model, [FP32], profile=LAPTOP, store=store, terms=strict)


def test_nothing_is_left_of_a_graph_that_does_not_load(source, store):
    model = onnx.load(source)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save_model(model, source)

    with pytest.raises(EdgemlError, match=r"cannot load model\.onnx: .*NoSuchOperator"):
        quantize(model_of(source.parent), [FP32], profile=LAPTOP, store=store)
    assert left_in(store) == ["tiny"]


def test_an_interrupt_leaves_what_was_there_before(source, store):
    model = model_of(source.parent)
    quantize(model, [FP32], profile=LAPTOP, store=store)
    before = {path: path.read_bytes() for path in store.root.rglob("*.*")}

    def interrupt(step, done, total):
        if "export" in step:
            raise KeyboardInterrupt

    for terms, scheme in ((Terms(force=True), FP32), (Terms(), INT8)):
        with pytest.raises(KeyboardInterrupt):
            quantize(model, [scheme], profile=LAPTOP, store=store, terms=terms, progress=interrupt)

    assert {path: path.read_bytes() for path in store.root.rglob("*.*")} == before


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_a_source_that_changed_since_its_download_is_refused(source, store, change):
    model = model_of(source.parent)
    content = bytearray(source.read_bytes())
    content[-20] ^= 1
    source.unlink() if change == "remove" else source.write_bytes(content)

    with pytest.raises(EdgemlError, match=r"model\.onnx is (missing|not the file that was recorded)"):
        quantize(model, [FP32], profile=LAPTOP, store=store)
    assert left_in(store) == []


def test_a_folder_that_edgeml_did_not_finish_is_not_overwritten(source, store):
    mine = store.root / "tiny" / "onnx-fp32" / "notes.txt"
    mine.parent.mkdir(parents=True)
    mine.touch()

    with pytest.raises(EdgemlError, match="onnx-fp32 exists already"):
        quantize(model_of(source.parent), [FP32], profile=LAPTOP, store=store)
    assert mine.exists()


def test_a_damaged_manifest_is_named(source, store):
    model = model_of(source.parent)
    made = quantize(model, [FP32], profile=LAPTOP, store=store)[0]
    (made.path / "variant.json").write_text("{}")

    with pytest.raises(EdgemlError, match=r"variant\.json has schema None"):
        quantize(model, [FP32], profile=LAPTOP, store=store)


def test_steps_are_reported_under_the_variants_name(source, store):
    steps = []
    quantize(model_of(source.parent), [FP32], profile=LAPTOP, store=store, progress=lambda *step: steps.append(step))

    assert ("tiny/onnx-fp32: audit", 4, 4) in steps
    assert steps[-1][0] == "tiny/onnx-fp32: digest"
    assert steps[-1][1] == steps[-1][2]
    assert steps[0][0] == "verify tiny"


@pytest.mark.parametrize(
    ("architecture", "format", "expected"),
    [
        ("BertModel", "safetensors", ["onnx:fp32", "onnx:int8"]),
        ("LlamaForCausalLM", "safetensors", ["gguf:q8_0", "gguf:q4_0"]),
        ("BertModel", "onnx", ["onnx:fp32", "onnx:int8"]),
        ("LlamaForCausalLM", "onnx", ["onnx:fp32", "onnx:int8"]),  # an ONNX file cannot become GGUF
    ],
)
def test_the_recommended_schemes_suit_model_format_and_target(tmp_path, architecture, format, expected):
    source = onnx_source(tmp_path / "model", architectures=[architecture])

    found = recommended(model_of(source.parent, format), PI)

    assert [str(scheme) for scheme in found] == expected


@pytest.mark.parametrize("maker", [bert_gguf, llama_gguf])
def test_a_gguf_is_recommended_gguf_schemes(tmp_path, maker):
    maker(tmp_path / "model.gguf")

    found = recommended(model_of(tmp_path, "gguf"), LAPTOP)

    assert [str(scheme) for scheme in found] == ["gguf:q8_0", "gguf:q4_k_m"]
