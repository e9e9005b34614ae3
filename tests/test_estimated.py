"""Figures for a device that is not there: what is counted, what is predicted, and how sure that is."""

import re
import runpy
from importlib.resources import files
from pathlib import Path

import gguf
import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import read_header
from edgeml.metrics import METRICS
from edgeml.store import load_variant
from edgeml.targets import profile
from edgeml.targets.estimated import Workload, estimates, laws, memory, speed
from edgeml.targets.estimated.bytes import Graph, gguf_streams, onnx_graph
from edgeml.targets.estimated.laws import (
    LEAST_SOURCES,
    LEVEL,
    Case,
    classes,
    fitted,
    law,
    misses,
    quantile,
    thread_exponent,
)
from edgeml.targets.estimated.memory import GIB, Weights
from edgeml.targets.estimated.points import parsed, published
from edgeml.targets.estimated.speed import Machine, Unpublished
from edgeml.targets.estimated.validation import collapses, form_errors, summaries, validation
from edgeml_runtime.types import Absent
from tiny.gguf import bert_gguf, llama_gguf
from tiny.pictures import image_variant
from tiny.seq2seq import seq2seq_variant
from tiny.variants import gguf_variant, onnx_variant

ROOT = Path(__file__).parent.parent
GOAL = ("pi5, all cores", "pi5, best threads", "pi4", "apple-silicon, GPU")
ROWS = validation()
SUMMARIES = {(one.metric, one.name): one for one in summaries(ROWS)}
WIDTH, LAYERS, TOKENS = 256, 2, 288
MATRICES = 4 * WIDTH * WIDTH + 3 * 3 * WIDTH * WIDTH  # of a layer of the tiny Llama
NORMS = (2 * LAYERS + 1) * WIDTH * 4  # in F32


def by_metric(found):
    return {one.metric: one for one in (*found.estimates, *found.absent)}


def decoder(folder, *, type="Q8_0"):
    weights = llama_gguf(folder / "a.gguf", width=WIDTH, layers=LAYERS, type=type)
    return load_variant(gguf_variant(folder / "v", weights, scheme=f"gguf:{type.lower()}"))


def moe(path, *, experts=8, used=2):
    writer = gguf.GGUFWriter(path, "llama")
    integers = {"block_count": 1, "embedding_length": 64, "attention.head_count": 4, "attention.head_count_kv": 2}
    for key, value in (integers | {"expert_count": experts, "expert_used_count": used}).items():
        writer.add_uint32(f"llama.{key}", value)
    shapes = {
        "token_embd": (100, 64),
        "output": (100, 64),
        "blk.0.attn_q": (64, 64),
        "blk.0.ffn_gate_inp": (experts, 64),
    }
    for name, shape in (shapes | {"blk.0.ffn_up_exps": (experts, 32, 64)}).items():
        writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def network(path, nodes, weights, inputs, outputs):
    made = [helper.make_tensor(name, kind, shape, np.zeros(shape).ravel()) for name, (kind, shape) in weights.items()]
    graph = helper.make_graph(nodes, "tiny", inputs, outputs, made)
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)
    return path


def floats(name, *shape):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


# What a file makes a device do


def test_a_token_streams_the_layers_and_the_head_but_not_the_table_it_is_looked_up_in(tmp_path):
    found = gguf_streams(llama_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS))

    assert found.bytes_per_token == 2 * (LAYERS * MATRICES + TOKENS * WIDTH) + NORMS
    assert found.operations == LAYERS * MATRICES
    assert found.head_operations == TOKENS * WIDTH
    assert found.unused_bytes == 2 * TOKENS * WIDTH


def test_a_tied_table_is_the_head_and_streamed(tmp_path):
    tied = gguf_streams(llama_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS, tied=True))
    untied = gguf_streams(llama_gguf(tmp_path / "b.gguf", width=WIDTH, layers=LAYERS))

    assert tied.bytes_per_token == untied.bytes_per_token
    assert tied.head_operations == untied.head_operations
    assert tied.unused_bytes == 0


def test_of_a_mixture_only_the_experts_that_a_token_uses_are_streamed(tmp_path):
    found = gguf_streams(moe(tmp_path / "a.gguf", experts=8, used=2))

    assert found.bytes_per_token == 2 * (64 * 64 + 8 * 64 + 100 * 64 + 2 * 32 * 64)
    assert found.operations == 64 * 64 + 8 * 64 + 2 * 32 * 64


