"""Makers of model folders as a hub holds them: a BERT encoder and a Llama decoder with random weights.

Both load in transformers and pass llama.cpp's converter. Widths that 256 divides can be K-quantized; 64 and 576 can't.
"""
# ruff: noqa: RUF001 - the converter's text has Cyrillic letters in it

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

_HEAD = 64

# The converter knows a word-piece vocabulary only by a fingerprint over the token ids of one fixed text. These are the
# ids that the vocabulary of `bert-base-uncased` has for that text and for single letters; the rest is filler.
_SPECIAL = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
_WORDS = {
    "!": 999, '"': 1000, "$": 1002, "&": 1004, "'": 1005, "(": 1006, ")": 1007, ",": 1010, "-": 1011, ".": 1012,
    "/": 1013, ":": 1024, "=": 1027, "?": 1029, "`": 1036, "б": 1181, "н": 1192, "天": 1811, "我": 1855, "～": 1995,
    "he": 2002, "it": 2009, "you": 2017, "not": 2025, "been": 2042, "there": 2045, "we": 2057, "like": 2066,
    "some": 2070, "re": 2128, "make": 2191, "ll": 2222, "ve": 2310, "told": 2409, "sure": 2469, "##is": 2483,
    "normal": 3671, "multiple": 3674, "33": 3943, "tea": 5572, "apple": 6207, "em": 7861, "con": 9530, "##а": 10260,
    "##и": 10325, "##о": 14150, "131": 14677, "##е": 15290, "##cate": 16280, "##р": 16856, "333": 21211,
    "##51": 22203, "##33": 22394, "##41": 23632, "##nated": 23854, "##к": 23925, "##oj": 29147, "##л": 29436,
    "##г": 29741, "##с": 29747, "##щ": 29754, "##ъ": 29755,
}  # fmt: skip
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_INNER_LETTERS = (
    2050, 2497, 2278, 2094, 2063, 2546, 2290, 2232, 2072, 3501, 2243, 2140, 2213,
    2078, 2080, 2361, 4160, 2099, 2015, 2102, 2226, 2615, 2860, 2595, 2100, 2480,
)  # fmt: skip
_INNER_DIGITS = (2692, 2487, 2475, 2509, 2549, 2629, 2575, 2581, 2620, 2683)
_BERT_VOCABULARY = 29760
_CORPUS = "the a of and to in is it for on at street road avenue north south house flat city post code"

_CHAT = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)


def bert_folder(
    path: Path,
    *,
    width: int = 256,
    layers: int = 2,
    pooling: str = "mean",
    normalize: bool = True,
    max_tokens: int = 256,
    fixed_length: int | None = 128,
    seed: int = 0,
) -> Path:
    """A BERT encoder with word pieces and the sentence-transformers files; 38 MB at width 256, 9 MB at 64.

    `max_tokens` is sentence-transformers' limit; `fixed_length` is the padding and truncation that `tokenizer.json`
    asks for, which real models carry by accident. The model itself has 512 positions.
    """
    path.mkdir(parents=True)
    _save(path, _bert_weights(width, layers, seed))
    _write_json(path / "config.json", _bert_config(width, layers))
    _write_word_pieces(path, fixed_length)
    _write_sentence_transformers(path, width, pooling, normalize=normalize, max_tokens=max_tokens)
    return path


def llama_folder(
    path: Path,
    *,
    width: int = 256,
    layers: int = 2,
    tied: bool = False,
    context: int = 512,
    chat_template: str | None = _CHAT,
    seed: int = 0,
) -> Path:
    """A Llama decoder of 1.9 M parameters at width 256, with a byte-fallback BPE tokenizer of 384 pieces."""
    path.mkdir(parents=True)
    pieces = _write_pieces(path, chat_template)
    _save(path, _llama_weights(width, layers, pieces, seed, tied=tied))
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
        "num_key_value_heads": width // _HEAD,
        "max_position_embeddings": context,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": pieces,
        "tie_word_embeddings": tied,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    }
    _write_json(path / "config.json", config)
    return path


def _bert_config(width: int, layers: int) -> dict[str, Any]:
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": width // _HEAD,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "vocab_size": _BERT_VOCABULARY,
        "pad_token_id": 0,
        "torch_dtype": "float32",
    }


def _bert_weights(width: int, layers: int, seed: int) -> dict[str, np.ndarray]:
    shapes = {
        "embeddings.word_embeddings.weight": (_BERT_VOCABULARY, width),
        "embeddings.position_embeddings.weight": (512, width),
        "embeddings.token_type_embeddings.weight": (2, width),
        "embeddings.LayerNorm": (width,),
        "pooler.dense": (width, width),
    }
    for layer in range(layers):
        start = f"encoder.layer.{layer}"
        for name in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes[f"{start}.{name}"] = (width, width)
        shapes[f"{start}.attention.output.LayerNorm"] = (width,)
        shapes[f"{start}.intermediate.dense"] = (4 * width, width)
        shapes[f"{start}.output.dense"] = (width, 4 * width)
        shapes[f"{start}.output.LayerNorm"] = (width,)
    random = np.random.default_rng(seed)
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes.items():
        if name.endswith(".weight"):
            weights[name] = _normal(random, shape, 0.4 if "word" in name else 0.06)
        else:
            weights[f"{name}.weight"] = np.ones(shape, np.float32) if len(shape) == 1 else _normal(random, shape)
            weights[f"{name}.bias"] = _normal(random, shape[:1])
    return weights


