"""Which way a scheme is written is decided by a rule, on inputs that set no range, and can be repeated."""

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import numpy_helper

from edgeml.formats import Calibration, Wishes
from edgeml.formats.onnx.choice import Candidate, Work, choose
from edgeml.formats.onnx.graph import settle
from edgeml.formats.onnx.inputs import NEUTRAL, open_inputs, parts, spread
from edgeml.formats.onnx.int8 import write_int8
from edgeml.formats.onnx.judge import Judge
from edgeml.formats.onnx.nodes import excluded, name_nodes, weighted
from edgeml.formats.onnx.schemes import make
from tiny.graphs import graph_model
from tiny.refusals import refusal
from tiny.works import LINES, graph_work, picture_work, reader, text_work, two_products

HERE, ELSEWHERE = True, False


def ways(*ranks):
    names = ("dynamic", "static, minmax", "static, entropy")
    return [Candidate(name, lambda target, kept, only: target, rank=rank) for name, rank in zip(names, ranks)]  # noqa: B905


def stored(path):
    return {one.name: numpy_helper.to_array(one) for one in onnx.load(path).graph.initializer}


@pytest.mark.parametrize(
    ("agreement", "times_ms", "expected"),
    [
        ((0.990, 0.980), (2.0, 1.0), "dynamic"),  # faster does not make up for less agreement
        ((0.990, 0.9895), (2.0, 1.0), "static, minmax"),  # within 0.001, the faster
        ((0.990, 0.9895), (1.0, 1.04), "dynamic"),  # 5 % are no difference: the one that agrees better
        ((0.9895, 0.990), (1.0, 1.04), "static, minmax"),
        ((0.9895, 0.990), (1.0, 1.06), "dynamic"),
    ],
)
def test_of_those_that_agree_best_the_fastest_is_taken(agreement, times_ms, expected):
    found = ways(0, 1)
    names = [one.name for one in found]

    taken, why = choose(found, dict(zip(names, agreement, strict=True)), dict(zip(names, times_ms, strict=True)))

    assert taken.name == expected
    assert why


def test_without_times_that_count_the_favoured_way_is_taken():
    agreement = {"dynamic": 0.9895, "static, minmax": 0.9900, "static, entropy": 0.9899}

    assert choose(ways(0, 1, 1), agreement, {})[0].name == "dynamic"
    assert choose(ways(1, 0, 0), agreement, {})[0].name == "static, minmax"
    assert choose(ways(0, 1, 1), agreement | {"dynamic": 0.9}, {})[0].name == "static, minmax"


def test_inputs_that_judge_set_no_range():
    inputs = reader([np.full((1, 1), row) for row in range(10)], "x")

    first, second = parts(inputs)

    ours, theirs = ([int(part.feeds(row)["x"][0, 0]) for row in range(len(part.lengths))] for part in (first, second))
    assert (ours, theirs) == ([0, 1, 2, 4, 5, 6, 8, 9], [3, 7])
    assert refusal(parts, inputs.chosen([0])) == "the calibration inputs are too few: one sets ranges, another judges"
    assert len(parts(inputs.chosen([0, 1]))[1].lengths) == 1
    assert spread(range(1000), 64)[::63] == [0, 999]


def test_int8_records_how_well_each_way_agreed_and_how_long_it_took(tmp_path):
    made = make(graph_work(tmp_path, two_products()))

    found = made.settings
    assert set(found["agreement"]) == {"dynamic", "static, minmax", "static, entropy", "static, percentile"}
    assert found["judged_on"] == "2 calibration inputs that set no range"
    assert {"fp32", "dynamic"} < set(found["times_ms"])
    assert found["chosen"] in found["agreement"]
    assert found["timed"] == "on this machine"
    assert found["share_of_fp32_time"] == pytest.approx(
        found["times_ms"][found["chosen"]] / found["times_ms"]["fp32"], abs=1e-3
    )
    judge = Judge(tmp_path / "source" / "model.onnx", graph_inputs(tmp_path), "encoder")
    assert judge.agreement(made.path) == pytest.approx(found["agreement"][found["chosen"]], abs=1e-6)


def graph_inputs(tmp_path):
    work = text_work(tmp_path / "again")
    return parts(open_inputs(work.order, tmp_path / "source" / "model.onnx"))[1]


