"""Ranges of activations: found in memory that does not grow, and as the methods' own authors define them."""

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeml.formats.onnx import ranges as onnx_ranges
from edgeml.formats.onnx.collect import collect
from edgeml.formats.onnx.inputs import open_inputs, parts
from edgeml.formats.onnx.nodes import name_nodes
from edgeml.formats.onnx.ranges import Histogram, count, range_of
from edgeml.formats.onnx.schemes import make
from edgeml.formats.onnx.static import activations
from tiny.graphs import graph_model
from tiny.refusals import refusal
from tiny.works import LINES, text_work

RANDOM = np.random.default_rng(0)
SAMPLES = {
    "normal": RANDOM.normal(size=50_000),
    "heavy tails": RANDOM.standard_t(3, size=50_000),
    "after ReLU": np.maximum(RANDOM.normal(size=50_000), 0),
    "one sided": RANDOM.exponential(size=50_000),
}


def counted(*parts):
    found = Histogram()
    for values in parts:
        found.add(np.asarray(values, np.float32))
    return found


@pytest.fixture
def collected(tmp_path):
    work = text_work(tmp_path)
    inputs = parts(open_inputs(work.order, work.whole))[0]
    tensors = activations(named(work))
    found = collect(work.whole, tensors, inputs, limit_bytes=None, scratch=work.scratch, tick=lambda *_: None)
    return work, inputs, found


def named(work):
    return name_nodes(work.whole, work.scratch / "named.onnx")


def test_minmax_is_what_the_librarys_own_calibrator_finds(collected, tmp_path):
    from onnxruntime.quantization.calibrate import CalibrationDataReader, CalibrationMethod, create_calibrator

    work, inputs, found = collected

    class Rows(CalibrationDataReader):
        rows = iter(range(len(inputs.lengths)))

        def get_next(self):
            row = next(self.rows, None)
            return None if row is None else inputs.feeds(row)

    theirs = create_calibrator(
        work.whole,
        ["MatMul", "Gather"],
        augmented_model_path=str(tmp_path / "augmented.onnx"),
        calibrate_method=CalibrationMethod.MinMax,
    )
    theirs.collect_data(Rows())
    ranges = theirs.compute_data()

    for name in ("letters", "mixed"):
        low, high = (float(np.squeeze(value)) for value in ranges[name].range_value)
        assert range_of(found[name], "minmax") == (low, high)


@pytest.mark.parametrize("name", SAMPLES)
def test_a_percentile_is_within_two_bins_of_the_librarys(name):
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = SAMPLES[name].astype(np.float32)
    theirs = HistogramCollector("percentile", False, 2048, 128, onnx_ranges.PERCENTILE, "same")
    theirs.collect_value({"x": values})
    low, high = (float(value) for value in theirs.compute_percentile()["x"][:2])

    found = counted(values)

    bin_width = 2 * float(np.abs(values).max()) / 2048
    assert range_of(found, "percentile") == pytest.approx((low, high), abs=2 * bin_width)


@pytest.mark.parametrize("name", SAMPLES)
def test_entropy_takes_the_threshold_that_its_definition_names(name, monkeypatch):
    monkeypatch.setattr(onnx_ranges, "SIDE", 512)
    found = counted(SAMPLES[name])
    magnitudes = found.counts[512:] + found.counts[:512][::-1]
    magnitudes[0] = magnitudes[1]
    end = np.flatnonzero(magnitudes)[-1] + 1
    tried = [*range(128, end, 8), end]

    best = min(tried, key=lambda bins: (defined(magnitudes.astype(float), bins), -bins))

    reach = found.reach * best / 512
    expected = (max(-reach, found.low), min(reach, found.high))
    assert range_of(found, "entropy") == pytest.approx(expected)


def defined(magnitudes, bins):
    """The divergence in the words of its definition, level by level."""
    reference = magnitudes[:bins].copy()
    reference[-1] += magnitudes[bins:].sum()
    spread = np.zeros(bins)
    levels = np.arange(bins) * 128 // bins
    for level in range(128):
        own = (levels == level) & (reference > 0)
        if own.any():
            spread[own] = magnitudes[:bins][levels == level].sum() / own.sum()
    used = reference > 0
    if not spread.sum() or (spread[used] == 0).any():
        return np.inf
    p, q = reference[used] / reference.sum(), spread[used] / spread.sum()
    return float((p * np.log(p / q)).sum())


