"""From a Transformers folder to an ONNX graph in fp32, by Transformers' own exporter. Runs no code of the model's."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import EXTERNAL_BYTES, MICROSOFT, TABLE, load, rename, save, sets_only, settings

if TYPE_CHECKING:
    from onnx import ModelProto

_FUSIONS = "cpu"  # fused operators that ONNX Runtime has CPU kernels for
_UNREAD = "pooler."  # a head that many checkpoints lack, and whose output no graph keeps


def export_encoder(source: Path, folder: Path) -> None:
    """Write `model.onnx`, the graph of an encoder: `last_hidden_state` (batch, tokens, width) first, both free."""
    from transformers import AutoModel

    _export_reader(load_model(AutoModel, source, unread=_UNREAD), folder)


def export_classifier(source: Path, folder: Path) -> None:
    """Write `model.onnx`, the graph of a text classifier: `logits` (batch, labels)."""
    from transformers import AutoModelForSequenceClassification

    _export_reader(load_model(AutoModelForSequenceClassification, source), folder)


def export_tagger(source: Path, folder: Path) -> None:
    """Write `model.onnx`, the graph of a token classifier: `logits` (batch, tokens, labels)."""
    from transformers import AutoModelForTokenClassification

    _export_reader(load_model(AutoModelForTokenClassification, source), folder)


def _export_reader(model: Any, folder: Path) -> None:
    """Write the graph of a model that reads whole texts, for any number of rows and tokens."""
    import torch
    from transformers.exporters import OnnxExporter

    # Two rows of unequal length: a mask of ones alone would be exported as no mask at all.
    ids = torch.arange(10, 22).reshape(2, 6) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    sample = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    accepted = inspect.signature(model.forward).parameters
    sample = {name: value for name, value in sample.items() if name in accepted}
    OnnxExporter().export(model, sample, exporter_settings()).save_pretrained(str(folder))


def export_decoder(source: Path, folder: Path) -> None:
    """Write `model.onnx`, the decoding graph of a language model with its cache; it serves the prompt as well.

    The batch is one: the graph has half the operators of one for any batch. Every layer's cache holds all tokens, and
    a sliding window is kept by the mask.
    """
    import torch
    from transformers import AutoModelForCausalLM, DynamicCache
    from transformers.exporters import OnnxExporter
    from transformers.exporters.utils import decompose_for_generation

    model = load_model(AutoModelForCausalLM, source)
    ids = torch.arange(10, 16)[None] % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[0, 0] = 0  # a mask of ones alone would be exported as no mask at all
    sample = {"input_ids": ids, "attention_mask": mask, "past_key_values": DynamicCache()}
    step, inputs = decompose_for_generation(model, sample, multi_token_decode=True)["decode"]
    made = OnnxExporter().export(step, inputs, exporter_settings(dynamic_shapes=_token_axes(inputs)))
    made.save_pretrained(str(folder))
    if sum(part.stat().st_size for part in folder.iterdir()) <= EXTERNAL_BYTES:
        graph = load(folder / "model.onnx")
        name_tables(graph, _tables(model))
        share_heads(graph)
        save(graph, folder / "model.onnx")


def share_heads(model: ModelProto) -> ModelProto:
    """A product by a matrix that is another one transposed becomes a product by that one, which is then stored once.

    The exporter transposes the head of a small model with tied embeddings beforehand, and leaves a large one as it is.
    """
    from onnx import helper, numpy_helper

    tensors = {one.name: one for one in model.graph.initializer if len(one.dims) == 2}
    shapes = {tuple(one.dims) for one in tensors.values()}
    paired = {name: numpy_helper.to_array(one) for name, one in tensors.items() if tuple(one.dims)[::-1] in shapes}
    looked_up = [node.input[0] for node in model.graph.node if node.op_type == "Gather" and node.input[0] in paired]
    for index, node in enumerate(list(model.graph.node)):
        multiplies = node.op_type in ("MatMul", "FusedMatMul") and node.input[1] in paired
        if not multiplies or not sets_only(node, "alpha"):
            continue
        turned = paired[node.input[1]].T
        same = next((name for name in looked_up if np.array_equal(paired[name], turned)), None)
        if same:
            how = {**settings(node), "transB": 1, "domain": MICROSOFT}
            made = helper.make_node("FusedMatMul", [node.input[0], same], list(node.output), node.name, **how)
            model.graph.node.remove(node)
            model.graph.node.insert(index, made)
    if not any(one.domain == MICROSOFT for one in model.opset_import):
        model.opset_import.append(helper.make_opsetid(MICROSOFT, 1))
    return model


def name_tables(model: ModelProto, tables: list[Any]) -> None:
    """End the names of stored tables that are computed, and no parameters, with `TABLE`."""
    from onnx import numpy_helper

    known = {np.ascontiguousarray(table).tobytes() for table in tables}
    new_names = {
        one.name: one.name + TABLE
        for one in model.graph.initializer
        if known and numpy_helper.to_array(one).tobytes() in known
    }
    rename(model, new_names)


def _tables(model: Any) -> list[Any]:
    """What a model computes once and keeps, as a table of sines by position: no checkpoint has it."""
    kept = model.state_dict()
    found = [buffer for name, buffer in model.named_buffers() if name not in kept and buffer.dim() > 1]
    return [buffer.numpy() for buffer in found]


def write_tokenizer(source: Path, target: Path) -> None:
    """`tokenizer.json` that neither pads nor truncates: the limit is decided once, in the manifest."""
    tokenizer = _tokenizer(source)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(target), pretty=False)


def _tokenizer(source: Path) -> Any:
    from tokenizers import Tokenizer

    path = source / "tokenizer.json"
    if not path.is_file() and not any(source.glob("vocab.*")) and not any(source.glob("*.model")):
        raise EdgemlError(
            f"there is no tokenizer in {source.name}", hint="put the model's tokenizer.json beside its weights"
        )
    try:
        if path.is_file():
            return Tokenizer.from_file(str(path))
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(source, trust_remote_code=False, local_files_only=True).backend_tokenizer
    except Exception as error:  # the library raises bare ones
        raise EdgemlError(
            f"cannot read the tokenizer in {source.name}: {error}", hint="download the model again"
        ) from error


def load_model(kind: Any, source: Path, *, unread: str | None = None) -> Any:
    """The model in 32 bits, of safetensors if it has any; only tensors that begin as `unread` may be missing."""
    import torch

    model, found = kind.from_pretrained(
        source,
        dtype=torch.float32,
        trust_remote_code=False,
        local_files_only=True,
        use_safetensors=any(source.glob("*.safetensors")),  # else a pickle of a name that it prefers would be opened
        output_loading_info=True,
    )
    missing = sorted(name for name in found["missing_keys"] if not unread or not name.startswith(unread))
    if missing:  # Transformers would fill them with random numbers
        raise EdgemlError(
            f"the weights lack {missing[0]} and {len(missing) - 1} other tensors", hint="download the model again"
        )
    return model.eval()


def exporter_settings(**settings: Any) -> Any:
    """How everything is exported: for free axes, with the fusions that ONNX Runtime has for a CPU."""
    from transformers.exporters import OnnxConfig

    return OnnxConfig(dynamic=True, ort_fusions=_FUSIONS, **settings)


def _token_axes(inputs: dict[str, Any]) -> dict[str, Any]:
    """Which axes of a decoding step vary: tokens, the second of ids and masks and the third of keys and values."""
    from torch import Tensor
    from torch.export import Dim

    axes: dict[str, Any] = {name: {1: Dim.AUTO} for name, value in inputs.items() if isinstance(value, Tensor)}
    layers = inputs["past_key_values"].layers
    return axes | {"past_key_values": [{2: Dim.AUTO} for _ in layers for _ in ("keys", "values")]}
