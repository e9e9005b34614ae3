"""Makers of small GGUF files with random weights, written by the converter's own library: complete, loadable, quick."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

_HEAD = 64
_TYPE_NORMAL, _TYPE_UNKNOWN, _TYPE_CONTROL, _TYPE_BYTE = 1, 2, 3, 6


def llama_gguf(
    path: Path,
    *,
    width: int = 256,
    layers: int = 2,
    type: str = "F16",
    tied: bool = False,
    context: int = 512,
    template: str | None = None,
    adds_start: bool = True,
    experts: int = 0,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
    control: tuple[str, ...] = (),
) -> Path:
    """A Llama of `width` with a byte vocabulary of 288 tokens; `type` is the ggml type of its matrices.

    The last ones are the words of `control`.

    With `experts`, each token goes to two of them. `metadata` holds integers that take the place of the file's own, or
    stand beside them.
    """
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁"]
    tokens += [f"<fill{index}>" for index in range(288 - len(tokens) - len(control))]
    kinds = [_TYPE_UNKNOWN, _TYPE_CONTROL, _TYPE_CONTROL] + [_TYPE_BYTE] * 256 + [_TYPE_NORMAL] * (29 - len(control))
    tokens, kinds = [*tokens, *control], kinds + [_TYPE_CONTROL] * len(control)
    own = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": 3 * width,
        "attention.head_count": width // _HEAD,
        "attention.head_count_kv": width // _HEAD,
        "rope.dimension_count": _HEAD,
    } | ({"expert_count": experts, "expert_used_count": 2} if experts else {})
    ids = {f"tokenizer.ggml.{name}_token_id": id for name, id in (("unknown", 0), ("bos", 1), ("eos", 2))}
    integers = {f"llama.{key}": value for key, value in own.items()} | ids | (metadata or {})
    writer = _writer(path, "llama", integers, {"llama.attention.layer_norm_rms_epsilon": 1e-5})
    _add_tokens(writer, "llama", tokens, kinds)
    if template is not None:
        writer.add_chat_template(template)
    writer.add_add_bos_token(adds_start)
    random = np.random.default_rng(seed)
    for name, shape in _llama_matrices(width, layers, len(tokens), tied=tied, experts=experts).items():
        kind = "F32" if name.endswith("gate_inp") else type
        _add_matrix(writer, f"{name}.weight", random.standard_normal(shape, dtype=np.float32) * 0.06, kind)
    for name in ("output_norm", *(f"blk.{layer}.{part}_norm" for layer in range(layers) for part in ("attn", "ffn"))):
        writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    return _close(writer, path)


def bert_gguf(
    path: Path,
    *,
    width: int = 256,
    layers: int = 2,
    type: str = "F16",
    pooling: int | None = 1,
    context: int = 512,
    metadata: dict[str, Any] | None = None,
    seed: int = 0,
) -> Path:
    """A BERT of `width` with 64 word pieces; `pooling` is llama.cpp's number (1 mean, 2 cls, 3 last, None absent)."""
    random = np.random.default_rng(seed)
    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"▁{letter}" for letter in letters), *letters]
    tokens += [f"▁fill{index}" for index in range(64 - len(tokens))]
    kinds = [_TYPE_CONTROL] * 5 + [_TYPE_NORMAL] * (len(tokens) - 5)
    own = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": width,
        "feed_forward_length": 4 * width,
        "attention.head_count": width // _HEAD,
    } | ({"pooling_type": pooling} if pooling is not None else {})
    names = {"padding": 0, "unknown": 1, "bos": 2, "seperator": 3, "eos": 3, "mask": 4}
    ids = {f"tokenizer.ggml.{name}_token_id": id for name, id in names.items()} | {"tokenizer.ggml.token_type_count": 2}
    integers = {f"bert.{key}": value for key, value in own.items()} | ids | (metadata or {})
    writer = _writer(path, "bert", integers, {"bert.attention.layer_norm_epsilon": 1e-12})
    writer.add_bool("bert.attention.causal", val=False)
    _add_tokens(writer, "bert", tokens, kinds)
    _add_matrix(writer, "token_embd.weight", random.standard_normal((len(tokens), width), dtype=np.float32) * 0.4, type)
    for name, rows in (("position_embd", context), ("token_types", 2)):
        writer.add_tensor(f"{name}.weight", random.standard_normal((rows, width), dtype=np.float32) * 0.06)
    _add_norm(writer, "token_embd_norm", width)
    for layer in range(layers):
        _add_bert_block(writer, f"blk.{layer}", width, type, random)
    return _close(writer, path)


