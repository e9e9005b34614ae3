"""Makers of the smallest files that pass for weights: right in their headers, meaningless inside."""

from __future__ import annotations

import json
import struct


def safetensors_bytes(count: int = 16, name: str = "weight", fill: int = 0) -> bytes:
    """One tensor of `count` bytes."""
    header = json.dumps({name: {"dtype": "U8", "shape": [count], "data_offsets": [0, count]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes([fill]) * count


def gguf_bytes(version: int = 3) -> bytes:
    """A GGUF without tensors or metadata."""
    return b"GGUF" + struct.pack("<IQQ", version, 0, 0)


def onnx_bytes() -> bytes:
    """The first field of an ONNX model: its IR version, 10."""
    return b"\x08\x0a"


def model_files(**more: bytes) -> dict[str, bytes]:
    """The files of a small encoder as a repository holds them, with some that no conversion needs."""
    card = b"---\nlicense: apache-2.0\npipeline_tag: sentence-similarity\n---\n# A model\n"
    return {
        "README.md": card,
        "config.json": b'{"model_type": "bert"}',
        "tokenizer.json": b"{}",
        "modules.json": b'[{"type": "sentence_transformers.models.Transformer"}]',
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "model.safetensors": safetensors_bytes(),
        "pytorch_model.bin": b"pickle",
        "onnx/model.onnx": onnx_bytes(),
        "training_args.bin": b"pickle",
        "logo.png": b"png",
        **more,
    }
