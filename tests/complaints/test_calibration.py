"""Ranges of activations: in memory that does not grow, for every value, and for inputs that show nothing.

Threads: microsoft/onnxruntime#10503, #12652, #11928; huggingface/optimum#409.
"""

import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper

from edgeml.calibration import read_calibration
from edgeml.formats.onnx.collect import collect
from edgeml.formats.onnx.inputs import Reader
from edgeml.formats.onnx.ranges import METHODS, Histogram, count, range_of
from edgeml.formats.onnx.static import activations, write_static
from tiny.refusals import refusal

pytestmark = pytest.mark.filterwarnings("ignore")  # the quantizer's own, about models without shapes
WIDTH = 32


def still(done, total):
    pass


@pytest.fixture(scope="module")
def two_products(tmp_path_factory):
    """Two products with a maximum between them, for batches of any size."""
    random = np.random.default_rng(1)
    stored = {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("a", "b")}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], name="first"),
        helper.make_node("Relu", ["m"], ["r"], name="between"),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="second"),
    ]
    values = [helper.make_tensor_value_info(name, 1, ["n", WIDTH]) for name in ("x", "y")]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    made = helper.make_graph(nodes, "tiny", values[:1], values[1:], tensors)
    path = tmp_path_factory.mktemp("two") / "plain.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def reader(rows):
    return Reader(lambda row: {"x": rows[row : row + 1]}, (1,) * len(rows))


def ranges(path, rows, scratch, method="minmax", limit_bytes=None):
    found = collect(path, activations(path), reader(rows), limit_bytes=limit_bytes, scratch=scratch, tick=still)
    return {name: range_of(one, method) for name, one in found.items()}


def answers(path, rows):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": rows})[0]


def peak_bytes(inputs):
    """What counting so many inputs takes at most."""
    found = {"x": Histogram()}
    random = np.random.default_rng(0)
    tracemalloc.start()
    for _ in range(inputs):
        count(found, ["x"], [random.standard_normal((64, 64), dtype=np.float32)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all(np.isfinite(range_of(found["x"], method)).all() for method in METHODS)
    return peak


def test_the_memory_of_every_method_is_the_same_for_any_number_of_inputs():
    """microsoft/onnxruntime#10503, #12652: 123 GB for 32 samples; killed with six images."""
    assert peak_bytes(400) < 1.05 * peak_bytes(8)


def test_a_limit_that_cannot_be_kept_is_refused_with_what_is_needed(tmp_path, two_products):
    """microsoft/onnxruntime#12652: the system killed it, without a word."""
    rows = np.ones((3, WIDTH), np.float32)
    said = refusal(ranges, two_products, rows, tmp_path, limit_bytes=1_000_000)
    assert said.startswith("--memory allows 1 MB, and")


@pytest.mark.parametrize("method", METHODS)
def test_every_value_has_its_range_whatever_the_method_and_however_many_inputs(tmp_path, two_products, method):
    """microsoft/onnxruntime#11928, huggingface/optimum#409: "Quantization parameters are not specified"."""
    rows = np.random.default_rng(2).standard_normal((40, WIDTH)).astype(np.float32)
    found = ranges(two_products, rows, tmp_path, method)
    made = write_static(two_products, tmp_path / "made.onnx", "x86-64-vnni", found)

    assert set(found) == set(activations(two_products))
    assert np.corrcoef(answers(two_products, rows).ravel(), answers(made, rows).ravel())[0, 1] > 0.99


@pytest.mark.parametrize("value", [0.0, 2.5, -1e-30])
@pytest.mark.parametrize("method", METHODS)
def test_inputs_that_are_all_alike_give_ranges_that_answer_them(tmp_path, two_products, method, value):
    """Where the range has no width, a scale of zero would make NaN of every answer."""
    rows = np.full((5, WIDTH), value, np.float32)
    made = write_static(
        two_products, tmp_path / "made.onnx", "x86-64-vnni", ranges(two_products, rows, tmp_path, method)
    )

    exact, found = answers(two_products, rows), answers(made, rows)
    assert np.isfinite(found).all()
    assert np.abs(exact - found).max() <= 0.05 * max(np.abs(exact).max(), 1e-6)


def test_inputs_that_make_no_finite_numbers_are_refused_with_the_values_name(tmp_path, two_products):
    rows = np.ones((2, WIDTH), np.float32)
    rows[1, 3] = np.inf
    assert "no finite numbers" in refusal(ranges, two_products, rows, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("none.txt", b"", "holds no rows"),
        ("blank.txt", b"\n \n\n", "holds no rows"),
        ("empty.csv", b"text,label\n", "holds no rows"),
        ("blank.jsonl", b'{"text": ""}\n{"text": " "}\n', "no text to calibrate with"),
        ("other.csv", b"number\n1\n", "no column text"),
    ],
)
def test_a_file_without_inputs_is_refused(tmp_path, name, content, said):
    """microsoft/onnxruntime#11928: with nothing to go by, it failed far later and spoke of something else."""
    (tmp_path / name).write_bytes(content)
    assert said in refusal(read_calibration, tmp_path / name, task="text-classification", columns={})
