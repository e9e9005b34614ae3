"""What is stored twice is stored once, and what was computed is no parameter; the graph's answers stay."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from edgeml.formats.onnx.audit import audit
from edgeml.formats.onnx.export import name_tables, share_heads
from edgeml.formats.onnx.graph import MICROSOFT, TABLE, plain
from tiny.graphs import graph_model

WORDS, WIDTH = 12, 4


def tied_model(head, **fused):
    """Words looked up in a table, and words found again by a head, which may be `fused` with a factor."""
    table = np.random.default_rng(1).standard_normal((WORDS, WIDTH)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("FusedMatMul", ["x", "head"], ["logits"], domain=MICROSOFT, **fused)
        if fused
        else helper.make_node("MatMul", ["x", "head"], ["logits"]),
    ]
    stored = {"table": table, "head": np.ascontiguousarray(head(table))}
    return graph_model(nodes, {"input_ids": ["batch", "tokens"]}, {"logits": ["batch", "tokens", WORDS]}, stored)


def answers(model):
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(None, {"input_ids": np.array([[3, 7, 0]])})[0]


def test_a_head_that_is_the_table_turned_is_stored_once(tmp_path):
    model = tied_model(lambda table: table.T)
    expected = answers(model)

    made = plain(share_heads(model))

    assert [one.name for one in made.graph.initializer] == ["table"]
    np.testing.assert_allclose(answers(made), expected, rtol=1e-6)
    onnx.save_model(made, tmp_path / "model.onnx")
    assert audit(tmp_path / "model.onnx", "fp32").parameters == WORDS * WIDTH


def test_a_head_that_also_scales_is_stored_once_too():
    model = tied_model(lambda table: table.T, alpha=0.25)
    expected = answers(model)

    made = plain(share_heads(model))

    assert [one.name for one in made.graph.initializer] == ["table"]
    np.testing.assert_allclose(answers(made), expected, rtol=1e-6)


@pytest.mark.parametrize("head", [lambda table: table.T + 1, lambda table: table.T[:, ::-1]])
def test_another_head_stays_as_it_is(head):
    made = share_heads(tied_model(head))

    assert [one.op_type for one in made.graph.node] == ["Gather", "MatMul"]
    assert len(made.graph.initializer) == 2


def test_a_computed_table_is_bits_but_no_parameters_and_may_stay_in_full_precision(tmp_path):
    model = tied_model(lambda table: table.T + 1)
    table = onnx.numpy_helper.to_array(model.graph.initializer[0])

    name_tables(model, [table, np.ones((3, 3), np.float32)])

    assert [one.name for one in model.graph.initializer] == ["table" + TABLE, "head"]
    assert answers(model).shape == (1, 3, WORDS)
    onnx.save_model(model, tmp_path / "model.onnx")
    found = audit(tmp_path / "model.onnx", "int8")
    assert (found.parameters, found.bits_per_weight) == (WORDS * WIDTH, 64)
    assert [text.partition(" ")[0] for text in found.shortfalls] == ["head"]
