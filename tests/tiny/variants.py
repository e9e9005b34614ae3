"""Variants of a few KB, complete in their folders: nothing is converted and nothing is downloaded."""

from __future__ import annotations

import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np

from edgeml.store import load_variant
from edgeml.types import Variant
from edgeml_runtime.records import describe, write_record
from edgeml_runtime.types import Audit, File, VariantManifest

WIDTH = 8


def onnx_variant(
    folder: Path,
    *,
    name: str = "tiny/onnx-fp32",
    model: str = "pypi:tiny-model==1.0",
    max_tokens: int = 32,
    constant: bool = False,
    seed: int = 0,
) -> Variant:
    """A text encoder in ONNX: letters are looked up, mixed and averaged. With `constant` it ignores its input."""
    folder.mkdir(parents=True)
    vocabulary = _tokenizer(folder / "tokenizer.json")
    parameters = _graph(folder / "model.onnx", vocabulary, constant=constant, seed=seed)
    scheme = name.partition("/")[2].replace("-", ":", 1)
    manifest = VariantManifest(
        name=name,
        model=model,
        scheme=scheme,
        task="sentence-similarity",
        architecture="TinyModel",
        weights="model.onnx",
        files=describe(folder),
        source_files=(File(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
        audit=Audit(
            parameters=parameters,
            bits_per_weight=32.0,
            tensor_types={"FLOAT": parameters},
            share_quantized=0.0,
            earned=True,
        ),
        max_tokens=max_tokens,
        pooling="mean",
        normalize=True,
        inputs=("input_ids", "attention_mask", "token_type_ids"),
        outputs=("last_hidden_state",),
        licence="apache-2.0",
        tools={"onnx": "1.0"},
    )
    write_record(folder / "variant.json", manifest)
    return load_variant(folder)


def _tokenizer(path: Path) -> int:
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    letters = [*string.ascii_lowercase, *string.digits]
    words = [*special, *letters, *(f"##{letter}" for letter in letters), *string.punctuation]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordPiece(vocab=vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    path.write_text(tokenizer.to_str(), encoding="utf-8")
    return len(words)


def _graph(path: Path, vocabulary: int, *, constant: bool, seed: int) -> int:
    from onnx import TensorProto, helper, numpy_helper, save_model

    random = np.random.default_rng(seed)
    table = random.standard_normal((vocabulary, WIDTH)).astype(np.float32)
    if constant:
        table[:] = table[0]
    mix = random.standard_normal((WIDTH, WIDTH)).astype(np.float32)
    shape = ["batch", "sequence"]
    inputs = ["input_ids", "attention_mask", "token_type_ids"]
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "input_ids"], ["letters"]),
            helper.make_node("MatMul", ["letters", "mix"], ["mixed"]),
            helper.make_node("Tanh", ["mixed"], ["last_hidden_state"]),
        ],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, shape) for name in inputs],
        [helper.make_tensor_value_info("last_hidden_state", TensorProto.FLOAT, [*shape, WIDTH])],
        [numpy_helper.from_array(table, "table"), numpy_helper.from_array(mix, "mix")],
    )
    save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return table.size + mix.size


def gguf_variant(folder: Path, weights: Path, **fields: Any) -> Path:
    """A folder with a copy of that GGUF and a `variant.json`; `fields` take the place of the manifest's own."""
    folder.mkdir(parents=True)
    shutil.copyfile(weights, folder / weights.name)
    own = {
        "name": "tiny/gguf-f16",
        "model": "pypi:tiny-model==1.0",
        "scheme": "gguf:f16",
        "task": "text-generation",
        "architecture": "TinyModel",
        "weights": weights.name,
        "files": describe(folder),
        "source_files": (File(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
        "audit": Audit(parameters=1, bits_per_weight=16.0, tensor_types={"F16": 1}, share_quantized=0.0, earned=True),
        "max_tokens": 512,
    }
    write_record(folder / "variant.json", VariantManifest(**own | fields))
    return folder
