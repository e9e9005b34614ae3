"""Makers of tiny models that read one text and write another: a T5 by Transformers, and a variant without PyTorch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from edgeml_runtime.records import describe, write_record
from edgeml_runtime.types import Audit, File, VariantManifest
from tiny.families import letters_tokenizer
from tiny.graphs import graph_model
from tiny.variants import WIDTH, onnx_variant

START, END = 1, 2
BART_START, BART_FIRST = 2, 0  # the end token begins an answer too, and the begin token is forced to follow


def t5_folder(path: Path, *, own_head: bool = False, family: str = "T5", **more: Any) -> Path:
    """A T5 or MT5 with random weights, and a tokenizer of letters. `initializer_factor` 4 makes it write varied tokens.

    `own_head` gives it a head of its own, as T5 1.1 has; else that is its embedding.
    """
    import torch
    import transformers
    from safetensors.torch import load_file, save_file

    torch.manual_seed(0)
    words = letters_tokenizer(path, START)
    settings = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4}
    special = {"pad_token_id": START, "decoder_start_token_id": START, "eos_token_id": END}
    form = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"} if own_head else {}
    kind = getattr(transformers, f"{family}ForConditionalGeneration")
    kind(kind.config_class(vocab_size=words, **settings | special | form | more)).save_pretrained(path)
    if own_head:
        tensors = load_file(path / "model.safetensors")
        tensors["lm_head.weight"] = torch.randn_like(tensors["shared.weight"])
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})
    return path


def bart_folder(path: Path) -> Path:
    """A BART with random weights and biases of its words, and a tokenizer of letters; its settings want beams."""
    import torch
    import transformers

    torch.manual_seed(0)
    words = letters_tokenizer(path, START)
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes |= {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "max_position_embeddings": 64}
    special = {"pad_token_id": START, "bos_token_id": BART_FIRST, "eos_token_id": BART_START}
    special |= {"decoder_start_token_id": BART_START, "forced_eos_token_id": BART_START}
    model = transformers.BartForConditionalGeneration(
        transformers.BartConfig(vocab_size=words, init_std=0.1, **sizes | special)
    )
    model.final_logits_bias.copy_(torch.randn_like(model.final_logits_bias))
    for part in (model.model.encoder, model.model.decoder):
        part.embed_positions.weight.data.mul_(10)  # so that words differ from place to place
    model.generation_config.forced_bos_token_id = BART_FIRST
    model.generation_config.num_beams = 4
    model.save_pretrained(path)
    return path


def seq2seq_variant(folder: Path, **fields: Any) -> Path:
    """A variant whose next token follows from the last one, from all so far and from the text that was read."""
    from onnx import helper, save_model

    onnx_variant(folder)  # for its tokenizer
    for name in ("variant.json", "model.onnx"):
        (folder / name).unlink()
    chance = np.random.default_rng(1)
    words = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    table = chance.standard_normal((words, WIDTH)).astype(np.float32)
    mix = chance.standard_normal((WIDTH, words)).astype(np.float32)
    axis, parts = np.array([1]), ("keys", "values")
    own, cross = (f"past_key_values.{part}_attention_cache.layers.0." for part in ("self", "cross"))
    reads = [
        helper.make_node("Gather", ["table", "input_ids"], ["x"]),
        helper.make_node("Unsqueeze", ["x", "axis"], [f"{cross}values"]),
    ]
    encoder = graph_model(
        reads,
        {"input_ids": [1, "text"]},
        {f"{cross}values": [1, 1, "text", WIDTH]},
        {"table": table, "axis": axis},
    )
    writes = [
        helper.make_node("Gather", ["table", "decoder_input_ids"], ["x"]),
        helper.make_node("Unsqueeze", ["x", "axis"], ["new"]),
        *(helper.make_node("Concat", [f"input.{own}{part}", "new"], [f"output.{own}{part}"], axis=2) for part in parts),
        helper.make_node("ReduceMean", [f"output.{own}keys"], ["before"], axes=[1, 2], keepdims=0),
        helper.make_node("ReduceMean", [f"input.{cross}values"], ["read"], axes=[1, 2], keepdims=0),
        helper.make_node("Sum", ["x", "before", "read"], ["state"]),
        helper.make_node("MatMul", ["state", "mix"], ["logits"]),
    ]
    caches = {f"{own}{part}": [1, 1, "so far", WIDTH] for part in parts}
    decoder = graph_model(
        writes,
        {
            "decoder_input_ids": [1, "new"],
            **{f"input.{name}": shape for name, shape in caches.items()},
            f"input.{cross}values": [1, 1, "text", WIDTH],
        },
        {"logits": [1, "new", words], **{f"output.{name}": shape for name, shape in caches.items()}},
        {"table": table, "axis": axis, "mix": mix},
    )
    save_model(encoder, folder / "encoder.onnx")
    save_model(decoder, folder / "decoder.onnx")
    own_fields = {
        "name": "tiny/onnx-fp32",
        "model": "pypi:tiny-model==1.0",
        "scheme": "onnx:fp32",
        "task": "text2text-generation",
        "architecture": "TinyModel",
        "weights": "decoder.onnx",
        "graphs": {"encoder": "encoder.onnx", "decoder": "decoder.onnx"},
        "files": describe(folder),
        "source_files": (File(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
        "audit": Audit(parameters=1, bits_per_weight=32, tensor_types={"FLOAT": 1}, share_quantized=0, earned=True),
        "max_tokens": 64,
        "start_token": 0,
    }
    write_record(folder / "variant.json", VariantManifest(**own_fields | fields))
    return folder