def test_the_cache_grows_by_the_grouped_heads_keys_and_values_of_every_layer(tmp_path):
    full = gguf_streams(llama_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS))
    grouped = gguf_streams(moe(tmp_path / "b.gguf"))

    assert full.kv_bytes_per_token == LAYERS * 2 * WIDTH * 2
    assert grouped.kv_bytes_per_token == 1 * 2 * (2 * 16) * 2  # 2 of 4 heads, each of 16 numbers
    assert full.decode_bytes(100) == full.bytes_per_token + 100 * full.kv_bytes_per_token


def test_heads_that_differ_from_layer_to_layer_are_summed(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    for key, value in {"block_count": 2, "embedding_length": 64, "attention.head_count": 4}.items():
        writer.add_uint32(f"llama.{key}", value)
    writer.add_array("llama.attention.head_count_kv", [1, 3])
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    assert gguf_streams(path).kv_bytes_per_token == (1 + 3) * 2 * 16 * 2


def test_an_encoder_has_no_cache_and_looks_its_tables_up(tmp_path):
    found = gguf_streams(bert_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS, context=128))
    tables = {"token_embd.weight", "position_embd.weight", "token_types.weight"}

    assert found.kv_bytes_per_token == found.head_operations == 0
    assert found.operations == LAYERS * (4 * WIDTH * WIDTH + 2 * 4 * WIDTH * WIDTH)
    tensors = read_header(tmp_path / "a.gguf").tensors
    assert found.unused_bytes == sum(one.size_bytes for one in tensors if one.name in tables)


@pytest.mark.parametrize(
    ("type", "kernels", "share", "word"),
    [
        ("Q4_0", "arm64-dotprod", 1, "repacked"),
        ("Q8_0", "arm64-dotprod", 1, "repacked"),
        ("Q8_0", "x86-64-avx2", 0, "plain"),
        ("Q4_0", "x86-64-avx2", 1, "repacked"),
        ("Q4_0", "arm64", 0, "plain"),
        ("F16", "arm64-dotprod", 0, "float"),
    ],
)
def test_what_is_repacked_at_load_depends_on_the_type_and_the_processor(tmp_path, type, kernels, share, word):
    path = llama_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS, type=type)
    found = gguf_streams(path, kernels)
    multiplied = [one for one in read_header(path).tensors if len(one.shape) > 1 and one.name != "token_embd.weight"]

    assert found.repacked_bytes == share * sum(one.size_bytes for one in multiplied)
    assert found.kernels == word


def test_reading_a_prompt_adds_the_attention_of_its_tokens(tmp_path):
    found = gguf_streams(llama_gguf(tmp_path / "a.gguf", width=WIDTH, layers=LAYERS))

    assert found.prompt_operations(10) == 10 * LAYERS * MATRICES + LAYERS * 10 * 10 * WIDTH
    assert found.prompt_operations(10, causal=False) == 10 * LAYERS * MATRICES + 2 * LAYERS * 10 * 10 * WIDTH


def test_a_cut_file_is_refused(tmp_path):
    path = llama_gguf(tmp_path / "a.gguf")
    path.write_bytes(path.read_bytes()[:-1000])

    with pytest.raises(EdgemlError, match="is cut off"):
        gguf_streams(path)


def test_a_file_without_the_width_of_its_attention_is_refused(tmp_path):
    path = tmp_path / "a.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight", np.zeros((64, 64), np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    with pytest.raises(EdgemlError, match="how wide its attention is"):
        gguf_streams(path)


def test_a_graph_of_text_costs_its_weights_a_token_and_its_attention_the_square(tmp_path):
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Softmax", ["y"], ["z"]),
        helper.make_node("MatMul", ["z", "y"], ["of_two_texts"]),  # without weights: that is the attention
    ]
    outputs = [floats("of_two_texts", None, None, None)]
    path = network(
        tmp_path / "a.onnx", nodes, {"w": (TensorProto.FLOAT, (64, 48))}, [floats("x", 1, None, 64)], outputs
    )
    found = onnx_graph(path, tokens=10)

    assert found.operations == 10 * 64 * 48 + 2 * 10 * 10 * 64
    assert found.weight_bytes == 64 * 48 * 4


