"""Models of every supported family become ONNX, and answer through the runtime as they do in PyTorch."""

import logging
import shutil
import warnings

import numpy as np
import pytest
from msgspec.structs import replace
from onnx.numpy_helper import from_array, to_array

from edgeml.errors import EdgemlError
from edgeml.formats import Request
from edgeml.formats.child import run_module
from edgeml.formats.onnx import audit as onnx_audit
from edgeml.formats.onnx import conversion as onnx_format
from edgeml.formats.onnx import export as onnx_export
from edgeml.formats.onnx import graph as onnx_graph
from edgeml.formats.view import link_data
from edgeml.progress import silent
from edgeml.quantize import quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme
from edgeml_runtime.records import describe, write_record
from edgeml_runtime.session import open_session
from edgeml_runtime.types import File
from tiny import orders
from tiny.families import SETTINGS, family_folder
from tiny.gguf import bert_gguf
from tiny.graphs import onnx_source

TEXTS = ["a plain line of text", "x", "another, longer line: with 12 words and 3 more!", "", "\x00 ☃"]
ENCODERS = [name for name in SETTINGS if not name.endswith("CausalLM")]
DECODERS = [name for name in SETTINGS if name.endswith("CausalLM")]


def model_of(folder, *, format="safetensors"):
    files = describe(folder)
    return Model(name="tiny", ref=str(folder), path=str(folder), files=files, format=format, downloaded="2026-01-01")


def variant_of(folder, root, scheme, *, format="safetensors", target="laptop"):
    schemes = [Scheme.parse(scheme)]
    return quantize(model_of(folder, format=format), schemes, profile=profile(target), store=Store(root))[0]


class Families:
    """Each family's folder and its export in fp32, made once, in this process: PyTorch takes long to load."""

    def __init__(self, root):
        self.root = root

    def folder(self, architecture):
        path = self.root / architecture
        return path if path.exists() else family_folder(path, architecture)

    def graph(self, architecture):
        """A folder with the family's ONNX file and its small files, which is a source as well."""
        path = self.root / f"{architecture}.onnx"
        if not path.exists():
            folder = self.folder(architecture)
            kind = "decoder" if architecture in DECODERS else "encoder"
            part, shared = self.root / "part", self.root / f"{architecture}.shared"
            part.mkdir()
            shared.mkdir()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's own
                logging.disable()  # else pytest keeps every step of the tracer
                orders.convert(folder, part, shared, kind=kind, scheme="fp32")
                logging.disable(logging.NOTSET)
            for name in ("config.json", "tokenizer_config.json"):
                shutil.copy(folder / name, part)
            part.rename(path)
        return path


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    return Families(tmp_path_factory.mktemp("families"))


def in_pytorch(folder, architecture):
    import torch
    import transformers

    kind = getattr(transformers, architecture.replace("ForMaskedLM", "Model"))
    return torch, kind.from_pretrained(folder).eval()


def pytorch_vectors(folder, architecture, texts):
    """Mean over the tokens of one padded batch, padded as the model's own configuration says."""
    from tokenizers import Tokenizer

    torch, model = in_pytorch(folder, architecture)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    rows = [tokenizer.encode(text).ids for text in texts]
    ids = torch.full((len(rows), max(map(len, rows))), model.config.pad_token_id)
    mask = torch.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = torch.tensor(row)
        mask[index, : len(row)] = 1
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
    return ((hidden * mask[:, :, None]).sum(1) / mask.sum(1, keepdim=True)).numpy()


def cosines(one, other):
    return (one * other).sum(1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)


@pytest.mark.real
@pytest.mark.parametrize("architecture", ENCODERS)
def test_an_encoder_answers_a_ragged_batch_as_in_pytorch(families, tmp_path, architecture):
    expected = pytorch_vectors(families.folder(architecture), architecture, TEXTS)
    source = families.graph(architecture)

    whole = open_session(variant_of(source, tmp_path, "onnx:fp32", format="onnx").path, threads=1)
    small = variant_of(source, tmp_path, "onnx:int8", format="onnx")
    integers = open_session(small.path, threads=1)

    np.testing.assert_allclose(whole.embed(TEXTS), expected, atol=1e-4)
    for index, text in enumerate(TEXTS):  # alone, without any padding
        np.testing.assert_allclose(whole.embed([text])[0], expected[index], atol=1e-4)
    assert cosines(integers.embed(TEXTS), expected).min() > 0.99
    assert small.manifest.audit.earned
    assert small.manifest.audit.share_quantized > 0.9


@pytest.mark.real
def test_the_head_that_a_decoder_shares_with_its_embedding_becomes_integers_too(families, tmp_path):
    from onnx import load

    made = variant_of(families.graph("Qwen2ForCausalLM"), tmp_path, "onnx:int8", format="onnx")
    operators = [node.op_type for node in load(made.path / "model.onnx").graph.node]

    assert "FusedMatMul" not in operators
    assert made.manifest.audit.bits_per_weight > 8 + 1  # the second copy counts as bits, not as parameters


