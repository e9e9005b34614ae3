"""Speech recognition: its export as two graphs, one that hears and one that writes, and edits for a quantizer.

Each edit keeps the graphs' answers.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.formats.onnx.export import exporter_settings, load_model
from edgeml.formats.onnx.graph import keep, load, look_up, replace, save, settings
from edgeml.formats.onnx.seq2seq import GRAPHS, mark_copies
from edgeml.speech import read_speech

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

_CROSS, _OWN = "cross_attention_cache", "self_attention_cache"


def export_speech(source: Path, folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx` as `edgeml_runtime.backends.onnx_speech` reads them.

    As for models that read text, the encoder's outputs are the keys and values of the decoder's cross-attention. The
    batch is one and the window fixed, so only the tokens of the answer vary.
    """
    import torch
    from transformers import AutoModelForSpeechSeq2Seq

    sound = read_speech(source).sound
    model = load_model(AutoModelForSpeechSeq2Seq, source)
    features = torch.linspace(-1, 1, sound.mel_bins * sound.frames).reshape(1, sound.mel_bins, sound.frames)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="parts-") as scratch:
        hears = _exported(model, *_hearing(features), folder=Path(scratch) / "encoder", outputs=(_CROSS,))
        writes = _exported(
            model, *_writing(model, features), folder=Path(scratch) / "decoder", outputs=(_OWN, "logits")
        )
    mark_copies(hears, writes)
    folder.mkdir()
    save(hears, folder / GRAPHS["encoder"])
    save(writes, folder / GRAPHS["decoder"])


def products_of_frames(model: ModelProto) -> None:
    """A convolution over time becomes a plain product with each place's neighbours laid side by side.

    ONNX Runtime quantizes that one well, and convolutions badly.
    """
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in [node for node in model.graph.node if node.op_type == "Conv"]:
        weight = tensors.get(node.input[1])
        if weight is None or len(weight.dims) != 3 or not _is_plain(node):
            continue
        made, stored = _product(node, numpy_helper.to_array(weight))
        at = list(model.graph.node).index(node)
        replace(model.graph.node, [*model.graph.node[:at], *made, *model.graph.node[at + 1 :]])
        model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in stored.items())
        model.graph.initializer.remove(weight)


def lookups_of_places(model: ModelProto) -> None:
    """A table of positions becomes a lookup that the quantizer knows: one that is added whole, or read by GatherND."""
    from onnx import helper, numpy_helper

    tables = {one.name for one in model.graph.initializer if len(one.dims) == 2 and min(one.dims) > 1}
    for index, node in reversed(list(enumerate(model.graph.node))):
        if node.op_type == "GatherND" and node.input[0] in tables and not settings(node).get("batch_dims", 0):
            flat, axis = f"{node.output[0]}.places", f"{node.output[0]}.axis"
            model.graph.initializer.append(numpy_helper.from_array(np.array([-1]), axis))
            model.graph.node.remove(node)
            model.graph.node.insert(index, helper.make_node("Gather", [node.input[0], flat], list(node.output)))
            model.graph.node.insert(index, helper.make_node("Squeeze", [node.input[1], axis], [flat]))
        elif node.op_type == "Add" and node.input[1] in tables:
            node.input[1] = look_up(model, index, node.input[1], node.output[0])


def _hearing(features: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The whole model on a sound and two tokens of an answer, whose numbers are cut away; no axis varies."""
    import torch

    sample = {"input_features": features, "decoder_input_ids": torch.arange(2)[None], "use_cache": True}
    return sample, {"input_features": None, "decoder_input_ids": None}


def _writing(model: Any, features: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The decoder alone, in the middle of an answer: two new tokens after three; and which axes vary."""
    import torch
    from torch.export import Dim
    from transformers.modeling_outputs import BaseModelOutput

    answer = torch.arange(5)[None]
    with torch.no_grad():
        before = model(input_features=features, decoder_input_ids=answer[:, :3], use_cache=True)
    heard = BaseModelOutput(last_hidden_state=before.encoder_last_hidden_state)
    caches = {"past_key_values": before.past_key_values, "use_cache": True}
    own = 2 * len(before.past_key_values.self_attention_cache.layers)
    axes = {
        "decoder_input_ids": {1: Dim.AUTO},
        "encoder_outputs": [None],
        "past_key_values": [*[{2: Dim.AUTO}] * own, *[None] * own],
    }
    return {"decoder_input_ids": answer[:, 3:], "encoder_outputs": heard, **caches}, axes


def _exported(
    model: Any, sample: dict[str, Any], axes: dict[str, Any], *, folder: Path, outputs: tuple[str, ...]
) -> ModelProto:
    """The graph of those outputs whose names hold one of these, with the inputs that they need."""
    from transformers.exporters import OnnxExporter

    OnnxExporter().export(model, sample, exporter_settings(dynamic_shapes=axes)).save_pretrained(str(folder))
    graph = load(folder / "model.onnx")
    keep(graph, [item.name for item in graph.graph.output if any(part in item.name for part in outputs)])
    read = {name for node in graph.graph.node for name in node.input}
    replace(graph.graph.input, [item for item in graph.graph.input if item.name in read])
    return graph


def _is_plain(node: NodeProto) -> bool:
    own = settings(node)
    undilated = set(own.get("dilations", (1,))) == {1} and own.get("auto_pad", b"NOTSET") == b"NOTSET"
    return undilated and own.get("group", 1) == 1


def _product(node: NodeProto, weight: Any) -> tuple[list[NodeProto], dict[str, Any]]:
    """Nodes for `(1, channels, time)` to `(1, made, places)`: pad, cut out each neighbour, join, multiply."""
    from onnx import helper

    own, name = settings(node), node.output[0]
    made, channels, wide = weight.shape
    before, after = own.get("pads", (0, 0))
    step = own.get("strides", (1,))[0]
    stored = {
        f"{name}.pads": np.array([0, 0, before, 0, 0, after]),
        f"{name}.axis": np.array([2]),
        f"{name}.step": np.array([step]),
        **{f"{name}.from{place}": np.array([place]) for place in range(wide)},
        # A place reaches to as far before the end as others follow it; beyond any end is the end itself.
        **{f"{name}.to{place}": np.array([place - wide + 1 or np.iinfo(np.int64).max]) for place in range(wide)},
        f"{node.input[1]}.product": np.ascontiguousarray(weight.transpose(2, 1, 0).reshape(wide * channels, made)),
    }
    cuts = [
        helper.make_node(
            "Slice",
            [f"{name}_padded", f"{name}.from{place}", f"{name}.to{place}", f"{name}.axis", f"{name}.step"],
            [f"{name}_cut{place}"],
        )
        for place in range(wide)
    ]
    bias = node.input[2] if len(node.input) > 2 else ""
    summed = f"{name}_summed" if bias else f"{name}_product"
    return [
        helper.make_node("Pad", [node.input[0], f"{name}.pads"], [f"{name}_padded"]),
        *cuts,
        helper.make_node("Concat", [f"{name}_cut{place}" for place in range(wide)], [f"{name}_cuts"], axis=1),
        helper.make_node("Transpose", [f"{name}_cuts"], [f"{name}_turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", [f"{name}_turned", f"{node.input[1]}.product"], [f"{name}_product"]),
        *([helper.make_node("Add", [f"{name}_product", bias], [summed])] if bias else []),
        helper.make_node("Transpose", [summed], [name], perm=[0, 2, 1]),
    ], stored
