"""Activations are collected slice by slice, within a limit on memory."""

import subprocess
import sys
from itertools import pairwise

import numpy as np
import onnx
import pytest
from onnx import helper

from edgeml.formats.onnx import collect as onnx_collect
from edgeml.formats.onnx.collect import collect
from tiny.graphs import graph_model
from tiny.refusals import refusal
from tiny.works import reader

TALL, STEPS = 6, 5
_MIB = 2**20


def chain(path, width=8, steps=STEPS):
    """Each value is twice the one before it."""
    names = ["x", *(f"v{step}" for step in range(steps))]
    nodes = [helper.make_node("Add", [one, one], [two], two) for one, two in pairwise(names)]
    shape = ["batch", "tokens", width]
    onnx.save_model(graph_model(nodes, {"x": shape}, {names[-1]: shape}, {}), path)
    return path, names


def arrays(lengths, width=8):
    random = np.random.default_rng(0)
    return [random.standard_normal((1, length, width)).astype(np.float32) for length in lengths]


def counts(path, names, rows, scratch, limit=None):
    scratch.mkdir()
    found = collect(path, names, reader(rows, "x"), limit_bytes=limit, scratch=scratch, tick=lambda *_: None)
    return {name: (one.low, one.high, one.counts.tolist()) for name, one in found.items()}


def test_every_value_is_counted_once_whatever_the_lengths(tmp_path):
    path, names = chain(tmp_path / "chain.onnx")
    rows = arrays((3, 5, 3, 1, 5))

    found = counts(path, names, rows, tmp_path / "scratch")

    total = sum(row.size for row in rows)
    assert list(found) == names
    assert {sum(own) for _, _, own in found.values()} == {total}
    lowest = min(float(row.min()) for row in rows)
    assert [found[name][0] for name in names] == [lowest * 2**step for step in range(STEPS + 1)]


def test_slices_of_tensors_and_of_inputs_give_what_one_run_gives(tmp_path, monkeypatch):
    path, names = chain(tmp_path / "chain.onnx")
    rows = arrays((4, 4, 4, 4, 2))
    whole = counts(path, names, rows, tmp_path / "whole")

    ran = []
    monkeypatch.setattr(onnx_collect, "ROOM_BYTES", 2 * 2 * 4 * 8 * 4)  # two tensors of one longest input
    opened = onnx_collect._opened

    def noting(bare, tensors):
        ran.append(len(tensors))
        return opened(bare, tensors)

    monkeypatch.setattr(onnx_collect, "_opened", noting)
    assert counts(path, names, rows, tmp_path / "cut") == whole
    assert ran == [6, 2, 2, 2]  # once to learn the shapes


def test_inputs_of_one_length_are_stacked_and_others_never(tmp_path):
    inputs = reader(arrays((2, 3, 2, 2)), "x")

    shapes = [feeds["x"].shape for feeds in inputs.stacked(2)]

    assert shapes == [(2, 2, 8), (1, 2, 8), (1, 3, 8)]
    assert [feeds["x"].shape[0] for feeds in reader(arrays((2, 2)), "x", batches=False).stacked(9)] == [1, 1]


def test_a_limit_below_the_models_own_memory_says_what_that_is(tmp_path):
    path, names = chain(tmp_path / "chain.onnx")

    said = refusal(counts, path, names, arrays((2,)), tmp_path / "scratch", limit=_MIB)

    assert said.startswith("--memory allows 1 MB, and the model with its libraries takes ")


def test_a_limit_that_holds_not_even_one_activation_says_how_much_does(tmp_path):
    path, names = chain(tmp_path / "chain.onnx", width=_MIB)
    rows = arrays((8,), width=_MIB)
    limit = onnx_collect.resident_bytes() + 50_000_000

    said = refusal(counts, path, names, rows, tmp_path / "scratch", limit=limit)

    assert "the largest activation needs " in said
    needed = float(said.rpartition("needs ")[2].split()[0])
    assert needed == pytest.approx((limit + 2 * 8 * 4 * _MIB - 40_000_000) / 1e6, rel=0.1)


PEAK = """
import re, sys
from pathlib import Path
import numpy as np
import onnx, onnxruntime
from edgeml.formats.onnx.collect import collect, resident_bytes
from tiny.works import reader
model, scratch = map(Path, sys.argv[1:])
def feeds(row):
    return {"x": np.full((1, 4, 1 << 16), row, np.float32)}
inputs = reader([np.zeros((1, 4, 0))] * 12, "x")._replace(feeds=feeds)
names = ["x", *(f"v{step}" for step in range(12))]
limit = resident_bytes() + 40_000_000
collect(model, names, inputs, limit_bytes=limit, scratch=scratch, tick=lambda *_: None)
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(limit, int(peak[1]) * 1024)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a process knows its own memory there")
def test_the_peak_stays_below_the_limit_where_the_activations_are_four_times_as_large(tmp_path):
    """164 MB of activations of 12 inputs, 13.6 MB of each, with 40 MB to spare; as the kernel counts it."""
    path, _ = chain(tmp_path / "chain.onnx", width=1 << 16, steps=12)
    (tmp_path / "scratch").mkdir()
    command = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "scratch")]

    done = subprocess.run(command, capture_output=True, text=True, check=True, env={"PYTHONPATH": "tests:src"})

    limit, peak = map(int, done.stdout.split())
    assert peak < limit
