"""What an ONNX file holds, counted from the file itself."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.audit import audit, check_interface, interface, source_type
from edgeml.formats.onnx.graph import split_heads
from edgeml.formats.onnx.int8 import write_int8
from tiny.graphs import WIDTH, WORDS, graph_model, onnx_source

SHAPE = ["batch", "tokens"]


def tied(kind=np.float32):
    """An embedding, a norm's vector, and a head that shares the embedding."""
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Mul", ["x", "gamma"], ["y"]),
        helper.make_node("FusedMatMul", ["y", "table"], ["logits"], domain="com.microsoft", transB=1),
    ]
    stored = {"table": random.random((WORDS, WIDTH)).astype(kind), "gamma": np.ones(WIDTH, kind)}
    return graph_model(nodes, {"input_ids": SHAPE}, {"logits": [*SHAPE, WORDS]}, stored)


def saved(model, path):
    onnx.save_model(model, path)
    return path


def quantized(model, tmp_path):
    write_int8(saved(model, tmp_path / "fp32.onnx"), tmp_path / "int8.onnx", "x86-64-avx2")
    return tmp_path / "int8.onnx"


def test_a_file_in_fp32_has_32_bits_a_weight(tmp_path):
    found = audit(saved(tied(), tmp_path / "model.onnx"), "fp32")

    assert found.tensor_types == {"FLOAT": WORDS * WIDTH + WIDTH}
    assert (found.parameters, found.bits_per_weight) == (WORDS * WIDTH + WIDTH, 32.0)
    assert (found.share_quantized, found.earned, found.shortfalls) == (0.0, True, ())


def test_a_weight_left_in_fp32_is_named_and_the_label_not_earned(tmp_path):
    from onnxruntime.quantization import quantize_dynamic

    source = saved(split_heads(tied()), tmp_path / "fp32.onnx")
    quantize_dynamic(source, tmp_path / "int8.onnx", op_types_to_quantize=["MatMul"])  # and no lookups

    found = audit(tmp_path / "int8.onnx", "int8")

    assert not found.earned
    assert found.shortfalls == ("table stayed in FLOAT: 95% of parameters",)


def test_scales_and_second_copies_are_bits_but_no_parameters(tmp_path):
    found = audit(quantized(split_heads(tied()), tmp_path), "int8")

    weights, scales = WORDS * WIDTH, 1 + WORDS  # one for the table, one for each column of the head
    assert found.parameters == weights + WIDTH
    assert found.bits_per_weight * found.parameters == 2 * 8 * weights + 32 * WIDTH + scales * (32 + 8)
    assert found.share_quantized == weights / found.parameters
    assert found.earned


def test_a_copy_left_in_fp32_is_not_overlooked(tmp_path):
    model = split_heads(tied())
    table = numpy_helper.from_array(np.zeros((WORDS, WIDTH), np.int8), "table")
    model.graph.initializer[0].CopyFrom(table)

    assert audit(saved(model, tmp_path / "model.onnx"), "int8").shortfalls[0].startswith("table.copy stayed in")


def test_half_floats_do_not_earn_the_label_fp32(tmp_path):
    found = audit(saved(tied(np.float16), tmp_path / "model.onnx"), "fp32")

    assert not found.earned
    assert found.bits_per_weight == 16.0
    assert "table stayed in FLOAT16" in found.shortfalls[0]


def test_weights_in_constant_nodes_are_counted(tmp_path):
    model = tied()
    table = model.graph.initializer[0]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["table"], value=table))
    model.graph.initializer.remove(table)

    assert audit(saved(model, tmp_path / "model.onnx"), "int8").shortfalls


def test_a_file_without_parameters_is_refused(tmp_path):
    node = helper.make_node("Identity", ["input_ids"], ["y"])
    path = saved(graph_model([node], {"input_ids": SHAPE}, {"y": SHAPE}, {}), tmp_path / "model.onnx")

    with pytest.raises(EdgemlError, match=r"model\.onnx holds no parameters"):
        audit(path, "fp32")


def test_the_type_of_a_quantized_source_is_named(tmp_path):
    assert source_type(saved(tied(), tmp_path / "model.onnx")) is None
    assert source_type(quantized(split_heads(tied()), tmp_path)) in ("INT8", "UINT8")


def test_the_interface_is_read_from_the_graph(tmp_path):
    path = onnx_source(tmp_path / "model")

    assert interface(path) == (("input_ids", "attention_mask", "token_type_ids"), ("last_hidden_state",))
    check_interface(path, kind="encoder")


def with_input(name, kind=onnx.TensorProto.INT64):
    model = tied()
    if name == "input_ids":
        del model.graph.input[:]
    model.graph.input.append(helper.make_tensor_value_info(name, kind, SHAPE))
    return model


@pytest.mark.parametrize(
    ("model", "kind", "message"),
    [
        (lambda: with_input("pixel_values"), "encoder", "takes pixel_values, which edgeml does not feed"),
        (lambda: with_input("past_key_values.0.key"), "decoder", "takes past_key_values.0.key, which"),
        (lambda: with_input("input_ids", onnx.TensorProto.INT32), "encoder", "takes input_ids, which"),
    ],
)
def test_a_graph_that_the_runtime_could_not_feed_is_refused(tmp_path, model, kind, message):
    path = saved(model(), tmp_path / "model.onnx")

    with pytest.raises(EdgemlError, match=message):
        check_interface(path, kind=kind)


def test_a_graph_that_gives_one_vector_a_text_is_refused(tmp_path):
    model = tied()
    del model.graph.output[0].type.tensor_type.shape.dim[1]
    path = saved(model, tmp_path / "model.onnx")

    with pytest.raises(EdgemlError, match="gives logits of 2 axes, where batch, tokens and width are needed"):
        check_interface(path, kind="encoder")