def test_times_of_another_machine_than_the_target_are_kept_and_decide_nothing(tmp_path):
    found = make(graph_work(tmp_path, two_products(), here=False)).settings

    assert found["timed"] == "on this machine, which is not the target: they decided nothing"
    assert found["times_ms"]


def test_without_calibration_int8_is_dynamic_and_nothing_is_measured(tmp_path):
    made = make(text_work(tmp_path, lines=None))

    assert made.settings == {}
    assert "mix_quantized" in stored(made.path)


@pytest.mark.parametrize("scheme", ["int8", "int8-static", "int4"])
def test_what_was_settled_is_repeated_byte_for_byte_without_measuring(tmp_path, scheme, monkeypatch):
    first = make(graph_work(tmp_path / "first", two_products(), scheme=scheme))
    monkeypatch.setattr(Judge, "times_ms", lambda *_: pytest.fail("timed anew"))
    monkeypatch.setattr(Judge, "agreement", lambda *_: pytest.fail("judged anew"))

    again = make(graph_work(tmp_path / "again", two_products(), scheme=scheme, settled=first.settings))

    written = [tmp_path / "first.onnx", tmp_path / "again.onnx"]
    for made, path in zip((first, again), written, strict=True):
        settle(made.path, path)
    assert written[0].read_bytes() == written[1].read_bytes()
    assert again.settings == first.settings


def test_settings_that_nobody_knows_are_refused(tmp_path):
    work = graph_work(tmp_path, two_products(), scheme="int8-static", settled={"chosen": "static, magic"})

    assert refusal(make, work) == "static, magic is no way to make it again"


def with_an_outlier():
    """One weight of the table is so large that its column is lost with one scale."""
    table = np.random.default_rng(1).standard_normal((200, 8)).astype(np.float32)
    table[:, 0] = 0.001  # what an outlier hides
    table[5, 0] = 900.0
    model = two_products()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(table, "table"))
    return model


def test_the_most_harmful_node_stays_whole_until_the_agreement_is_met(tmp_path):
    asked = Wishes(min_agreement=0.999, calibration_method="minmax")

    made = make(graph_work(tmp_path, with_an_outlier(), scheme="int8-static", wishes=asked))

    found = made.settings
    assert found["excluded"][0] == "lookup"
    assert len(found["excluded"]) < 3
    assert found["agreement_before"] < 0.999 <= found["agreement"][found["chosen"]]
    assert stored(made.path)["table"].dtype == np.float32


def test_a_graph_that_is_written_anew_holds_its_weights_once(tmp_path):
    """onnx appends to weights that lie beside a graph already."""
    source, target = tmp_path / "source.onnx", tmp_path / "small.onnx"
    onnx.save(two_products(), source)

    def written_bytes():
        write_int8(source, target, "x86-64-vnni")
        return (tmp_path / "small.onnx.data").stat().st_size

    assert written_bytes() == written_bytes()


def test_every_step_that_runs_graphs_tells_of_each_input(tmp_path):
    told = {}
    work = graph_work(tmp_path, with_an_outlier(), scheme="int8-static", wishes=Wishes(min_agreement=0.999))

    def say(done, total, step):
        told.setdefault(step, []).append((done, total))

    judges = len(work.inputs()[1].lengths)
    made = make(Work(work.order, work.file, work.shape, work.scratch, say))

    assert made.settings["excluded"]
    assert told["compare the methods"] == [(done, 3 * judges) for done in range(3 * judges + 1)]
    assert told["compare with fp32"] == [(done, judges) for done in range(judges + 1)]
    searched = told["find how many must stay whole"]
    assert [done for done, _ in searched] == list(range(len(searched)))
    assert len(searched) > judges
    assert all(done <= total for steps in told.values() for done, total in steps)
    assert len(told["time it and fp32 in turn"]) > 5


def test_an_agreement_that_no_small_graph_reaches_is_refused(tmp_path):
    work = graph_work(tmp_path, two_products(), scheme="int8-static", wishes=Wishes(min_agreement=1.0))

    assert "agrees with fp32 by 1.0 only where nothing is made small" in refusal(make, work)