def _llama_weights(width: int, layers: int, pieces: int, seed: int, *, tied: bool) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    weights = {
        "model.embed_tokens.weight": _normal(random, (pieces, width), 0.5),
        "model.norm.weight": np.ones(width, np.float32),
    }
    if not tied:
        weights["lm_head.weight"] = _normal(random, (pieces, width), 0.1)
    for layer in range(layers):
        start = f"model.layers.{layer}"
        for name in "qkvo":
            weights[f"{start}.self_attn.{name}_proj.weight"] = _normal(random, (width, width))
        weights[f"{start}.mlp.gate_proj.weight"] = _normal(random, (3 * width, width))
        weights[f"{start}.mlp.up_proj.weight"] = _normal(random, (3 * width, width))
        weights[f"{start}.mlp.down_proj.weight"] = _normal(random, (width, 3 * width))
        weights[f"{start}.input_layernorm.weight"] = np.ones(width, np.float32)
        weights[f"{start}.post_attention_layernorm.weight"] = np.ones(width, np.float32)
    return weights


def _normal(random: np.random.Generator, shape: tuple[int, ...], spread: float = 0.06) -> np.ndarray:
    return random.standard_normal(shape, dtype=np.float32) * np.float32(spread)


def _save(path: Path, weights: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})


def _word_pieces() -> dict[str, int]:
    known = _SPECIAL | _WORDS
    known |= {letter: 1037 + index for index, letter in enumerate(_LETTERS)}
    known |= {str(digit): 1014 + digit for digit in range(10)}
    known |= {f"##{letter}": id for letter, id in zip(_LETTERS, _INNER_LETTERS, strict=True)}
    known |= {f"##{digit}": id for digit, id in enumerate(_INNER_DIGITS)}
    by_id = {id: piece for piece, id in known.items()}
    return {by_id.get(id, f"[unused{id}]"): id for id in range(_BERT_VOCABULARY)}


def _write_word_pieces(path: Path, fixed_length: int | None) -> None:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    vocabulary = _word_pieces()
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    ends = [("[CLS]", 101), ("[SEP]", 102)]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ends
    )
    tokenizer.add_special_tokens(list(_SPECIAL))
    if fixed_length:
        tokenizer.enable_padding(length=fixed_length)
        tokenizer.enable_truncation(fixed_length)
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    names = {f"{piece.strip('[]').lower()}_token": piece for piece in _SPECIAL}
    _write_json(path / "special_tokens_map.json", names)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512, **names}
    _write_json(path / "tokenizer_config.json", config)


def _write_sentence_transformers(path: Path, width: int, pooling: str, *, normalize: bool, max_tokens: int) -> None:
    kind = "sentence_transformers.models"
    steps = [("Transformer", ""), ("Pooling", "1_Pooling")] + [("Normalize", "2_Normalize")] * normalize
    modules = [
        {"idx": index, "name": str(index), "path": folder, "type": f"{kind}.{name}"}
        for index, (name, folder) in enumerate(steps)
    ]
    _write_json(path / "modules.json", modules)
    _write_json(path / "sentence_bert_config.json", {"max_seq_length": max_tokens, "do_lower_case": False})
    modes = {"cls": "cls_token", "mean": "mean_tokens", "max": "max_tokens", "last": "lasttoken"}
    flags = {f"pooling_mode_{mode}": name == pooling for name, mode in modes.items()}
    (path / "1_Pooling").mkdir()
    _write_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": width, **flags})


def _write_pieces(path: Path, chat_template: str | None) -> int:
    """Train a sentencepiece model for the converter and write the same merges as `tokenizer.json`."""
    import sentencepiece

    words = _CORPUS.split()
    lines = [" ".join(words[start:] + words[:start]) for start in range(len(words))] + [_LETTERS, _LETTERS.upper()]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3), model_writer=model, vocab_size=384, model_type="bpe", byte_fallback=True,
        character_coverage=1.0, normalization_rule_name="identity", remove_extra_whitespaces=False,
        hard_vocab_limit=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    (path / "tokenizer.model").write_bytes(model.getvalue())
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    _write_merges(path, [pieces.IdToPiece(id) for id in range(len(pieces))])
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, "add_eos_token": False, "legacy": False}
    template = {"chat_template": chat_template} if chat_template else {}
    _write_json(path / "tokenizer_config.json", {**config, **names, **template})
    _write_json(path / "special_tokens_map.json", names)
    return len(pieces)


def _write_merges(path: Path, pieces: list[str]) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    ids = {piece: id for id, piece in enumerate(pieces)}
    merges = [
        (piece[:cut], piece[cut:])
        for piece in pieces[259:]
        for cut in range(1, len(piece))
        if piece[:cut] in ids and piece[cut:] in ids
    ]
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    tokenizer.save(str(path / "tokenizer.json"))


def _write_json(path: Path, plain: Any) -> None:
    path.write_text(json.dumps(plain, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