@pytest.mark.real
def test_the_same_source_gives_the_same_bytes_from_any_folder(families, tmp_path):
    source = shutil.copytree(families.folder("BertModel"), tmp_path / "another place")

    made = (variant_of(source, tmp_path / "artifacts", "onnx:fp32").path / "model.onnx").read_bytes()

    assert made == (families.graph("BertModel") / "model.onnx").read_bytes()
    for trace in (str(tmp_path), "site-packages", "another place", "stack_trace", ".py"):
        assert trace.encode() not in made, trace


@pytest.mark.real
def test_a_sentence_transformer_keeps_its_answers_in_a_quarter_of_the_bits(minilm_folder, tmp_path):
    made = variant_of(minilm_folder, tmp_path, "onnx:int8")

    audit = made.manifest.audit
    assert (made.path / "model.onnx").stat().st_size < 23_300_000
    assert (audit.parameters, audit.earned) == (22_565_376, True)  # of the model's 22.7 million, all but the pooler's
    assert 8.0 < audit.bits_per_weight < 8.2
    assert audit.share_quantized > 0.99
    assert (made.manifest.max_tokens, made.manifest.pooling, made.manifest.normalize) == (256, "mean", True)
    operators = {node.op_type for node in onnx_graph.load(made.path / "model.onnx").graph.node}
    assert "QAttention" in operators
    assert "SkipLayerNormalization" not in operators
    session = open_session(made.path, threads=1)
    one, other, third = session.embed(["A man is eating food.", "A man eats.", "The stock market fell."])
    assert one @ other > 0.7
    assert one @ third < 0.2


@pytest.mark.real
def test_no_pickle_that_lies_beside_the_recorded_files_is_opened(families, tmp_path):
    source = shutil.copytree(families.folder("BertModel"), tmp_path / "model")
    (source / "model.safetensors").rename(source / "weights.safetensors")
    model = model_of(source)
    (source / "pytorch_model.bin").write_bytes(b"not even a pickle")

    for folder in (source, source.parent / "view"):
        with pytest.raises(OSError, match=r"no file named model\.safetensors"):
            onnx_export.export_encoder(folder, tmp_path / "made")
        if folder == source:
            link_data(model, source.parent / "view")
    assert not (tmp_path / "view" / "pytorch_model.bin").exists()


@pytest.mark.real
@pytest.mark.parametrize(
    ("damage", "message"), [("cut", "making onnx:fp32 of tiny ended with code 1: .*"), ("lacks", "the weights lack .*")]
)
def test_weights_that_are_not_whole_are_refused(families, tmp_path, damage, message):
    from safetensors.numpy import load_file, save_file

    source = shutil.copytree(families.folder("BertModel"), tmp_path / "model")
    weights = source / "model.safetensors"
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-1000])
    else:
        tensors = {name: tensor for name, tensor in load_file(weights).items() if ".0.output.dense" not in name}
        save_file(tensors, weights, metadata={"format": "pt"})

    with pytest.raises(EdgemlError, match=message) as caught:
        variant_of(source, tmp_path / "artifacts", "onnx:fp32")
    assert "\n" not in caught.value.message
    assert [path.name for path in (tmp_path / "artifacts").rglob("*")] == ["tiny"]


def refusal(folder, tmp_path, scheme="onnx:fp32", *, format="onnx"):
    with pytest.raises(EdgemlError) as caught:
        variant_of(folder, tmp_path / "artifacts", scheme, format=format)
    assert not list((tmp_path / "artifacts").rglob("*onnx*"))
    return caught.value


def test_an_unsupported_class_is_named_with_those_that_are_supported_for_its_task(tmp_path):
    folder = onnx_source(tmp_path / "model", architectures=["FNetModel"]).parent

    error = refusal(folder, tmp_path, format="safetensors")

    assert error.message == "tiny is a FNetModel, which edgeml cannot make into ONNX for feature-extraction"
    assert "BertModel" in error.hint
    assert "LlamaForCausalLM" not in error.hint


@pytest.mark.parametrize("architecture", SETTINGS)
def test_every_family_that_is_tested_is_supported(architecture):
    assert any(architecture in names for names in onnx_format.CLASSES.values())


def test_a_gguf_model_cannot_become_onnx(tmp_path):
    bert_gguf(tmp_path / "model.gguf")

    assert "is a GGUF model, which cannot become ONNX" in refusal(tmp_path, tmp_path, format="gguf").message


def test_a_graph_that_is_quantized_already_is_named(tmp_path):
    source = onnx_source(tmp_path / "model")
    small = variant_of(source.parent, tmp_path / "first", "onnx:int8", format="onnx")
    shutil.copy(small.path / "model.onnx", source)

    for scheme in ("onnx:fp32", "onnx:int8"):
        error = refusal(source.parent, tmp_path, scheme)
        assert "tiny is quantized already (UINT8) and cannot become ONNX" in error.message


