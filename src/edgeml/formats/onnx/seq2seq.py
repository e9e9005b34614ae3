"""Models that read one text and write another: their export as two graphs, one that reads and one that writes."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.formats.onnx.export import exporter_settings, load_model, share_heads
from edgeml.formats.onnx.graph import COPIED, keep, load, rename, replace, save
from edgeml_runtime.session import Kind

if TYPE_CHECKING:
    from onnx import ModelProto

GRAPHS = {"encoder": "encoder.onnx", "decoder": "decoder.onnx"}
PAIRS: tuple[Kind, ...] = ("seq2seq", "speech")  # consist of both
_CROSS, _OWN = "cross_attention_cache", "self_attention_cache"


def export_seq2seq(source: Path, folder: Path) -> None:
    """Write `encoder.onnx` and `decoder.onnx` as `edgeml_runtime.backends.onnx_seq2seq` reads them.

    The batch is one, so neither has a mask. The encoder is the whole model, cut back to the keys and values that the
    decoder's cross-attention makes of the text; so the decoder needs neither the text nor a first step of its own.
    """
    from transformers import AutoModelForSeq2SeqLM

    model = load_model(AutoModelForSeq2SeqLM, source)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix="parts-") as scratch:
        reads = _only(_exported(model, _reading(model), Path(scratch) / "encoder"), _CROSS)
        writes = share_heads(_only(_exported(model, _writing(model), Path(scratch) / "decoder"), _OWN, "logits"))
    mark_copies(reads, writes)
    folder.mkdir()
    save(reads, folder / GRAPHS["encoder"])
    save(writes, folder / GRAPHS["decoder"])


def mark_copies(*models: ModelProto) -> None:
    """Name a matrix that was stored before, in the same model or one before it, as the copy that it is.

    One that is another's transpose is a copy as well. The audit counts copies as bits, not as parameters.
    """
    from onnx import numpy_helper

    known: dict[bytes, str] = {}
    for model in models:
        new_names: dict[str, str] = {}
        for tensor in model.graph.initializer:
            array = numpy_helper.to_array(tensor)
            if array.ndim < 2 or array.dtype != np.float32:
                continue
            if original := known.get(_digest(array)):
                new_names[tensor.name] = f"{original}{COPIED}{len(new_names) or ''}"
            else:
                known |= dict.fromkeys((_digest(array), _digest(array.T)), tensor.name)
        rename(model, new_names)


def _reading(model: Any) -> dict[str, Any]:
    """The whole model on six tokens of text and two of an answer."""
    text, answer = _tokens(model)
    return {"input_ids": text, "decoder_input_ids": answer[:, :2], "use_cache": True}


def _writing(model: Any) -> dict[str, Any]:
    """The decoder alone, in the middle of an answer: two new tokens after three."""
    import torch
    from transformers.modeling_outputs import BaseModelOutput

    text, answer = _tokens(model)
    with torch.no_grad():
        before = model(input_ids=text, decoder_input_ids=answer[:, :3], use_cache=True)
    read = BaseModelOutput(last_hidden_state=before.encoder_last_hidden_state)
    caches = {"past_key_values": before.past_key_values, "use_cache": True}
    return {"decoder_input_ids": answer[:, 3:], "encoder_outputs": read, **caches}


def _tokens(model: Any) -> tuple[Any, Any]:
    import torch

    words = model.config.vocab_size
    return torch.arange(10, 16)[None] % words, torch.arange(20, 25)[None] % words


def _exported(model: Any, sample: dict[str, Any], folder: Path) -> ModelProto:
    from transformers.exporters import OnnxExporter

    OnnxExporter().export(model, sample, exporter_settings(dynamic_shapes=_axes(sample))).save_pretrained(str(folder))
    return load(folder / "model.onnx")


def _axes(sample: dict[str, Any]) -> dict[str, Any]:
    """Which axes vary: the tokens of the text, of the answer so far, and of the answer's new ones."""
    from torch.export import Dim

    axes: dict[str, Any] = {name: {1: Dim.AUTO} for name in ("input_ids", "decoder_input_ids") if name in sample}
    if "input_ids" in sample:
        return axes | {"decoder_input_ids": None}  # what it makes is cut away
    layers = len(sample["past_key_values"].self_attention_cache.layers)
    caches = [{2: Dim.AUTO} for _ in range(4 * layers)]  # keys and values of both attentions
    return axes | {"encoder_outputs": [{1: Dim.AUTO}], "past_key_values": caches}


def _only(model: ModelProto, *parts: str) -> ModelProto:
    """The outputs whose names hold one of the parts, and the inputs that these need."""
    keep(model, [item.name for item in model.graph.output if any(part in item.name for part in parts)])
    read = {name for node in model.graph.node for name in node.input}
    replace(model.graph.input, [item for item in model.graph.input if item.name in read])
    return model


def _digest(array: Any) -> bytes:
    return hashlib.sha256(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes()).digest()
