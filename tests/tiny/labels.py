"""Classifiers of a few KB in ONNX: letters are looked up and mixed, then every text, or every token, gets logits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from msgspec.structs import replace

from edgeml.store import load_variant
from edgeml.types import Variant
from edgeml_runtime.records import describe, write_record
from tiny.variants import WIDTH, onnx_variant

LABELS = ("fuel", "rent", "travel")
TAGS = ("O", "B-LOC", "I-LOC")


def classifier_variant(
    folder: Path,
    *,
    task: str = "text-classification",
    labels: tuple[str, ...] | None = None,
    logits: int = 3,
    **more: Any,
) -> Variant:
    """A variant whose graph gives that many `logits` for a text or, for `token-classification`, for each token.

    Nothing is padded differently by it: tokens that the mask hides do not count. `more` are those of `onnx_variant`.
    """
    made = onnx_variant(folder, **more)
    by_token = task == "token-classification"
    _add_head(folder / "model.onnx", logits, by_token=by_token)
    manifest = replace(
        made.manifest,
        task=task,
        architecture=f"BertFor{'Token' if by_token else 'Sequence'}Classification",
        files=tuple(file for file in describe(folder) if file.path != "variant.json"),
        pooling=None,
        normalize=False,
        outputs=("logits",),
        labels=labels or (TAGS if by_token else LABELS),
    )
    write_record(folder / "variant.json", manifest)
    return load_variant(folder)


def classifier_source(folder: Path, *, task: str = "text-classification", logits: int = 3, **config: Any) -> Path:
    """The same as a foreign `model.onnx`, with configuration and tokenizer beside it; its folder."""
    made = classifier_variant(folder, task=task, logits=logits).manifest
    (folder / "variant.json").unlink()
    own = {
        "architectures": [made.architecture],
        "model_type": "bert",
        "max_position_embeddings": 32,
        "id2label": dict(enumerate(made.labels)),
    }
    (folder / "config.json").write_text(json.dumps({**own, **config}))
    return folder


def _add_head(path: Path, logits: int, *, by_token: bool) -> None:
    from onnx import TensorProto, helper, load, numpy_helper, save_model

    model = load(path)
    graph = model.graph
    head = np.random.default_rng(7).standard_normal((WIDTH, logits)).astype(np.float32)
    graph.initializer.extend([numpy_helper.from_array(head, "head"), numpy_helper.from_array(np.array([1]), "second")])
    if by_token:
        nodes = [helper.make_node("MatMul", ["last_hidden_state", "head"], ["logits"])]
    else:
        nodes = [
            helper.make_node("Cast", ["attention_mask"], ["seen"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["seen", "minus"], ["column"]),
            helper.make_node("Mul", ["last_hidden_state", "column"], ["shown"]),
            helper.make_node("ReduceSum", ["shown", "second"], ["sum"], keepdims=0),
            helper.make_node("MatMul", ["sum", "head"], ["logits"]),
        ]
        graph.initializer.append(numpy_helper.from_array(np.array([-1]), "minus"))
    graph.node.extend(nodes)
    del graph.output[:]
    shape = ["batch", "sequence", logits] if by_token else ["batch", logits]
    graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape))
    save_model(model, path)
