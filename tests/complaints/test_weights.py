"""Weights that are none, and files that are longer or shorter than they say.

Threads: ggml-org/llama.cpp#7311, #8661, #2708, #28474.
"""

import struct

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from edgeml.formats.finite import check_finite
from edgeml.formats.gguf.header import read_header
from edgeml.store import Store
from tiny.commands import edgeml, gguf_model, inside
from tiny.gguf import llama_gguf
from tiny.refusals import refusal
from tiny.safetensors import bert_folder
from tiny.variants import onnx_variant

NOT_A_NUMBER = (np.nan, np.inf, -np.inf)


def unseen(size_bytes):
    pass


def gguf_with(path, value):
    """A decoder one of whose norms holds that value."""
    llama_gguf(path, width=64, layers=1, type="F32")
    (norm,) = [tensor for tensor in read_header(path).tensors if tensor.name == "output_norm.weight"]
    content = bytearray(path.read_bytes())
    content[norm.offset + 20 : norm.offset + 24] = struct.pack("<f", value)
    path.write_bytes(content)
    return path


def safetensors_with(path, value, kind=np.float32):
    save_file({"good": np.ones(7, kind), "bad.weight": np.array([[1, 2], [value, 3]], kind)}, path)
    return path


def onnx_with(folder, value):
    path = onnx_variant(folder).path / "model.onnx"
    model = onnx.load(path)
    mix = next(one for one in model.graph.initializer if one.name == "mix")
    array = numpy_helper.to_array(mix).copy()
    array[2, 3] = value
    mix.CopyFrom(numpy_helper.from_array(array, "mix"))
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("value", NOT_A_NUMBER)
def test_a_tensor_that_holds_no_numbers_is_named_in_every_format(tmp_path, value):
    """ggml-org/llama.cpp#7311, #8661: a quantizer makes zeros, or an abort, of what was no number before."""
    files = {
        "output_norm.weight": gguf_with(tmp_path / "model.gguf", value),
        "bad.weight": safetensors_with(tmp_path / "model.safetensors", value),
        "mix": onnx_with(tmp_path / "onnx", value),
    }
    for name, path in files.items():
        assert refusal(check_finite, [path], tick=unseen).startswith(f"'{name}' in {path.name} holds NaN or")


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_widths_of_numbers_are_looked_at_too(tmp_path, kind):
    refusal(check_finite, [safetensors_with(tmp_path / "model.safetensors", np.nan, kind)], tick=unseen)
    check_finite([safetensors_with(tmp_path / "fine.safetensors", 60000, kind)], tick=unseen)


def test_numbers_in_bfloat16_are_read_by_their_bits(tmp_path):
    header = b'{"a": {"dtype": "BF16", "shape": [2], "data_offsets": [0, 4]}}'
    for last, fine in ((0x7F7F, True), (0x7F80, False), (0xFFC0, False)):
        path = tmp_path / f"{last}.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<HH", 0x3F80, last))
        if fine:
            check_finite([path], tick=unseen)
        else:
            refusal(check_finite, [path], tick=unseen)


def test_a_mask_of_minus_infinity_in_a_graph_is_no_fault(tmp_path):
    path = onnx_with(tmp_path / "onnx", 0.0)
    model = onnx.load(path)
    mask = np.triu(np.full((4, 4), -np.inf, np.float32), 1)
    model.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    onnx.save(model, path)
    check_finite([path], tick=unseen)


def test_quantize_refuses_such_a_model_before_it_makes_anything(tmp_path):
    """ggml-org/llama.cpp#8661: the file was made, and answered nothing."""
    gguf = gguf_with(tmp_path / "bad.gguf", np.nan)
    store = tmp_path / "artifacts"
    assert inside("download", gguf, "--artifacts", store).code == 0
    done = inside("quantize", "bad", "--to", "gguf:q8_0", "--artifacts", store)

    assert done.code == 3
    assert done.refusal[0].startswith("'output_norm.weight' in bad.gguf holds NaN")
    assert not list(store.rglob("variant.json"))


@pytest.mark.real
def test_quantize_refuses_such_weights_of_a_folder(tmp_path):
    folder = bert_folder(tmp_path / "model", width=64)
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("dense.weight"))
    weights[name][0, 0] = np.inf
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    store = tmp_path / "artifacts"
    assert edgeml("download", folder, "--artifacts", store).code == 0
    done = edgeml("quantize", "model", "--to", "onnx:int8", "--artifacts", store)

    assert done.code == 3
    assert name in done.refusal[0]


@pytest.mark.parametrize("more", [b"\0", b"\0" * 4096, b"GGUF" * 9])
def test_what_follows_the_last_tensor_changes_nothing(tmp_path, more):
    """Files are padded by disks and transfers; what was downloaded is known by its digest."""
    path = llama_gguf(tmp_path / "model.gguf", width=64, layers=1)
    whole = read_header(path)
    path.write_bytes(path.read_bytes() + more)

    assert read_header(path).tensors == whole.tensors


def test_what_was_quantized_is_there_smaller_and_alone(tmp_path):
    """ggml-org/llama.cpp#2708, #28474: it ended well, and what was made was something else."""
    store = Store(tmp_path / "artifacts")
    model = gguf_model(store)
    done = inside("quantize", "tiny", "--to", "gguf:q8_0", "--artifacts", store.root)
    folder = store.variant_folder("tiny", "gguf-q8_0")

    assert done.code == 0, done.err
    assert {path.name for path in folder.iterdir()} == {"model.gguf", "variant.json"}
    assert (folder / "model.gguf").stat().st_size < 0.6 * model.size_bytes