def test_integers_count_as_often_as_floats_and_take_a_quarter(tmp_path):
    nodes = [helper.make_node("MatMulInteger", ["x", "w"], ["y"])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, None, 64))]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, (1, None, 48))]
    found = onnx_graph(
        network(tmp_path / "a.onnx", nodes, {"w": (TensorProto.INT8, (64, 48))}, inputs, outputs), tokens=4
    )

    assert found == Graph(operations=4 * 64 * 48 + 0, weight_bytes=64 * 48)


def test_weights_that_are_dequantized_first_are_weights(tmp_path):
    nodes = [
        helper.make_node("DequantizeLinear", ["w8", "scale"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    weights = {"w8": (TensorProto.INT8, (64, 48)), "scale": (TensorProto.FLOAT, ())}
    path = network(tmp_path / "a.onnx", nodes, weights, [floats("x", 1, None, 64)], [floats("y", 1, None, 48)])

    assert onnx_graph(path, tokens=4).operations == 4 * 64 * 48


def test_a_convolution_costs_its_kernel_for_every_number_that_it_makes(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["y", "deep"], ["z"], group=8),
    ]
    weights = {"w": (TensorProto.FLOAT, (8, 3, 3, 3)), "deep": (TensorProto.FLOAT, (8, 1, 3, 3))}
    path = network(
        tmp_path / "a.onnx", nodes, weights, [floats("x", None, 3, None, None)], [floats("z", 1, 8, None, None)]
    )

    assert onnx_graph(path, pixels=(32, 32)).operations == 8 * 16 * 16 * 27 + 8 * 14 * 14 * 9


def test_a_convolution_of_unknown_size_is_refused_and_becomes_an_absent_figure(tmp_path):
    nodes = [
        helper.make_node("NonZero", ["x"], ["places"]),
        helper.make_node("Cast", ["places"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["wide", "front"], ["y"]),
        helper.make_node("Conv", ["y", "w"], ["z"]),
    ]
    weights = {"w": (TensorProto.FLOAT, (8, 4, 3)), "front": (TensorProto.INT64, (1,))}
    path = network(
        tmp_path / "a.onnx", nodes, weights, [floats("x", 1, 3, None, None)], [floats("z", None, None, None)]
    )

    with pytest.raises(EdgemlError, match="cannot be told"):
        onnx_graph(path, pixels=(32, 32))


# The published points


def test_every_point_says_what_was_run_and_where_it_stands():
    data = published()

    assert {point.metric for point in data.points} == {"decode_rate", "prefill_rate", "latency", "slowdown"}
    for name, source in data.sources.items():
        assert source.cite, name
        assert re.match(r"(read )?20\d\d", source.date), name
        assert "specpicks" not in source.cite
    for network_ in data.files.values():
        assert network_.how


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("engine:", "motor:", "motor"),
        ("source: nyunai", "source: nobody", "nobody"),
        ("chip: m4-max", "chip: m9", "m9"),
        ('file: "llama2-7b f16"', 'file: "llama9"', "llama9"),
        ("metric: decode_rate", "metric: feeling", "metric"),
        ("value: 5.793", "value: -5.793", "-5.793"),
    ],
)
def test_a_point_with_an_unknown_key_name_or_value_is_refused(old, new, message):
    text = (files("edgeml.targets.estimated") / "points.yaml").read_text(encoding="utf-8")
    for quoted in (old, old.replace(": ", ': "') + '"'):
        broken = text.replace(quoted, new, 1)
        if broken != text:
            break

    with pytest.raises(EdgemlError, match=message):
        parsed(broken)


# The laws


def test_each_source_counts_as_much_as_any_other():
    many = [Case("a", 1.0, 0, 1.0)] * 30
    rate, layer_s = fitted([*many, Case("b", 4.0, 0, 1.0)], layers=False)

    assert rate == pytest.approx(2.0)
    assert layer_s == 0


def test_a_time_for_each_layer_is_found_where_there_is_one():
    cases = [
        Case(source, work, layers, work / 5 + layers * 0.01) for source in "ab" for work, layers in ((1, 10), (9, 32))
    ]

    assert fitted(cases, layers=True) == pytest.approx((5.0, 0.01))


def test_a_range_leaves_a_share_to_the_source_that_nobody_saw():
    assert quantile([("a", 0.1), ("b", 0.2), ("c", 0.3), ("d", 0.4)]) == 0.4
    assert quantile([(source, size / 10) for size, source in enumerate("abcdefghi")]) == pytest.approx(0.7)
    assert quantile([("a", -0.9), ("b", 0.2)]) == 0.9


def test_a_source_that_is_left_out_changes_nothing_of_its_own_prediction():
    name = "pi4"
    whole, without = law("decode_rate", name), law("decode_rate", name, "dambergn")

    assert "dambergn" in whole.sources
    assert "dambergn" not in without.sources
    assert whole.rate != without.rate


@pytest.mark.parametrize("name", GOAL)
def test_half_of_the_points_of_unseen_sources_are_within_twenty_percent(name):
    assert SUMMARIES["decode_rate", name].median <= 0.2
    if name != "pi5, best threads":
        assert SUMMARIES["decode_rate", name].sources >= LEAST_SOURCES
    assert SUMMARIES["decode_rate", name].mean_of_sources <= 0.2


@pytest.mark.parametrize("name", GOAL)
def test_the_ranges_hold_the_share_that_they_claim(name):
    assert SUMMARIES["decode_rate", name].inside >= LEVEL


def test_a_class_with_fewer_sources_has_no_narrower_range():
    for metric in ("decode_rate", "prefill_rate"):
        laws = [law(metric, name) for name in classes(metric)]
        for few in (one for one in laws if one.few):
            device = few.name.partition(",")[0]
            enough = [one for one in laws if not one.few and one.name.partition(",")[0] == device]
            assert all(few.spread >= one.spread for one in enough), few.name
            assert all(few.spread >= abs(miss) for _, miss in misses(metric, few.name)), few.name


def test_a_class_with_one_source_predicts_nothing_of_it():
    row = next(row for row in ROWS if row.name == "pi-zero2w")

    assert (row.predicted, row.error, row.inside) == (None, None, None)
    assert SUMMARIES["decode_rate", "pi-zero2w"].median is None
    assert law("decode_rate", "pi-zero2w").factor > law("decode_rate", "pi4").factor


@pytest.fixture
def fresh_laws():
    """Laws are fitted once; here they are fitted anew, before and after."""
    kept = (laws.law, laws.classes, laws.misses, laws.spread_of, laws._cases)
    for one in kept:
        one.cache_clear()
    yield
    for one in kept:
        one.cache_clear()


def test_no_prediction_or_range_of_a_source_hangs_on_what_it_published_itself(fresh_laws, monkeypatch):
    expected = {(row.metric, row.name, row.point.source): law(row.metric, row.name, row.point.source) for row in ROWS}
    data, sources = published(), sorted({row.point.source for row in ROWS})
    for source in sources:
        moved = tuple(replace(one, value=one.value * (3 if one.source == source else 1)) for one in data.points)
        monkeypatch.setattr(laws, "published", lambda points=moved: replace(data, points=points))
        for cached in (laws.law, laws.classes, laws.misses, laws.spread_of, laws._cases):
            cached.cache_clear()
        for (metric, name, own), before in expected.items():
            if own == source:
                assert law(metric, name, own) == before, (metric, name, own)


def test_a_layers_own_time_helps_on_a_gpu_and_not_on_a_pi():
    alone, with_layers = form_errors("apple-silicon, GPU")
    assert with_layers < alone / 2
    alone, with_layers = form_errors("pi4")
    assert with_layers >= alone


def test_rows_beyond_the_memory_are_fitted_by_no_law_and_do_not_fit():
    fitted_on = [
        point for metric in ("decode_rate", "prefill_rate") for one in classes(metric).values() for point in one
    ]
    found = {one.point.file: one for one in collapses(profile("pi5"))}

    assert not any(point.over_memory for point in fitted_on)
    assert all(one.word == "does not fit" for one in found.values() if one.point.value < 0.1)
    assert found["gemma-2-9b q8_0"].word == "does not fit"
    assert all(one.word != "does not fit" for one in found.values() if one.point.value > 0.9 * one.expected)


# What is said of a variant


def test_a_decoder_on_a_pi_has_every_figure_with_a_range_a_method_and_sources(tmp_path):
    found = estimates(decoder(tmp_path), profile("pi5"), Workload(task="text-generation"))
    figures = by_metric(found)
    known = {one.name: one.unit for one in METRICS}

    names = {
        "prefill_rate",
        "decode_rate",
        "latency",
        "latency_first_token",
        "energy",
        "energy_decode",
        "memory_needed",
    }
    assert set(figures) == names
    assert not found.absent
    for one in found.estimates:
        assert one.low < one.value < one.high or one.metric == "memory_needed"
        assert one.unit == known[one.metric]
        assert one.level == (LEVEL if one.unit in ("ms", "token/s") else None)  # no share is claimed of the others
        assert one.method
        assert one.sources
    assert found.fit.word == "fits"
    assert "beyond what was published" in figures["decode_rate"].method  # it is far smaller than any of those


def test_a_decode_rate_is_the_fitted_bandwidth_over_the_bytes(tmp_path):
    variant = decoder(tmp_path)
    streams = gguf_streams(variant.path / variant.manifest.weights)
    figures = by_metric(
        estimates(variant, profile("pi4"), Workload(task="text-generation", prompt_tokens=6, output_tokens=4))
    )

    known = law("decode_rate", "pi4")
    assert figures["decode_rate"].value == pytest.approx(known.rate / streams.decode_bytes(8))
    assert figures["decode_rate"].low == pytest.approx(figures["decode_rate"].value / known.factor)
    seconds = figures["latency_first_token"].value / 1e3 + 4 / figures["decode_rate"].value
    assert figures["latency"].value == pytest.approx(seconds * 1e3)


def test_energy_is_time_by_the_least_and_the_most_of_the_power(tmp_path):
    figures = by_metric(estimates(decoder(tmp_path), profile("pi4"), Workload(task="text-generation")))
    power, rate = profile("pi4").busy_w, figures["decode_rate"]

    assert figures["energy_decode"].value == pytest.approx(power.value / rate.value)
    assert figures["energy_decode"].low == pytest.approx(power.low / rate.high)
    assert figures["energy_decode"].high == pytest.approx(power.high / rate.low)


def test_where_only_a_maximum_is_published_power_reaches_from_idle_to_it():
    span = speed.watts(Machine(profile("apple-silicon:m1")))

    assert (span.low, span.high) == (profile("apple-silicon:m1").idle_w.value, profile("apple-silicon:m1").busy_w.value)


def test_few_threads_write_faster_on_a_pi_5_than_all_and_read_slower(tmp_path):
    variant, target = decoder(tmp_path), profile("pi5")
    two, four, free = (
        by_metric(estimates(variant, target, Workload(task="text-generation", threads=threads)))
        for threads in (2, 4, None)
    )

    assert two["decode_rate"].value > four["decode_rate"].value
    assert free["decode_rate"].value == two["decode_rate"].value
    assert two["prefill_rate"].value <= four["prefill_rate"].value == free["prefill_rate"].value
    assert 0.5 < thread_exponent() < 1


def test_an_encoder_on_a_pi_4_is_a_pi_5s_time_and_a_slowdown_with_both_ranges(tmp_path):
    variant, workload = onnx_variant(tmp_path / "v"), Workload(task="sentence-similarity", input_tokens=16)
    five, four = (by_metric(estimates(variant, profile(name), workload))["latency"] for name in ("pi5", "pi4"))

    assert four.value > 2 * five.value
    assert four.high / four.value > five.high / five.value
    assert "as long here as on a Pi 5" in four.method


def test_reading_the_weights_once_is_the_least_that_a_run_takes():
    machine = Machine(profile("pi5"))
    light = speed.graph_time(Graph(operations=1e6, weight_bytes=90_000_000), "fp32", machine)

    assert light.value == pytest.approx(90e6 / law("decode_rate", "pi5, all cores").rate)


def test_a_gguf_encoder_reads_all_of_its_tokens_at_once(tmp_path):
    streams = gguf_streams(bert_gguf(tmp_path / "b.gguf", width=WIDTH, layers=8, type="Q8_0"), "arm64-dotprod")
    span = speed.prefill(streams, Machine(profile("pi5")), tokens=64, causal=False)

    rate = law("prefill_rate", "pi5, repacked kernels").rate
    assert span.value == pytest.approx(streams.prompt_operations(64, causal=False) / rate)


def test_a_mac_needs_its_chip_and_may_leave_its_gpu_alone(tmp_path):
    variant = decoder(tmp_path)
    unnamed = by_metric(estimates(variant, profile("apple-silicon"), Workload(task="text-generation")))
    named = profile("apple-silicon:m4")
    gpu, cpu = (
        by_metric(estimates(variant, named, Workload(task="text-generation", gpu=gpu))) for gpu in (None, False)
    )

    assert isinstance(unnamed["decode_rate"], Absent)
    assert "m1-max" in unnamed["decode_rate"].hint
    assert "each layer" in gpu["decode_rate"].method
    assert gpu["decode_rate"].value != cpu["decode_rate"].value


@pytest.mark.parametrize("name", ["pi3", "android", "arm64-linux"])
def test_what_nobody_published_is_absent_and_memory_is_still_known(tmp_path, name):
    found = estimates(decoder(tmp_path), profile(name), Workload(task="text-generation"))

    assert [one.metric for one in found.estimates] == ["memory_needed"]
    assert {one.metric for one in found.absent} >= {"decode_rate", "prefill_rate", "latency", "energy"}
    assert all("nothing was published" in one.reason and one.hint for one in found.absent)


def test_a_picture_that_is_read_in_patches_is_a_text_of_them(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "patch"], ["y"], strides=[8, 8]),
        helper.make_node("Flatten", ["y"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["z"]),
        helper.make_node("Softmax", ["z"], ["out"]),
    ]
    weights = {"patch": (TensorProto.FLOAT, (16, 3, 8, 8)), "w": (TensorProto.FLOAT, (16, 48))}
    path = network(tmp_path / "a.onnx", nodes, weights, [floats("x", None, 3, 32, 32)], [floats("out", None, 48)])

    patches = 4 * 4
    expected = patches * 16 * 3 * 8 * 8 + (patches + 1) * 16 * 48 + 2 * (patches + 1) ** 2 * 16
    assert onnx_graph(path, pixels=(32, 32)).operations == expected