def split_gguf(path: Path, folder: Path, *, parts: int) -> Path:
    """A GGUF file in several, as `llama-gguf-split` leaves it; the first is given back."""
    import gguf

    folder.mkdir()
    reader = gguf.GGUFReader(path)
    tensors = reader.tensors
    each = -(-len(tensors) // parts)
    for place in range(parts):
        name = folder / f"{path.stem}-{place + 1:05}-of-{parts:05}.gguf"
        writer = gguf.GGUFWriter(name, "llama")
        if place:
            writer.kv_data[0].clear()
        else:
            _copy_metadata(reader, writer)
        for key, value in (("no", place), ("count", parts)):
            writer.add_uint16(f"split.{key}", value)
        writer.add_int32("split.tensors.count", len(tensors))
        for tensor in tensors[place * each : (place + 1) * each]:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        _close(writer, name)
    return folder / f"{path.stem}-00001-of-{parts:05}.gguf"


def _copy_metadata(reader: Any, writer: Any) -> None:
    for key, field in reader.fields.items():
        if not key.startswith(("GGUF.", "general.architecture")):
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], sub_type=inner)


def _llama_matrices(width: int, layers: int, tokens: int, *, tied: bool, experts: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"token_embd": (tokens, width)} | ({} if tied else {"output": (tokens, width)})
    ending, many = ("_exps", (experts,)) if experts else ("", ())
    for layer in range(layers):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
        shapes |= {f"{block}.ffn_{part}{ending}": (*many, 3 * width, width) for part in ("gate", "up")}
        shapes |= {f"{block}.ffn_down{ending}": (*many, width, 3 * width)}
        shapes |= {f"{block}.ffn_gate_inp": (experts, width)} if experts else {}
    return shapes


def _add_bert_block(writer: Any, block: str, width: int, type: str, random: np.random.Generator) -> None:
    shapes = {f"attn_{name}": (width, width) for name in ("q", "k", "v", "output")}
    shapes |= {"ffn_up": (4 * width, width), "ffn_down": (width, 4 * width)}
    for name, shape in shapes.items():
        matrix = random.standard_normal(shape, dtype=np.float32) * 0.06
        _add_matrix(writer, f"{block}.{name}.weight", matrix, type)
        writer.add_tensor(f"{block}.{name}.bias", np.zeros(shape[0], np.float32))
    _add_norm(writer, f"{block}.attn_output_norm", width)
    _add_norm(writer, f"{block}.layer_output_norm", width)


def _add_norm(writer: Any, name: str, width: int) -> None:
    writer.add_tensor(f"{name}.weight", np.ones(width, np.float32))
    writer.add_tensor(f"{name}.bias", np.zeros(width, np.float32))


def _writer(path: Path, architecture: str, integers: dict[str, int], floats: dict[str, float]) -> Any:
    import gguf

    writer = gguf.GGUFWriter(path, architecture)
    for key, value in integers.items():
        writer.add_uint32(key, value)
    for key, value in floats.items():
        writer.add_float32(key, value)
    return writer


def _add_tokens(writer: Any, model: str, tokens: list[str], kinds: list[int]) -> None:
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    writer.add_token_types(kinds)


def _add_matrix(writer: Any, name: str, matrix: np.ndarray, type: str) -> None:
    import gguf

    wanted = gguf.GGMLQuantizationType[type]
    writer.add_tensor(name, gguf.quants.quantize(matrix, wanted), raw_dtype=wanted)


def _close(writer: Any, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
