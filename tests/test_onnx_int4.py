"""int4 and fp16: what is packed, how it is counted, and what is measured to choose how it is computed."""

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edgeml.formats import Wishes
from edgeml.formats.onnx.audit import audit
from edgeml.formats.onnx.half import LARGEST, write_half
from edgeml.formats.onnx.int4 import BLOCKS, PACKINGS, Packing, block_size, products_of_gemms, write_int4
from edgeml.formats.onnx.nodes import name_nodes
from edgeml.formats.onnx.schemes import make
from tiny.graphs import graph_model
from tiny.refusals import refusal
from tiny.works import graph_work, picture_work, text_work, two_products

RANDOM = np.random.default_rng(0)


def product(rows, columns):
    """One product by a matrix, and its lookup table with as many columns as the matrix has rows."""
    tensors = {
        "table": RANDOM.standard_normal((40, rows)).astype(np.float32),
        "mix": RANDOM.standard_normal((rows, columns)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"], "lookup"),
        helper.make_node("MatMul", ["x", "mix"], ["y"], "mixing"),
    ]
    return graph_model(nodes, {"input_ids": ["batch", "tokens"]}, {"y": ["batch", "tokens", columns]}, tensors)


def written(model, path, block=32, packing=PACKINGS[0]):
    onnx.save_model(model, path)
    return write_int4(name_nodes(path, path), path.with_suffix(".int4"), block=block, packing=packing)


def answers(path, ids):
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, {"input_ids": np.array([ids])})[0]


@pytest.mark.parametrize("packing", PACKINGS, ids=lambda one: one.name)
@pytest.mark.parametrize("block", BLOCKS)
def test_the_runtime_computes_every_packing_and_block(tmp_path, packing, block):
    small = written(product(256, 24), tmp_path / "model.onnx", block, packing)

    theirs, ours = answers(tmp_path / "model.onnx", [1, 7, 39]), answers(small, [1, 7, 39])

    assert (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.95


@pytest.mark.parametrize("rows", [33, 40, 100])
def test_a_column_that_is_no_multiple_of_the_block_is_packed_and_counted(tmp_path, rows):
    small = written(product(rows, 10), tmp_path / "model.onnx")

    found = audit(small, "int4")

    assert found.parameters == 40 * rows + rows * 10
    assert found.tensor_types == {"UINT4": found.parameters}
    assert (found.earned, found.share_quantized) == (True, 1.0)
    ours, theirs = answers(small, [1, 7]), answers(tmp_path / "model.onnx", [1, 7])
    assert (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs) > 0.95


@pytest.mark.parametrize(("packing", "kind", "zero_bits"), [(Packing(True, 0), "INT4", 0), (PACKINGS[0], "UINT4", 4)])
def test_bits_are_those_of_blocks_scales_and_zero_points(tmp_path, packing, kind, zero_bits):
    found = audit(written(product(64, 32), tmp_path / "model.onnx", 32, packing), "int4")

    assert found.tensor_types == {kind: 40 * 64 + 64 * 32}
    assert found.bits_per_weight == pytest.approx(4 + (32 + zero_bits) / 32)


def test_a_weight_that_stayed_in_fp32_makes_int4_not_earned(tmp_path):
    model = product(64, 32)
    onnx.save_model(model, tmp_path / "model.onnx")
    small = write_int4(tmp_path / "model.onnx", tmp_path / "int4.onnx", block=32, packing=PACKINGS[0], kept=["lookup"])

    found = audit(small, "int4")

    assert not found.earned
    assert found.shortfalls == ("table stayed in FLOAT: 56% of parameters",)


def test_only_the_block_sizes_that_kernels_have_are_taken():
    assert [block_size(one) for one in BLOCKS] == list(BLOCKS)
    assert block_size(None) == 32
    assert refusal(block_size, 48) == "--block-size 48 is none that int4 kernels have"
    assert refusal(block_size, 512) == "--block-size 512 is none that int4 kernels have"


def test_how_int4_is_computed_is_measured(tmp_path):
    made = make(graph_work(tmp_path, two_products(), scheme="int4", wishes=Wishes(block_size=16)))

    found = made.settings
    assert set(found["agreement"]) == {packing.name for packing in PACKINGS}
    assert set(found["times_ms"]) == {"fp32", *found["agreement"]}
    assert found["block_size"] == 16
    best = max(found["agreement"].values())
    assert found["agreement"][found["chosen"]] >= best - 0.001
    levels = {
        attribute.i
        for node in onnx.load(made.path).graph.node
        for attribute in node.attribute
        if attribute.name == "accuracy_level"
    }
    assert levels == ({4} if found["chosen"].endswith("4") else set())


@pytest.mark.parametrize(("kernels", "level"), [("arm64", 0), ("arm64-dotprod", 4)])
def test_for_another_machine_bytes_are_multiplied_where_it_has_an_instruction_for_that(tmp_path, kernels, level):
    found = make(graph_work(tmp_path, two_products(), scheme="int4", kernels=kernels, here=False)).settings

    assert found["chosen"].endswith(f"level {level}")


def test_a_product_with_a_bias_becomes_two_nodes_that_give_the_same(tmp_path):
    tensors = {"w": RANDOM.standard_normal((4, 6)).astype(np.float32), "b": np.ones(4, np.float32)}
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "head", transB=1)]
    model = graph_model(nodes, {"x": ["batch", 6]}, {"y": ["batch", 4]}, tensors)
    feeds = {"x": RANDOM.standard_normal((3, 6)).astype(np.float32)}
    before = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]

    products_of_gemms(model)

    assert [node.op_type for node in model.graph.node] == ["MatMul", "Add"]
    after = onnxruntime.InferenceSession(model.SerializeToString()).run(None, feeds)[0]
    np.testing.assert_allclose(after, before, rtol=1e-5)