def test_a_classifier_of_pictures_is_counted_by_its_pixels(tmp_path):
    folder = image_variant(tmp_path / "v")
    nodes = [helper.make_node("Conv", ["pixel_values", "w"], ["logits"])]
    weights = {"w": (TensorProto.FLOAT, (3, 3, 8, 8))}
    inputs, outputs = [floats("pixel_values", None, 3, 8, 8)], [floats("logits", None, 3, 1, 1)]
    network(folder / "model.onnx", nodes, weights, inputs, outputs)
    figures = by_metric(estimates(load_variant(folder), profile("pi5"), Workload(task="image-classification")))

    assert figures["latency"].value == pytest.approx(3 * 3 * 64 * 4 / law("decode_rate", "pi5, all cores").rate * 1e3)
    assert "longer to read than to multiply" in figures["latency"].method
    assert figures["energy"].unit == "J"


def test_a_graph_without_products_has_no_time(tmp_path):
    variant = load_variant(image_variant(tmp_path / "v"))
    figures = by_metric(estimates(variant, profile("pi5"), Workload(task="image-classification")))

    assert "no products" in figures["latency"].reason


def test_a_model_that_reads_and_writes_in_onnx_has_its_memory_alone(tmp_path):
    seq2seq_variant(tmp_path / "v")
    found = estimates(load_variant(tmp_path / "v"), profile("pi5"), Workload(task="text2text-generation"))

    assert [one.metric for one in found.estimates] == ["memory_needed"]
    assert {one.metric for one in found.absent} >= {"latency", "decode_rate"}


