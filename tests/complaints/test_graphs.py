"""Graphs that quantizers and runtimes fail at: branches, shapes that are not known, operators and versions too new.

Threads: microsoft/onnxruntime#8488, #19421, #10484, #21476, #19544, #12558, #3130; huggingface/optimum#1687;
microsoft/Olive#2223, #1460, #1075.
"""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml.formats.onnx.audit import audit
from edgeml.formats.onnx.graph import load
from edgeml.formats.onnx.int8 import write_int8
from edgeml_runtime.backends.onnx import open_graph
from tiny.refusals import refusal
from tiny.variants import onnx_variant

pytestmark = pytest.mark.filterwarnings("ignore")  # the quantizer's own, about models without shapes
WIDTH = 64
PLACES = ("in the branch", "in a constant of the branch", "outside")


def branch(name, array, place):
    product = helper.make_node("MatMul", ["x", f"{name}_w"], [f"{name}_y"], name=name)
    stored = numpy_helper.from_array(array, f"{name}_w")
    constant = helper.make_node("Constant", [], [f"{name}_w"], value=stored)
    nodes = [constant, product] if place == "in a constant of the branch" else [product]
    output = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output], [stored] if place == "in the branch" else [])


def merged(path, place):
    """Two models in one, as a merged decoder is: a flag says which of two branches answers."""
    random = np.random.default_rng(1)
    first, then, other = (random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for _ in range(3))
    branches = {"then_branch": branch("then", then, place), "else_branch": branch("other", other, place)}
    nodes = [
        helper.make_node("MatMul", ["in", "first"], ["x"], name="first"),
        helper.make_node("If", ["flag"], ["y"], **branches),
    ]
    stored = {"first": first} | ({"then_w": then, "other_w": other} if place == "outside" else {})
    inputs = [
        helper.make_tensor_value_info("in", TensorProto.FLOAT, ["n", WIDTH]),
        helper.make_tensor_value_info("flag", TensorProto.BOOL, []),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    made = helper.make_graph(nodes, "merged", inputs, [output], tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("place", PLACES)
def test_weights_that_a_quantizer_left_alone_in_branches_cost_the_label(tmp_path, place):
    """microsoft/onnxruntime#8488, #19421, huggingface/optimum#1687: sub-graphs stay as they are, and nobody says so."""
    source = merged(tmp_path / "merged.onnx", place)
    found = audit(write_int8(source, tmp_path / "small.onnx", "x86-64-vnni"), "int8")

    assert found.parameters == audit(source, "fp32").parameters == 3 * WIDTH * WIDTH
    assert not found.earned
    assert {line.split()[0] for line in found.shortfalls} == {"then_w", "other_w"}


@pytest.mark.parametrize("place", PLACES)
def test_a_graph_with_branches_answers_as_before_in_either(tmp_path, place):
    """huggingface/optimum#1687."""
    source = merged(tmp_path / "merged.onnx", place)
    small = write_int8(source, tmp_path / "small.onnx", "x86-64-vnni")
    rows = np.random.default_rng(2).standard_normal((3, WIDTH)).astype(np.float32)
    for flag in (True, False):
        feeds = {"in": rows, "flag": np.array(flag)}
        exact, found = (open_graph(one, threads=1).run(None, feeds)[0] for one in (source, small))
        assert np.corrcoef(exact.ravel(), found.ravel())[0, 1] > 0.99


def test_shapes_that_are_not_known_beforehand_are_no_hindrance(tmp_path):
    """microsoft/onnxruntime#10484, #21476, #19544: "Incomplete symbolic shape inference"."""
    source = onnx_variant(tmp_path / "tiny").path / "model.onnx"
    small = write_int8(source, tmp_path / "small.onnx", "x86-64-vnni")
    session = open_graph(small, threads=1)
    for shape in ((1, 3), (2, 17)):
        ids = np.full(shape, 5, np.int64)
        feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        names = {item.name for item in session.get_inputs()}
        answer = session.run(None, {name: ids for name, ids in feeds.items() if name in names})[0]
        assert answer.shape[:2] == shape


@pytest.mark.parametrize("change", [{"opset": 99}, {"ir": 99}, {"operator": "AddedNextYear"}])
def test_what_the_devices_runtime_cannot_read_is_refused_in_a_sentence(tmp_path, change):
    """microsoft/onnxruntime#12558, #3130: it was made without a word, and NOT_IMPLEMENTED where it was to run."""
    source = onnx_variant(tmp_path / "tiny").path / "model.onnx"
    model = onnx.load(source)
    if "opset" in change:
        model.opset_import[0].version = change["opset"]
    model.ir_version = change.get("ir", model.ir_version)
    model.graph.node[-1].op_type = change.get("operator", model.graph.node[-1].op_type)
    onnx.save(model, source)

    assert refusal(open_graph, source, threads=1).startswith("cannot load model.onnx: ")


def test_what_was_made_is_there_smaller_and_alone(tmp_path):
    """microsoft/Olive#2223, #1460, #1075: a run ended well without a model, or with 27 GB of what came before."""
    random = np.random.default_rng(4)
    weights = random.standard_normal((512, 512)).astype(np.float32)
    shape = ["n", 512]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    made = helper.make_graph([node], "tiny", values[:1], values[1:], [numpy_helper.from_array(weights, "w")])
    source = tmp_path / "source" / "model.onnx"
    source.parent.mkdir()
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), source)
    goal = tmp_path / "goal"
    goal.mkdir()

    write_int8(source, goal / "model.onnx", "x86-64-vnni")

    assert {path.name for path in goal.iterdir()} <= {"model.onnx", "model.onnx.data"}
    assert sum(path.stat().st_size for path in goal.iterdir()) < 0.3 * source.stat().st_size


@pytest.fixture
def beside(tmp_path):
    """A graph whose weights, however small, lie beside it."""
    source = onnx_variant(tmp_path / "tiny").path / "model.onnx"
    model = onnx.load(source)
    path = tmp_path / "large" / "model.onnx"
    path.parent.mkdir()
    onnx.save_model(model, path, save_as_external_data=True, location="model.onnx.data", size_threshold=0)
    return path


@pytest.mark.parametrize("change", ["gone", "short", "elsewhere"])
def test_a_graph_that_was_moved_without_its_weights_is_refused(tmp_path, beside, change):
    """huggingface/optimum#300, microsoft/onnxruntime#11072: copied alone, it failed where it was to run."""
    data = beside.with_name("model.onnx.data")
    if change == "gone":
        data.unlink()
    elif change == "short":
        data.write_bytes(data.read_bytes()[:-100])
    else:
        beside = beside.rename(tmp_path / "model.onnx")

    assert "model.onnx" in refusal(load, beside)
    assert "cannot load model.onnx" in refusal(open_graph, beside, threads=1)


@pytest.mark.parametrize("location", ["/etc/hostname", "../tiny/model.onnx", "/dev/zero", ".", ""])
def test_weights_that_a_graph_seeks_outside_of_its_folder_are_not_read(beside, location):
    """A graph names the file of its weights: it could name any."""
    model = onnx.load(beside, load_external_data=False)
    for tensor in model.graph.initializer:
        del tensor.external_data[:]
        tensor.external_data.add(key="location", value=location)
    onnx.save(model, beside)

    assert "model.onnx" in refusal(load, beside)
    assert "cannot load model.onnx" in refusal(open_graph, beside, threads=1)