@pytest.mark.parametrize("name", ["normal", "heavy tails"])
def test_entropy_is_within_a_quarter_of_the_librarys(name):
    """Which rounds shares to whole counts, smooths empty bins, and lets a spike at zero decide: there they differ."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = SAMPLES[name].astype(np.float32)
    theirs = HistogramCollector("entropy", False, 2048, 128, onnx_ranges.PERCENTILE, "same")
    theirs.collect_value({"x": values})
    low, high = (float(value) for value in theirs.get_entropy_threshold(theirs.histogram_dict["x"], 128))

    assert range_of(counted(values), "entropy") == pytest.approx((low, high), rel=0.25)


def test_entropy_cuts_long_tails_and_keeps_short_ones():
    low, high = range_of(counted(SAMPLES["heavy tails"]), "entropy")
    flat = range_of(counted(np.linspace(-1, 1, 50_000)), "entropy")

    assert high < 0.6 * SAMPLES["heavy tails"].max()
    assert low > 0.6 * SAMPLES["heavy tails"].min()
    assert flat == pytest.approx((-1, 1), abs=0.01)


def test_a_value_a_billion_times_larger_costs_no_memory_and_loses_no_count():
    found = counted(SAMPLES["normal"], [1e9])

    assert found.counts.size == 2 * onnx_ranges.SIDE
    assert found.counts.sum() == 50_001
    assert range_of(found, "minmax") == (np.float32(SAMPLES["normal"].min()), 1e9)


def test_it_does_not_matter_how_values_are_cut_into_runs():
    values = SAMPLES["heavy tails"].astype(np.float32)
    largest = np.argsort(np.abs(values))  # the reach doubles as late and as often as it can

    together, apart = counted(values), counted(*np.array_split(values[largest], 40))

    np.testing.assert_array_equal(together.counts, apart.counts)
    assert (together.low, together.high, together.reach) == (apart.low, apart.high, apart.reach)


@pytest.mark.parametrize("method", onnx_ranges.METHODS)
@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 0.0], (0, 0)), ([], (0, 0)), ([3.5] * 9, (3.5, 3.5)), ([-1e-30], (-1e-30, -1e-30))]
)
def test_constant_and_empty_activations_have_a_range(method, values, expected):
    found = Histogram()
    for value in [np.array(values, np.float32)] if values else []:
        found.add(value)

    low, high = range_of(found, method)

    assert (low, high) == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_an_activation_that_is_no_finite_number_is_refused_by_name(bad):
    said = refusal(count, {"scores": Histogram()}, ["scores"], [np.array([1.0, bad], np.float32)])

    assert said == "the model makes values that are no finite numbers of a calibration input (scores)"


def test_weights_that_are_no_numbers_are_found_by_calibration(tmp_path):
    work = text_work(tmp_path, scheme="int8-static")
    model = onnx.load(work.whole)
    mix = onnx.numpy_helper.to_array(model.graph.initializer[1]).copy()
    mix[2] = np.nan
    model.graph.initializer[1].CopyFrom(onnx.numpy_helper.from_array(mix, "mix"))
    onnx.save_model(model, work.whole)

    assert "no finite numbers of a calibration input (mixed)" in refusal(make, work)


def test_padding_is_in_no_range(tmp_path):
    """A padding token would be looked up; its vector is the largest of all here."""
    work = text_work(tmp_path, lines=LINES)
    model = onnx.load(work.whole)
    table = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    table[0] = 1000.0  # [PAD]
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(table, "table"))
    onnx.save_model(model, work.whole)
    inputs = open_inputs(work.order, work.whole)

    found = collect(work.whole, ["letters"], inputs, limit_bytes=None, scratch=work.scratch, tick=lambda *_: None)

    assert found["letters"].high < 10
    assert found["letters"].counts.sum() == 8 * sum(inputs.lengths)


def test_a_graph_without_weights_needs_no_range(tmp_path):
    nodes = [helper.make_node("Relu", ["x"], ["y"], "relu")]
    path = tmp_path / "relu.onnx"
    onnx.save_model(graph_model(nodes, {"x": ["batch", "tokens"]}, {"y": ["batch", "tokens"]}, {}), path)

    assert activations(path) == []  # no convolution: only products are made small
