"""Makers of small ONNX graphs: a source with its small files, a layer of attention, and a decoder with its cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeml_runtime.records import describe, write_record
from edgeml_runtime.types import Audit, File, VariantManifest
from tiny.variants import onnx_variant

WIDTH, HEADS, TOKENS, WORDS = 8, 2, 10, 20
_MICROSOFT = "com.microsoft"


def onnx_source(folder: Path, **config: Any) -> Path:
    """A text encoder in `model.onnx` with configuration and tokenizer beside it; the path of the file."""
    onnx_variant(folder)
    (folder / "variant.json").unlink()
    plain = {"architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 32, **config}
    (folder / "config.json").write_text(json.dumps(plain))
    return folder / "model.onnx"


def graph_model(nodes: list[Any], inputs: dict[str, Any], outputs: dict[str, Any], stored: dict[str, Any]) -> Any:
    """A model of these nodes; inputs are 64-bit integers where no float shape is meant, outputs are floats."""
    from onnx import TensorProto, helper, numpy_helper

    def values(shapes: dict[str, Any]) -> list[Any]:
        integers = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "decoder_input_ids")
        kind = {name: TensorProto.INT64 if name in integers else TensorProto.FLOAT for name in shapes}
        return [helper.make_tensor_value_info(name, kind[name], shape) for name, shape in shapes.items()]

    tensors = [numpy_helper.from_array(array, name) for name, array in stored.items()]
    graph = helper.make_graph(nodes, "tiny", values(inputs), values(outputs), tensors)
    sets = [helper.make_opsetid("", 17), helper.make_opsetid(_MICROSOFT, 1)]
    return helper.make_model(graph, opset_imports=sets, ir_version=8)


def attention_model(*, bias: bool = True, added: Any = None, crossed: bool = False, skip_read: bool = False) -> Any:
    """One layer of self-attention and its norm, built as the exporter builds one.

    `added` (1, HEADS, TOKENS, TOKENS) is added to the scores, as a causal mask or relative positions are; `crossed`
    takes the keys from another table; `skip_read` reads the sum before the norm a second time.
    """
    from onnx import helper

    random = np.random.default_rng(0)
    stored: dict[str, Any] = {
        "table": random.standard_normal((WORDS, WIDTH)).astype(np.float32),
        "other": random.standard_normal((WORDS, WIDTH)).astype(np.float32),
        "heads": np.array([0, 0, HEADS, WIDTH // HEADS]),
        "joined": np.array([0, 0, WIDTH]),
        "scale": np.array((WIDTH // HEADS) ** -0.5, np.float32),
        "one": np.array(1, np.float32),
        "far": np.array(-1e9, np.float32),
        "axes": np.array([1, 2]),
        "gamma": np.ones(WIDTH, np.float32),
        "beta": random.standard_normal(WIDTH).astype(np.float32),
        "out.weight": random.standard_normal((WIDTH, WIDTH)).astype(np.float32),
        "out.bias": random.standard_normal(WIDTH).astype(np.float32),
    }
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Gather", ["other", "input_ids"], ["y"]),
        helper.make_node("Cast", ["attention_mask"], ["seen"], to=1),
        helper.make_node("Sub", ["one", "seen"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "far"], ["far_hidden"]),
        helper.make_node("Unsqueeze", ["far_hidden", "axes"], ["mask"]),
    ]
    for name, order in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3])):
        source = "y" if crossed and name == "k" else "x"
        stored[f"{name}.weight"] = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
        stored[f"{name}.bias"] = random.standard_normal(WIDTH).astype(np.float32)
        product = f"{name}_product" if bias else f"{name}_biased"
        nodes.append(helper.make_node("MatMul", [source, f"{name}.weight"], [product]))
        if bias:
            nodes.append(helper.make_node("Add", [product, f"{name}.bias"], [f"{name}_biased"]))
        nodes.append(helper.make_node("Reshape", [f"{name}_biased", "heads"], [f"{name}_heads"]))
        nodes.append(helper.make_node("Transpose", [f"{name}_heads"], [name], perm=order))
    nodes += [
        helper.make_node("MatMul", ["q", "k"], ["products"]),
        helper.make_node("Mul", ["products", "scale"], ["scaled"]),
        helper.make_node("Add", ["scaled", "mask"], ["scores" if added is None else "masked"]),
    ]
    if added is not None:
        stored["added"] = added.astype(np.float32)
        nodes.append(helper.make_node("Add", ["masked", "added"], ["scores"]))
    norm_outputs = ["normed", "", "", "sum"] if skip_read else ["last_hidden_state"]
    nodes += [
        helper.make_node("Softmax", ["scores"], ["shares"], axis=-1),
        helper.make_node("MatMul", ["shares", "v"], ["weighted"]),
        helper.make_node("Transpose", ["weighted"], ["turned"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["turned", "joined"], ["context"]),
        helper.make_node("MatMul", ["context", "out.weight"], ["projected"]),
        helper.make_node(
            "SkipLayerNormalization",
            ["projected", "x", "gamma", "beta", "out.bias"],
            norm_outputs,
            domain=_MICROSOFT,
            epsilon=1e-5,
        ),
    ]
    if skip_read:
        nodes.append(helper.make_node("Add", ["normed", "sum"], ["last_hidden_state"]))
    shape = ["batch", "tokens"]
    outputs = {"last_hidden_state": [*shape, WIDTH]}
    return graph_model(nodes, {"input_ids": shape, "attention_mask": shape}, outputs, stored)


def decoder_variant(folder: Path, **fields: Any) -> Path:
    """A decoder whose next token follows from the last one and from the number of tokens so far; in its own folder."""
    from onnx import helper, save_model

    onnx_variant(folder)  # for its tokenizer
    random = np.random.default_rng(1)
    words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    stored = {
        "table": random.standard_normal((words, WIDTH)).astype(np.float32),
        "mix": random.standard_normal((WIDTH, words)).astype(np.float32) / 5,
        "head": np.array([1]),
        "turn": random.standard_normal((1, 1, words)).astype(np.float32),
        "last": np.array([2]),
    }
    cache = "put.past_key_values.layers.0."
    nodes = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Unsqueeze", ["x", "head"], ["new"]),
        helper.make_node("Concat", [f"in{cache}keys", "new"], [f"out{cache}keys"], axis=2),
        helper.make_node("Concat", [f"in{cache}values", "new"], [f"out{cache}values"], axis=2),
        helper.make_node("Cast", ["position_ids"], ["position"], to=1),
        helper.make_node("Unsqueeze", ["position", "last"], ["place"]),
        helper.make_node("Mul", ["place", "turn"], ["angle"]),
        helper.make_node("Sin", ["angle"], ["turned"]),
        helper.make_node("MatMul", ["x", "mix"], ["products"]),
        helper.make_node("Add", ["products", "turned"], ["logits"]),
    ]
    tokens = {"input_ids": [1, "new"], "attention_mask": [1, "all"], "position_ids": [1, "new"]}
    caches = {f"{cache}{part}": [1, 1, "past", WIDTH] for part in ("keys", "values")}
    inputs = {**tokens, **{f"in{name}": shape for name, shape in caches.items()}}
    outputs = {"logits": [1, "new", words], **{f"out{name}": shape for name, shape in caches.items()}}
    save_model(graph_model(nodes, inputs, outputs, stored), folder / "model.onnx")
    (folder / "variant.json").unlink()
    own = {
        "name": "tiny/onnx-fp32",
        "model": "pypi:tiny-model==1.0",
        "scheme": "onnx:fp32",
        "task": "text-generation",
        "architecture": "TinyModel",
        "weights": "model.onnx",
        "files": describe(folder),
        "source_files": (File(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
        "audit": Audit(parameters=1, bits_per_weight=32, tensor_types={"FLOAT": 1}, share_quantized=0, earned=True),
        "max_tokens": 32,
    }
    write_record(folder / "variant.json", VariantManifest(**own | fields))
    return folder
