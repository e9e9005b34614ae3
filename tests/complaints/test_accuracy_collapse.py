"""Small weights whose answers are wrong: outliers, formats, types of integers, and processors that add them otherwise.

Threads: microsoft/onnxruntime#9599, #12072, #5644, #6545, #6004, #14642, #10111; ability-draft-plus#80.
"""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgeml.formats.onnx.int8 import INTEGERS, misfit, write_int8
from edgeml.formats.onnx.ranges import Histogram, range_of
from edgeml.formats.onnx.static import activations, write_static
from edgeml.store import load_variant
from edgeml_runtime.records import describe, write_record
from tiny.commands import inside
from tiny.int8 import OUTLIER
from tiny.variants import onnx_variant

pytestmark = pytest.mark.filterwarnings("ignore")  # the quantizer's own, about models without shapes
CHANNELS, SIDE = 32, 12


def graph(path, nodes, inputs, outputs, stored):
    values = [
        [helper.make_tensor_value_info(name, 1, shape) for name, shape in one.items()] for one in (inputs, outputs)
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    made = helper.make_graph(nodes, "tiny", *values, tensors)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def run(path, **feeds):
    return ort.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def ranges(path, **feeds):
    """The range of each activation over those inputs, as a conversion finds it."""
    model = onnx.load(path)
    names = activations(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    found = {}
    values = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(names, feeds)
    for name, value in zip(names, values, strict=True):
        seen = Histogram()
        seen.add(value)
        found[name] = range_of(seen, "minmax")
    return found


def decibels(exact, found, axis):
    """Signal to quantization noise, for each place along an axis."""
    others = tuple(place for place in range(exact.ndim) if place != axis)
    noise = np.square(exact - found).sum(others)
    return 10 * np.log10(np.square(exact).sum(others) / np.maximum(noise, 1e-30))


@pytest.fixture(scope="module")
def depthwise(tmp_path_factory):
    """A depthwise convolution of which one channel has large weights and small inputs, so that its outputs are as
    large as the others'; and an input."""
    random = np.random.default_rng(3)
    weights = random.standard_normal((CHANNELS, 1, 3, 3)).astype(np.float32)
    weights[7] *= 400
    node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=CHANNELS)
    path = tmp_path_factory.mktemp("depthwise") / "plain.onnx"
    shape = ["n", CHANNELS, SIDE, SIDE]
    graph(path, [node], {"x": shape}, {"y": ["n", CHANNELS, SIDE - 2, SIDE - 2]}, {"w": weights})
    images = random.standard_normal((4, CHANNELS, SIDE, SIDE)).astype(np.float32)
    images[:, 7] /= 400
    return path, images


def test_a_depthwise_convolution_with_an_outlier_keeps_its_quiet_channels(tmp_path, depthwise):
    """ability-draft-plus#80: with one scale for all weights, 99.47 % right became 0.09 %."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    path, images = depthwise
    exact = run(path, x=images)

    ours = write_static(path, tmp_path / "ours.onnx", "x86-64-vnni", ranges(path, x=images))
    kept = decibels(exact, run(ours, x=images), axis=1) > 20

    class Once(CalibrationDataReader):
        left = [{"x": images}]

        def get_next(self):
            return self.left.pop() if self.left else None

    theirs = tmp_path / "theirs.onnx"
    quantize_static(path, theirs, Once(), per_channel=False, weight_type=QuantType.QInt8)
    lost = decibels(exact, run(theirs, x=images), axis=1) < 20

    assert kept.sum() == CHANNELS - 1  # the input of the odd one has the same scale as all others'
    assert not kept[7]
    assert lost.sum() == CHANNELS  # shows that the input is one that breaks other tools


@pytest.mark.parametrize("kernels", INTEGERS)
def test_static_integers_stand_around_plain_operators_and_never_in_the_slow_wrong_format(tmp_path, depthwise, kernels):
    """microsoft/onnxruntime#12072: a ResNet50 of QLinearConv with two signed types was right in 0.03 % of cases."""
    path, images = depthwise
    made = write_static(path, tmp_path / "made.onnx", kernels, ranges(path, x=images))
    operators = {node.op_type for node in onnx.load(made).graph.node}
    zeros = {one.name: one.data_type for one in onnx.load(made).graph.initializer if one.name.endswith("zero_point")}

    assert operators == {"Conv", "QuantizeLinear", "DequantizeLinear"}
    signed = TensorProto.UINT8 if INTEGERS[kernels].unsigned else TensorProto.INT8
    assert zeros["x_zero_point"] == signed


@pytest.fixture(scope="module")
def product(tmp_path_factory):
    """A product whose weights are all positive, as one type of integers holds them better than the other; its input."""
    random = np.random.default_rng(5)
    weights = np.abs(random.standard_normal((64, 48))).astype(np.float32)
    path = tmp_path_factory.mktemp("product") / "plain.onnx"
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="product")
    graph(path, [node], {"x": ["n", 64]}, {"y": ["n", 48]}, {"w": weights})
    return path, random.standard_normal((8, 64)).astype(np.float32)


