"""Static int8: which operators, in which integers, and what stays whole."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgeml.formats.onnx.audit import audit
from edgeml.formats.onnx.fuse import agree, fuse_attention, open_attention
from edgeml.formats.onnx.inputs import open_inputs
from edgeml.formats.onnx.int8 import INTEGERS, write_int8
from edgeml.formats.onnx.judge import Judge
from edgeml.formats.onnx.ranges import Range
from edgeml.formats.onnx.schemes import make
from edgeml.formats.onnx.static import write_static
from tiny.graphs import HEADS, WIDTH, WORDS, attention_model, graph_model
from tiny.works import CHANNELS, graph_work, picture_work, text_work, two_products


def operators(path):
    return [node.op_type for node in onnx.load(path).graph.node]


def stored(path):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize("kernels", INTEGERS)
def test_activations_are_signed_where_the_processor_multiplies_signed_bytes(tmp_path, kernels):
    found = stored(make(graph_work(tmp_path, two_products(), scheme="int8-static", kernels=kernels)).path)

    assert found["bent_zero_point"].dtype == (np.int8 if kernels.startswith("arm") else np.uint8)
    assert found["first_quantized"].dtype == np.int8
    most = np.abs(found["first_quantized"].astype(int)).max()
    assert most <= 64 if kernels == "x86-64-avx2" else most == 127  # 7 bits where sums saturate
    assert found["first_scale"].shape == (WIDTH,)  # a scale a column


def test_the_library_runs_what_is_written_as_integers(tmp_path):
    made = make(text_work(tmp_path, scheme="int8-static"))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])

    assert "MatMul" in operators(made.path)
    assert "MatMulIntegerToFloat" in operators(tmp_path / "optimized.onnx")


def test_a_depthwise_convolution_keeps_its_quiet_channels_by_a_scale_for_each(tmp_path):
    work = picture_work(tmp_path, scheme="int8-static")
    made = make(work)

    scales = stored(made.path)["each_scale"]
    assert scales.shape == (CHANNELS,)
    assert scales[0] > 50 * scales[1:].max()
    assert made.settings["agreement"][made.settings["chosen"]] > 0.999

    model = onnx.load(work.whole)  # and with one scale for all channels, nothing else in integers:
    each = next(tensor for tensor in model.graph.initializer if tensor.name == "each")
    array = numpy_helper.to_array(each)
    scale = np.abs(array).max() / 127
    each.CopyFrom(numpy_helper.from_array((np.round(array / scale) * scale).astype(np.float32), "each"))
    onnx.save_model(model, tmp_path / "one.onnx")
    judge = Judge(work.whole, open_inputs(work.order, work.whole), "image")
    assert judge.agreement(tmp_path / "one.onnx") < 0.98


def test_a_convolutional_net_stays_in_integers_between_its_convolutions(tmp_path):
    made = make(picture_work(tmp_path, scheme="int8-static"))
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    onnxruntime.InferenceSession(str(made.path), options, providers=["CPUExecutionProvider"])

    assert operators(tmp_path / "optimized.onnx").count("QLinearConv") == 2
    assert audit(made.path, "int8-static").earned


def test_integer_biases_are_parameters_and_their_bits_are_counted(tmp_path):
    found = audit(make(picture_work(tmp_path, scheme="int8-static")).path, "int8-static")

    weights, biases = 3 * CHANNELS + 9 * CHANNELS + 3 * CHANNELS, CHANNELS + 3
    assert found.tensor_types == {"INT8": weights, "INT32": biases}
    assert found.parameters == weights + biases
    assert found.bits_per_weight > 8


def test_a_range_of_nothing_has_a_scale_that_is_not_zero(tmp_path):
    work = graph_work(tmp_path, two_products())
    ranges = dict.fromkeys(("letters", "mixed", "bent"), Range(0.0, 0.0))

    path = write_static(work.whole, tmp_path / "zero.onnx", "x86-64-vnni", ranges)

    assert stored(path)["bent_scale"] == 1.0
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    feeds = {item.name: np.ones((1, 3), np.int64) for item in session.get_inputs()}
    assert np.isfinite(session.run(None, feeds)[0]).all()


def test_a_lookup_of_what_was_computed_needs_no_range(tmp_path):
    """As where a model takes the first token of what its last layer gives."""
    random = np.random.default_rng(0)
    tensors = {
        "table": random.standard_normal((WORDS * 10, WIDTH)).astype(np.float32),
        "mix": random.standard_normal((WIDTH, WIDTH)).astype(np.float32),
        "first": np.array([0], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("MatMul", ["x", "mix"], ["y"]),
        helper.make_node("Gather", ["y", "first"], ["z"], axis=1),
        helper.make_node("MatMul", ["z", "mix"], ["last_hidden_state"]),
    ]
    shape = ["batch", "tokens"]
    model = graph_model(nodes, {"input_ids": shape}, {"last_hidden_state": [*shape, WIDTH]}, tensors)

    made = make(graph_work(tmp_path, model, scheme="int8-static"))

    assert audit(made.path, "int8-static").earned
    assert made.settings["agreement"][made.settings["chosen"]] > 0.99


def test_an_attention_is_opened_into_a_product_and_gives_the_same(tmp_path):
    from onnx import save_model

    model = attention_model()
    fuse_attention(model, HEADS)
    save_model(model, tmp_path / "closed.onnx")
    open_attention(model)
    save_model(model, tmp_path / "open.onnx")

    assert "Attention" in operators(tmp_path / "closed.onnx")
    assert "MultiHeadAttention" in operators(tmp_path / "open.onnx")
    assert agree(tmp_path / "closed.onnx", tmp_path / "open.onnx")


def test_dynamic_int8_keeps_what_it_is_told_to_keep(tmp_path):
    work = text_work(tmp_path)
    model = onnx.load(work.whole)
    for node in model.graph.node:
        node.name = node.output[0]
    onnx.save_model(model, work.whole)

    kept = write_int8(work.whole, tmp_path / "kept.onnx", "x86-64-vnni", kept=["mixed"])
    only = write_int8(work.whole, tmp_path / "only.onnx", "x86-64-vnni", only=["mixed"])

    assert stored(kept)["mix"].dtype == np.float32
    assert "table_quantized" in stored(kept)
    assert stored(only)["table"].dtype == np.float32
    assert "mix_quantized" in stored(only)