def test_an_agreement_that_is_met_keeps_nothing_whole(tmp_path):
    made = make(graph_work(tmp_path, two_products(), scheme="int4", wishes=Wishes(min_agreement=0.1)))

    assert "excluded" not in made.settings


@pytest.mark.parametrize("scheme", ["int8", "int8-dynamic", "int8-static", "int4"])
def test_nodes_that_a_pattern_fits_stay_whole(tmp_path, scheme):
    made = make(graph_work(tmp_path, two_products(), scheme=scheme, wishes=Wishes(exclude=("again$",))))

    assert made.settings["excluded"] == ["mixing_again"]
    assert stored(made.path)["second"].dtype == np.float32
    assert "first" not in stored(made.path)


def test_a_pattern_that_fits_nothing_names_the_nearest():
    nodes = weighted(two_products())

    assert excluded(nodes, ["mix", "second"]) == ["mixing", "mixing_again"]
    assert refusal(excluded, nodes, ["mixin_agin"]) == "--exclude mixin_agin fits no node that the scheme makes small"
    assert "cannot be read" in refusal(excluded, nodes, ["("])


def test_a_bias_gives_its_name_to_the_product_before_it():
    from onnx import helper

    random = np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)
    tensors = {"w": random, "layer.0.dense.bias": random[0]}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"], "node_1"),
        helper.make_node("Add", ["y", "layer.0.dense.bias"], ["z"], "node_2"),
    ]
    model = graph_model(nodes, {"x": ["batch", 8]}, {"z": ["batch", 8]}, tensors)

    assert excluded(weighted(model), [r"layer\.0"]) == ["node_1"]


def test_every_node_gets_a_name_of_its_own(tmp_path):
    model = two_products()
    for node, name in zip(model.graph.node, ("", "same", "", "same"), strict=True):
        node.name = name
    onnx.save_model(model, tmp_path / "model.onnx")

    names = [node.name for node in onnx.load(name_nodes(tmp_path / "model.onnx", tmp_path / "named.onnx")).graph.node]

    assert names == ["Gather_0", "same", "Tanh_2", "same_1"]


def test_a_convolutional_net_is_timed_against_fp32(tmp_path):
    found = make(picture_work(tmp_path)).settings

    assert found["chosen"].startswith("static, ")
    assert set(found["times_ms"]) == {"fp32", found["chosen"]}


def test_answers_that_are_no_numbers_agree_with_nothing(tmp_path):
    work = graph_work(tmp_path, two_products())
    broken = onnx.load(work.whole)
    broken.graph.initializer[1].CopyFrom(numpy_helper.from_array(np.full((8, 8), np.nan, np.float32), "first"))
    onnx.save_model(broken, tmp_path / "broken.onnx")

    judge = Judge(work.whole, work.inputs()[1], "encoder")

    assert judge.agreement(tmp_path / "broken.onnx") == 0
    assert judge.agreement(work.whole) == pytest.approx(1)


def test_where_nothing_was_given_neutral_lines_judge_and_it_is_said(tmp_path):
    found = make(text_work(tmp_path, lines=None, scheme="fp16")).settings

    assert found["judged_on"] == f"{len(NEUTRAL)} neutral lines, since no calibration inputs were given"
    assert found["agreement"]["half precision"] > 0.999


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    work = picture_work(tmp_path, scheme="int8-static")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    broken = Calibration(name="c", sha256="0", images=(*work.order.calibration.images, str(tmp_path / "broken.png")))

    said = refusal(
        make, Work(replace(work.order, calibration=broken), "model.onnx", work.shape, work.scratch, work.say)
    )

    assert re.match(r"broken\.png cannot be read: ", said)


def test_inputs_without_a_token_are_refused(tmp_path):
    work = text_work(tmp_path, lines=LINES)
    tokenizer = Path(work.order.folder, "tokenizer.json")
    plain = re.sub(r'"post_processor":\{.*\},"decoder"', '"post_processor":null,"decoder"', tokenizer.read_text())
    tokenizer.write_text(plain)
    blank = replace(work.order, calibration=Calibration(name="c", sha256="0", texts=(" ", "\t")))

    assert refusal(open_inputs, blank, work.whole) == "the calibration inputs have no tokens"
