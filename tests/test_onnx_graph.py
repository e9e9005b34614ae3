"""Editing ONNX graphs: every edit keeps the answers, and one that would not is left out."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeml.errors import EdgemlError
from edgeml.formats.onnx import fuse as onnx_fuse
from edgeml.formats.onnx import graph as onnx_graph
from tiny.graphs import HEADS, TOKENS, WIDTH, WORDS, attention_model, graph_model

CAUSAL = np.triu(np.full((1, HEADS, TOKENS, TOKENS), -1e9), 1)
RELATIVE = np.random.default_rng(3).standard_normal((1, HEADS, TOKENS, TOKENS))
SHAPE = ["batch", "tokens"]


def fused(model, tmp_path, heads=HEADS):
    source = tmp_path / "source.onnx"
    onnx.save_model(model, source)
    return source, onnx_fuse.fuse(source, tmp_path, heads=heads)


def operators(path):
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def answer(path, **feeds):
    import onnxruntime as ort

    ids = np.arange(2 * TOKENS).reshape(2, TOKENS) % WORDS
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {"input_ids": ids, "attention_mask": mask, **feeds}
    return session.run(None, {item.name: given[item.name] for item in session.get_inputs()})[0][mask == 1]


def test_attention_becomes_one_operator_and_norms_are_split(tmp_path):
    source, made = fused(attention_model(), tmp_path)

    found = operators(made)
    assert (found["Attention"], found["Softmax"], found["SkipLayerNormalization"], found["Sum"]) == (1, 0, 0, 1)
    np.testing.assert_allclose(answer(made), answer(source), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "heads"),
    [
        pytest.param(lambda: attention_model(added=CAUSAL), HEADS, id="causal"),
        pytest.param(lambda: attention_model(added=RELATIVE), HEADS, id="relative positions"),
        pytest.param(lambda: attention_model(bias=False), HEADS, id="no bias"),
        pytest.param(lambda: attention_model(crossed=True), HEADS, id="two inputs"),
        pytest.param(attention_model, None, id="heads unknown"),
        pytest.param(attention_model, 2 * HEADS, id="other heads"),
        pytest.param(attention_model, 3, id="heads that do not divide"),
    ],
)
def test_attention_of_another_kind_is_left_as_it_is(tmp_path, model, heads):
    source, made = fused(model(), tmp_path, heads)

    found = operators(made)
    assert (found["Attention"], found["Softmax"], found["Sum"]) == (0, 1, 1)  # the norms are split all the same
    np.testing.assert_allclose(answer(made), answer(source), atol=1e-5)


def test_a_sum_that_is_read_twice_keeps_its_name_when_its_norm_is_split(tmp_path):
    source, made = fused(attention_model(skip_read=True), tmp_path)

    assert (operators(made)["SkipLayerNormalization"], operators(made)["Sum"]) == (0, 1)
    np.testing.assert_allclose(answer(made), answer(source), atol=1e-6)


def test_a_norm_without_bias_beta_or_epsilon_is_split_too(tmp_path):
    random = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("SkipLayerNormalization", ["x", "x", "gamma"], ["last_hidden_state"], domain="com.microsoft"),
    ]
    stored = {"table": random.random((WORDS, WIDTH), np.float32), "gamma": random.random(WIDTH, np.float32)}
    model = graph_model(nodes, {"input_ids": SHAPE}, {"last_hidden_state": [*SHAPE, WIDTH]}, stored)

    source, made = fused(model, tmp_path)

    assert operators(made) == {"Gather": 1, "Sum": 1, "LayerNormalization": 1}
    np.testing.assert_allclose(answer(made), answer(source), atol=1e-5)


def lookup_model(words=WORDS, **more):
    nodes = [helper.make_node("Gather", ["table", "input_ids"], ["last_hidden_state"], **more)]
    table = np.random.default_rng(0).random((words, WIDTH), np.float32)
    return graph_model(nodes, {"input_ids": SHAPE}, {"last_hidden_state": [*SHAPE, WIDTH]}, {"table": table})


def test_notes_of_the_exporting_machine_and_unread_outputs_are_dropped():
    model = lookup_model(doc_string="/home/somebody/model.py")
    model.graph.node.append(helper.make_node("ReduceMean", ["last_hidden_state", "axes"], ["pooler_output"]))
    model.graph.output.append(helper.make_tensor_value_info("pooler_output", onnx.TensorProto.FLOAT, None))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    for part in (model, model.graph, *model.graph.node, *model.graph.initializer, *model.graph.input):
        part.metadata_props.add(key="stack_trace", value="/home/somebody/model.py")

    made = onnx_graph.plain(model)

    assert [item.name for item in made.graph.output] == ["last_hidden_state"]
    assert [tensor.name for tensor in made.graph.initializer] == ["table"]
    assert b"somebody" not in made.SerializeToString()


def test_what_only_a_branch_reads_is_kept(tmp_path):
    def branch(operator):
        nodes = [helper.make_node(operator, ["x", "offset"], ["y"])]
        return helper.make_graph(
            nodes, operator, [], [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)]
        )

    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("If", ["yes"], ["last_hidden_state"], then_branch=branch("Add"), else_branch=branch("Sub")),
    ]
    table = np.random.default_rng(0).random((WORDS, WIDTH), np.float32)
    stored = {"table": table, "offset": np.ones(WIDTH, np.float32), "yes": np.array(True)}
    model = graph_model(nodes, {"input_ids": SHAPE}, {"last_hidden_state": [*SHAPE, WIDTH]}, stored)
    path = tmp_path / "made.onnx"

    onnx_graph.save(onnx_graph.plain(model), path)

    np.testing.assert_array_equal(answer(path)[0], table[0] + 1)


def test_weights_too_large_for_one_file_lie_beside_it_once(tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
    path = tmp_path / "model.onnx"
    for _ in range(2):  # the second time over the first
        onnx_graph.save(lookup_model(words=100), path)

    assert {item.name for item in tmp_path.iterdir()} == {"model.onnx", "model.onnx.data"}
    assert path.stat().st_size < 500
    assert (tmp_path / "model.onnx.data").stat().st_size == 100 * WIDTH * 4
    np.testing.assert_array_equal(answer(path), answer_of(lookup_model(words=100), tmp_path))


def answer_of(model, tmp_path):
    onnx.save_model(model, tmp_path / "whole.onnx")
    return answer(tmp_path / "whole.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08\x0a", b"<html>not found</html>", "cut"])
def test_a_file_that_is_no_whole_graph_is_refused(tmp_path, content):
    path = tmp_path / "model.onnx"
    path.write_bytes(lookup_model().SerializeToString()[:-40] if content == "cut" else content)

    with pytest.raises(EdgemlError, match=r"model\.onnx is no complete ONNX file"):
        onnx_graph.load(path)


@pytest.mark.parametrize("left", [None, 10])
def test_a_graph_whose_weights_are_missing_or_short_is_refused(tmp_path, monkeypatch, left):
    monkeypatch.setattr(onnx_graph, "EXTERNAL_BYTES", 500)
    onnx_graph.save(lookup_model(words=100), tmp_path / "model.onnx")
    beside = tmp_path / "model.onnx.data"
    beside.unlink() if left is None else beside.write_bytes(beside.read_bytes()[:left])

    said = r"in model\.onnx\.data, which is not beside it$" if left is None else r"model\.onnx is no complete ONNX file"
    with pytest.raises(EdgemlError, match=said):
        onnx_graph.load(tmp_path / "model.onnx")


def tied_model(**more):
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("FusedMatMul", ["x", "table"], ["logits"], domain="com.microsoft", transB=1, **more),
    ]
    table = np.random.default_rng(0).random((WORDS, WIDTH), np.float32)
    return graph_model(nodes, {"input_ids": SHAPE}, {"logits": [*SHAPE, WORDS]}, {"table": table})


def test_a_head_that_shares_the_embedding_gets_a_copy(tmp_path):
    path = tmp_path / "made.onnx"
    onnx_graph.save(onnx_graph.split_heads(tied_model()), path)

    assert operators(path) == {"Gather": 1, "MatMul": 1}
    np.testing.assert_allclose(answer(path), answer_of(tied_model(), tmp_path), rtol=1e-5)


def test_a_head_that_also_scales_is_a_product_and_its_scale(tmp_path):
    path = tmp_path / "made.onnx"
    onnx_graph.save(onnx_graph.split_heads(tied_model(alpha=0.5)), path)

    assert operators(path) == {"Gather": 1, "MatMul": 1, "Mul": 1}
    np.testing.assert_allclose(answer(path), answer_of(tied_model(alpha=0.5), tmp_path), rtol=1e-5)


def test_a_head_that_turns_its_input_is_left_alone():
    made = onnx_graph.split_heads(tied_model(transA=1))

    assert [node.op_type for node in made.graph.node] == ["Gather", "FusedMatMul"]


def test_a_table_that_is_normalised_as_a_whole_becomes_a_lookup(tmp_path):
    nodes = [
        helper.make_node("LayerNormalization", ["table", "ones"], ["distances"], axis=-1),
        helper.make_node("Gather", ["distances", "input_ids"], ["y"]),
    ]
    table = np.random.default_rng(0).random((WORDS, WIDTH), np.float32)
    stored = {"table": table, "ones": np.ones(WIDTH, np.float32)}
    model = graph_model(nodes, {"input_ids": SHAPE}, {"y": [*SHAPE, WIDTH]}, stored)

    source, made = fused(model, tmp_path)

    assert operators(made) == {"Gather": 2, "LayerNormalization": 1}
    np.testing.assert_allclose(answer(made), answer(source), atol=1e-6)