@pytest.mark.parametrize("scheme", ["fp16", "int8", "int8-static"])
def test_a_convolutional_net_answers_in_every_scheme_that_it_may_have(tmp_path, scheme):
    made = make(picture_work(tmp_path, scheme=scheme))

    assert made.settings["agreement"][made.settings["chosen"]] > 0.99
    assert audit(made.path, scheme).earned


def test_half_precision_keeps_inputs_and_outputs_and_halves_the_bits(tmp_path):
    made = make(text_work(tmp_path, scheme="fp16"))

    model = onnx.load(made.path)
    assert model.graph.output[0].type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    found = audit(made.path, "fp16")
    assert (found.bits_per_weight, found.earned) == (16.0, True)
    assert "clipped" not in made.settings


def test_weights_too_large_for_half_precision_are_cut_and_counted(tmp_path):
    model = product(8, 8)
    table = numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[3, :2] = (1e6, -1e6)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    onnx.save_model(model, tmp_path / "model.onnx")

    clipped = write_half(tmp_path / "model.onnx", tmp_path / "half.onnx")

    stored = {one.name: numpy_helper.to_array(one) for one in onnx.load(tmp_path / "half.onnx").graph.initializer}
    assert clipped == 2
    assert stored["table"].dtype == np.float16
    assert sorted(stored["table"][3, :2]) == [-LARGEST, LARGEST]


def test_a_model_that_half_precision_cannot_compute_is_refused(tmp_path):
    model = two_products()
    model.graph.node[2].op_type = "Exp"  # of sums of several hundred
    for at in (0, 1):
        big = numpy_helper.to_array(model.graph.initializer[at]) * 6
        model.graph.initializer[at].CopyFrom(numpy_helper.from_array(big, model.graph.initializer[at].name))

    said = refusal(make, graph_work(tmp_path, model, scheme="fp16"))

    assert said == "half precision cannot hold what this model computes: its answers are no finite numbers"
