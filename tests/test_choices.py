"""What a reader is told of what was chosen when a variant was made."""

import pytest
from msgspec.structs import replace

from edgeml.render import as_text
from edgeml.render.choices import chosen, warnings
from tiny.variants import onnx_variant

MADE = {
    "chosen": "static, entropy",
    "why": "no other agrees with fp32 so well",
    "agreement": {"dynamic": 0.99871, "static, entropy": 0.99912},
    "judged_on": "40 calibration inputs that set no range",
    "times_ms": {"fp32": 10.0, "static, entropy": 8.1},
    "timed": "on this machine",
    "share_of_fp32_time": 0.81,
}


def variant(tmp_path, settings):
    found = onnx_variant(tmp_path / str(len(list(tmp_path.iterdir()))), name="tiny/onnx-int8")
    return replace(found, manifest=replace(found.manifest, settings=settings))


def test_a_line_says_what_was_taken_how_well_it_agrees_and_how_fast_it_is():
    assert chosen(MADE) == [
        "chosen: static, entropy; agreement 0.9991 (dynamic 0.9987); 0.81 of fp32's time on this machine"
    ]


def test_nodes_that_stayed_whole_are_named_and_what_that_gained():
    settings = MADE | {"excluded": ["a", "b", "c", "d", "e"], "agreement_before": 0.91}

    (line,) = chosen(settings)

    assert "agreement 0.9991, 0.9100 before (dynamic 0.9987)" in line
    assert line.endswith("kept whole: a, b, c and 2 more")


def test_each_graph_of_a_pair_has_its_line():
    assert [line.partition(";")[0] for line in chosen({"encoder.onnx": MADE, "decoder.onnx": MADE})] == [
        "encoder.onnx chosen: static, entropy",
        "decoder.onnx chosen: static, entropy",
    ]


@pytest.mark.parametrize("settings", [{}, {"imatrix": {"rows": 5}}, {"rows": 5}])
def test_where_nothing_was_chosen_nothing_is_said(settings, tmp_path):
    assert chosen(settings) == []
    assert warnings(variant(tmp_path, settings)) == []


def test_the_table_of_variants_has_the_line_below_it(tmp_path):
    assert as_text([variant(tmp_path, MADE)]).splitlines()[-1].startswith("onnx-int8: chosen: static, entropy; ")


def test_one_that_is_slower_than_fp32_is_warned_of_with_both_times(tmp_path):
    slower = MADE | {"times_ms": {"fp32": 10.0, "static, entropy": 13.0}, "share_of_fp32_time": 1.3}

    assert warnings(variant(tmp_path, MADE)) == []
    assert warnings(variant(tmp_path, slower)) == [
        "tiny/onnx-int8 takes 1.30 of fp32's time (13 ms against 10 ms on this machine): it saves memory alone"
    ]


def test_weights_that_were_cut_are_warned_of(tmp_path):
    assert warnings(variant(tmp_path, MADE | {"clipped": 3})) == [
        "3 weights of tiny/onnx-int8 were too large for half precision and were cut"
    ]