def test_a_graph_that_cannot_be_counted_has_no_time(tmp_path):
    variant = onnx_variant(tmp_path / "v")
    (variant.path / "model.onnx").write_bytes(b"broken")
    found = by_metric(estimates(variant, profile("pi5"), Workload(task="sentence-similarity")))

    assert isinstance(found["latency"], Absent)
    assert "model.onnx" in found["latency"].reason


def test_a_kind_of_kernel_that_nobody_published_is_absent_alone(tmp_path):
    found = estimates(decoder(tmp_path, type="F16"), profile("pi5"), Workload(task="text-generation"))
    figures = by_metric(found)

    assert isinstance(figures["prefill_rate"], Absent)
    assert isinstance(figures["latency"], Absent)
    assert figures["decode_rate"].value > 0


def test_perplexity_reads_and_writes_nothing(tmp_path):
    found = estimates(decoder(tmp_path), profile("pi5"), Workload(task="perplexity"))

    assert [one.metric for one in found.estimates] == ["prefill_rate", "memory_needed"]


def test_power_that_nobody_published_is_said():
    bare = replace(profile("pi5"), busy_w=None)

    with pytest.raises(Unpublished, match="no power at the wall"):
        speed.watts(Machine(bare))


# Memory


def test_weights_that_are_rewritten_count_twice_and_may_go():
    once = memory.need("gguf decoder", Weights(file_bytes=10**9))
    twice = memory.need("gguf decoder", Weights(file_bytes=10**9, repacked_bytes=9 * 10**8))

    assert twice.value - once.value == pytest.approx(9 * 10**8)
    assert twice.low == pytest.approx(once.low)