def test_a_model_that_is_quantized_by_its_configuration_is_named(tmp_path):
    folder = onnx_source(tmp_path / "model", quantization_config={"quant_method": "gptq"}).parent

    assert "is quantized already (gptq)" in refusal(folder, tmp_path, format="safetensors").message


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.onnx", b"", "model.onnx is no complete ONNX file"),
        ("model.onnx", b"\x08\x0a" + b"garbage" * 99, "model.onnx is no complete ONNX file"),
        ("config.json", None, "tiny has no config.json"),
        ("config.json", b"[]", "config.json holds no settings"),
        ("tokenizer.json", None, "there is no tokenizer in"),
        ("tokenizer.json", b"{}", "cannot read the tokenizer in"),
    ],
)
def test_a_source_with_a_broken_file_is_refused(tmp_path, name, content, message):
    path = onnx_source(tmp_path / "model").parent / name
    path.unlink() if content is None else path.write_bytes(content)

    error = refusal(path.parent, tmp_path)
    assert message in error.message
    assert "ended with code" not in error.message
    assert "\n" not in error.message


def test_a_file_that_was_not_recorded_is_not_read(tmp_path):
    folder = onnx_source(tmp_path / "model").parent
    model = model_of(folder, format="onnx")
    less = replace(model, files=tuple(file for file in model.files if file.path != "tokenizer.json"))

    with pytest.raises(EdgemlError, match="there is no tokenizer in tiny"):
        quantize(less, [Scheme.parse("onnx:fp32")], profile=profile("laptop"), store=Store(tmp_path / "artifacts"))


def test_a_truncated_graph_is_refused(tmp_path):
    source = onnx_source(tmp_path / "model")
    source.write_bytes(source.read_bytes()[:-100])

    assert "is no complete ONNX file" in refusal(source.parent, tmp_path).message


def test_a_graph_that_wants_other_inputs_is_refused(tmp_path):
    source = onnx_source(tmp_path / "model")
    model = onnx_graph.load(source)
    model.graph.input[2].name = "pixel_values"
    onnx_graph.save(model, source)

    assert "takes pixel_values, which edgeml does not feed" in refusal(source.parent, tmp_path).message


def test_a_disk_without_room_is_seen_before_anything_is_written(tmp_path):
    model = model_of(onnx_source(tmp_path / "model").parent, format="onnx")
    huge = replace(model, files=(*model.files, File(path="model.onnx.data", size_bytes=1 << 60, sha256="0" * 64)))
    request = Request(model=huge, traits=read_traits(model), scheme=Scheme.parse("onnx:int8"), profile=profile("pi"))
    (tmp_path / "made").mkdir()

    with pytest.raises(EdgemlError, match=r"not enough space in .*: \d+\.\d GB needed"):
        onnx_format.convert(request, tmp_path / "made", progress=silent)
    assert not list((tmp_path / "made").iterdir())


@pytest.mark.parametrize("scheme", ["fp32", "int8"])
def test_a_large_graph_keeps_its_weights_beside_it_and_runs(tmp_path, monkeypatch, scheme):
    source = onnx_source(tmp_path / "model")
    model = onnx_graph.load(source)
    table = model.graph.initializer[0]
    table.CopyFrom(from_array(np.tile(to_array(table), (3, 1)), table.name))  # a tensor under 1 KB stays inside
    onnx_graph.save(model, source)
    whole = variant_of(source.parent, tmp_path / "whole", f"onnx:{scheme}", format="onnx")
    split = tmp_path / "split"
    split.mkdir()
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)

    orders.convert(source, split, tmp_path, kind="encoder", scheme=scheme)

    assert {path.name for path in split.iterdir()} == {"model.onnx", "model.onnx.data", "tokenizer.json"}
    write_record(split / "variant.json", replace(whole.manifest, files=describe(split)))
    np.testing.assert_array_equal(
        open_session(split, threads=1).embed(TEXTS), open_session(whole.path, threads=1).embed(TEXTS)
    )


def test_a_source_with_its_weights_beside_it_is_taken_whole(tmp_path, monkeypatch):
    source = onnx_source(tmp_path / "model")
    before = source.read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
        onnx_graph.save(onnx_graph.load(source), source)
    assert len(source.read_bytes()) < len(before)

    made = variant_of(source.parent, tmp_path / "artifacts", "onnx:fp32", format="onnx")

    assert {file.path for file in made.manifest.files} == {"model.onnx", "tokenizer.json"}
    assert made.manifest.audit.parameters == onnx_audit.audit(source, "fp32").parameters


def test_all_that_a_failing_child_said_is_kept_for_whoever_looks(tmp_path):
    with pytest.raises(EdgemlError, match=r"^parsing ended with code 2: .*error.*$") as caught:
        run_module("json.tool", ["--no-such-option"], what="parsing", hint="", follow=lambda line: None)
    assert isinstance(caught.value.__cause__, RuntimeError)
    assert "usage:" in str(caught.value.__cause__)
