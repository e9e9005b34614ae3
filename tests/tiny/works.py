"""One graph of a few KB to be made small in this process, and the inputs that it is calibrated with."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.formats import Calibration
from edgeml.formats.onnx.choice import Work
from edgeml.formats.onnx.inputs import Reader
from edgeml.formats.onnx.order import Order
from edgeml_runtime.types import Pixels
from tiny.graphs import WIDTH, graph_model, onnx_source
from tiny.pictures import picture_folder

LINES = (
    "a plain line",
    "another, longer line of words",
    "x",
    "short",
    "7 of 9 letters",
    "the end of it",
    "zz top",
    "q",
)
PIXELS = Pixels(height=8, width=8, resample="bilinear", scale=1 / 255, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CHANNELS = 8
LOUD = 500.0  # how much larger the weights of the first channel are


def text_work(folder: Path, *, lines: Sequence[str] | None = LINES, **order: Any) -> Work:
    """The encoder of letters, to be made as `order` says, with these lines as calibration inputs."""
    source = onnx_source(folder / "source")
    calibration = Calibration(name="lines.txt", sha256="0" * 64, texts=tuple(lines)) if lines else None
    return _work(folder, source, kind="encoder", max_tokens=32, calibration=calibration, **order)


def graph_work(folder: Path, model: Any, *, lines: Sequence[str] = LINES, **order: Any) -> Work:
    """Any graph of token ids, read as the encoder of letters reads a text."""
    from onnx import save_model

    source = onnx_source(folder / "source")
    save_model(model, source)
    calibration = Calibration(name="lines.txt", sha256="0" * 64, texts=tuple(lines))
    return _work(folder, source, kind="encoder", max_tokens=32, calibration=calibration, **order)


def picture_work(folder: Path, *, each: int = 4, **order: Any) -> Work:
    """A convolutional net whose depthwise convolution has one channel with far larger weights than the others."""
    from onnx import save_model

    (folder / "source").mkdir()
    source = folder / "source" / "model.onnx"
    save_model(depthwise_model(), source)
    paths = sorted(str(path) for path in picture_folder(folder / "pictures", each).rglob("*.png"))
    calibration = Calibration(name="pictures", sha256="0" * 64, images=tuple(paths)) if each else None
    return _work(folder, source, kind="image", pixels=PIXELS, calibration=calibration, **order)


def depthwise_model() -> Any:
    """A convolution that mixes, one for each channel alone, and a product to three logits.

    The first channel is dead, and its weights are large, as where a norm of nearly no variance was folded into them.
    """
    from onnx import helper

    random = np.random.default_rng(0)
    each = random.standard_normal((CHANNELS, 1, 3, 3))
    each[0] *= LOUD
    stored = {
        "mix": random.standard_normal((CHANNELS, 3, 1, 1)) * (np.arange(CHANNELS) > 0)[:, None, None, None],
        "each": each,
        "bias": random.standard_normal(CHANNELS),
        "head": random.standard_normal((3, CHANNELS)),
        "logit": np.zeros(3),
    }
    stored = {name: array.astype(np.float32) for name, array in stored.items()}
    nodes = [
        helper.make_node("Conv", ["pixel_values", "mix"], ["mixed"], "mixing"),
        helper.make_node("Relu", ["mixed"], ["cut"], "relu"),
        helper.make_node("Conv", ["cut", "each", "bias"], ["apart"], "depthwise", group=CHANNELS, pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["apart"], ["again"], "relu_again"),
        helper.make_node("GlobalAveragePool", ["again"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node("Gemm", ["flat", "head", "logit"], ["logits"], "head", transB=1),
    ]
    return graph_model(nodes, {"pixel_values": ["batch", 3, 8, 8]}, {"logits": ["batch", 3]}, stored)


def two_products(*, loud: float = 1.0) -> Any:
    """Letters are looked up, mixed, bent and mixed again; one of the second's weights is `loud` times as large."""
    from onnx import helper

    random = np.random.default_rng(0)
    stored = {"table": random.standard_normal((200, WIDTH)).astype(np.float32)}
    stored |= {name: random.standard_normal((WIDTH, WIDTH)).astype(np.float32) for name in ("first", "second")}
    stored["second"][0, 0] *= loud
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["letters"], "lookup"),
        helper.make_node("MatMul", ["letters", "first"], ["mixed"], "mixing"),
        helper.make_node("Tanh", ["mixed"], ["bent"], "bending"),
        helper.make_node("MatMul", ["bent", "second"], ["last_hidden_state"], "mixing_again"),
    ]
    shape = ["batch", "tokens"]
    return graph_model(nodes, {"input_ids": shape}, {"last_hidden_state": [*shape, WIDTH]}, stored)


def reader(arrays: Sequence[Any], name: str, *, batches: bool = True) -> Reader:
    """Inputs that are these arrays, each a batch of one whose second axis is its length."""
    return Reader(lambda row: {name: arrays[row]}, tuple(array.shape[1] for array in arrays), batches)


def _work(folder: Path, source: Path, **order: Any) -> Work:
    made, scratch = folder / "made", folder / "scratch"
    for path in (made, scratch):
        path.mkdir()
    if (source.parent / "tokenizer.json").exists():
        shutil.copy(source.parent / "tokenizer.json", made)
    places = {"source": str(source), "folder": str(made), "shared": str(folder)}
    asked = Order(**places, **{"kernels": "x86-64-vnni", "scheme": "int8", "here": True, **order})
    return Work(asked, "model.onnx", lambda small: source, scratch, lambda done, total, step: None)