def test_the_cache_of_the_stated_context_is_part_of_the_need(tmp_path):
    variant = decoder(tmp_path)
    streams = gguf_streams(variant.path / variant.manifest.weights)
    short, long = (
        by_metric(estimates(variant, profile("pi4"), Workload(task="text-generation", context_tokens=tokens)))
        for tokens in (512, 4000)
    )

    grown = (long["memory_needed"].value - short["memory_needed"].value) * 2**20
    assert grown == pytest.approx((4096 - 512) * streams.kv_bytes_per_token)


def test_the_base_is_what_edgemls_own_processes_had():
    for kind in ("gguf decoder", "gguf encoder", "onnx"):
        share, base = memory.calibrated(kind)
        for row in (one for one in published().memory if one.kind == kind):
            predicted = share * row.file_bytes + row.repacked_bytes + base
            assert predicted == pytest.approx(row.needed_mib * 2**20, rel=0.03)


@pytest.mark.parametrize(
    ("gigabytes", "word"), [(0.5, "fits"), (6.8, "fits"), (7.0, "tight"), (7.6, "tight"), (7.7, "does not fit")]
)
def test_a_variant_fits_where_the_most_that_it_may_need_is_free(gigabytes, word):
    needed = memory.need("gguf decoder", Weights(file_bytes=int(gigabytes * GIB)))

    assert memory.fit("v", needed, profile("pi5:8gb"), 512).word == word