@pytest.mark.parametrize("way", ["dynamic", "static"])
@pytest.mark.parametrize("kernels", INTEGERS)
def test_every_choice_of_integers_keeps_the_answers(tmp_path, product, kernels, way):
    """microsoft/onnxruntime#5644, #6545: right with one type of weights or with reduce_range, wrong with the other."""
    path, rows = product
    if way == "dynamic":
        made = write_int8(path, tmp_path / "made.onnx", kernels)
    else:
        made = write_static(path, tmp_path / "made.onnx", kernels, ranges(path, x=rows))

    assert decibels(run(path, x=rows), run(made, x=rows), axis=1).min() > 25


@pytest.mark.parametrize(("kernels", "saturates"), [("x86-64-avx2", False), ("x86-64-vnni", True)])
def test_sums_of_pairs_fit_16_bits_on_processors_that_add_them_there(tmp_path, product, kernels, saturates):
    """microsoft/onnxruntime#6004, #14642: VPMADDUBSW adds two products in 16 bits, VNNI in 32: other answers."""
    made = write_int8(product[0], tmp_path / "made.onnx", kernels)
    (weights,) = (numpy_helper.to_array(one) for one in onnx.load(made).graph.initializer if len(one.dims) == 2)
    largest = 2 * 255 * int(np.abs(weights.astype(int)).max())

    assert (largest > np.iinfo(np.int16).max) == saturates


def test_weights_made_for_one_processor_are_told_on_another():
    """microsoft/onnxruntime#14642."""
    assert "overflow" in misfit("x86-64-vnni", "x86-64-avx2")
    assert "7 bits" in misfit("x86-64-avx2", "x86-64-vnni")
    assert misfit("x86-64-avx2", "x86-64-avx2") is None


def with_outliers(folder, name, change=None):
    """The encoder with one letter whose vector is very long; `change` writes another graph of it."""
    variant = onnx_variant(folder, name=name)
    model = onnx.load(folder / "model.onnx")
    table, mix = model.graph.initializer
    array = numpy_helper.to_array(table).copy()
    array[4 + ord(OUTLIER) - ord("a"), 0] = 1200.0
    mixed = numpy_helper.to_array(mix).copy()
    mixed[0] = 0.0  # which the model itself does not look at
    table.CopyFrom(numpy_helper.from_array(array, table.name))
    mix.CopyFrom(numpy_helper.from_array(mixed, mix.name))
    onnx.save(model, folder / "model.onnx")
    if change:
        change(folder / "model.onnx", folder / "made.onnx", "x86-64-vnni")
        (folder / "made.onnx").rename(folder / "model.onnx")
        for beside in folder.glob("made.onnx*"):
            beside.unlink()
    files = tuple(file for file in describe(folder) if file.path != "variant.json")
    write_record(folder / "variant.json", variant.manifest.__class__(**{**fields(variant.manifest), "files": files}))
    return load_variant(folder)


def fields(record):
    return {name: getattr(record, name) for name in record.__struct_fields__}


@pytest.mark.real
def test_an_outlier_in_the_embedding_that_ruins_dynamic_int8_fails_the_gate(tmp_path):
    """microsoft/onnxruntime#9599: the answers of a multilingual MiniLM in dynamic int8 were nearly random."""
    store = tmp_path / "artifacts"
    with_outliers(store / "tiny" / "onnx-fp32", "tiny/onnx-fp32")
    with_outliers(store / "tiny" / "onnx-int8", "tiny/onnx-int8", change=write_int8)
    data = tmp_path / "lines.csv"
    words = ["rent", "fuel", "post", "bank", "wine", "salt"]
    lines = [f"{word} {OUTLIER} {extra},{word}" for word in words for extra in "abcdefghijklmnop"]
    data.write_text("text,label\n" + "\n".join(lines) + "\n")

    asked = ("--data", data, "--task", "feature-extraction", "--max-drop", "5%", "--threads", 1, "--warmups", 0)
    both = ("tiny/onnx-int8", "--baseline", "tiny/onnx-fp32", "--artifacts", store)
    done = inside("bench", *both, *asked, "--repeats", 2, "--check", "none")

    assert done.code == 4, done.err