def test_what_the_system_keeps_is_a_range_too_and_decides_on_a_small_board():
    found = memory.fit("v", memory.need("onnx", Weights(23 << 20)), profile("pi5:1gb"), None)

    assert found.word == "tight"  # beside a desktop, which may take all of it
    assert found.available_low_bytes < found.needed_high_bytes < found.available_high_bytes
    assert found.available_low_bytes == 0
    assert "keeps 0.3 to 1 GB" in found.method


def test_where_the_memory_is_unknown_nothing_is_said_of_it():
    assert memory.fit("v", memory.need("onnx", Weights(10**8)), replace(profile("pi5"), system_gb=None), None) is None


def test_what_does_not_fit_has_no_times(tmp_path):
    tiny = replace(profile("pi5"), chosen_gb=0.31)
    found = estimates(decoder(tmp_path), tiny, Workload(task="text-generation"))

    assert found.fit.word == "does not fit"
    assert [one.metric for one in found.estimates] == ["memory_needed"]
    assert {one.metric for one in found.absent} >= {"decode_rate", "latency", "energy"}


# The documents


def test_the_page_is_what_its_script_writes_now():
    script = runpy.run_path(str(ROOT / "docs/estimates.py"), run_name="estimates")

    assert script["document"](ROWS) == (ROOT / "docs/estimates.md").read_text(encoding="utf-8"), "run: make docs"


def test_the_picture_has_a_marker_for_every_prediction():
    picture = (ROOT / "docs/estimates.svg").read_text(encoding="utf-8")
    predicted = [row for row in ROWS if row.metric == "decode_rate" and row.predicted is not None]
    groups = {row.name for row in predicted}

    axis_and_legend = len(re.findall(r"<use ", picture)) - len(predicted)
    assert axis_and_legend >= len(groups)
    for name in groups:
        assert name in picture
