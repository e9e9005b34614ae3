"""Makers of tiny models of the families that llama.cpp knows, by Transformers' own classes and with tokenizers that
llama.cpp's converter takes.

The converter knows tokenizers by fingerprints of the ids that they give one text, so that one made here would be none.
Families of sentence pieces are spared that, as is Qwen2, for which Transformers 5 has a tokenizer of its own; word
pieces are made to fit (`tiny.safetensors`), and byte-level merges are those of a real model, from its GGUF file.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from tiny.safetensors import _CORPUS, _write_json, _write_pieces, _write_sentence_transformers, _write_word_pieces

_WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3, "num_attention_heads": 4}
_DECODER = {**_WIDE, "num_key_value_heads": 2, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_GEMMA = {**_DECODER, "head_dim": 32, "pad_token_id": 0}
_NEOX = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 3, "num_attention_heads": 4}
_GRANITE = {
    "embedding_multiplier": 2.0,
    "residual_multiplier": 0.5,
    "logits_scaling": 2.0,
    "attention_multiplier": 0.25,
}
_OFFSET = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 258}

# Each family's class with its settings, and the kind of tokenizer.
DECODERS: dict[str, tuple[dict[str, Any], str]] = {
    "LlamaForCausalLM": ({**_DECODER, "tie_word_embeddings": False}, "pieces"),
    "MistralForCausalLM": ({**_DECODER, "sliding_window": None}, "pieces"),
    "Qwen2ForCausalLM": ({**_DECODER, "tie_word_embeddings": True}, "pieces"),
    "Qwen3ForCausalLM": ({**_DECODER, "tie_word_embeddings": True, "head_dim": 32}, "merges"),
    "GemmaForCausalLM": (_GEMMA, "pieces"),
    "Gemma2ForCausalLM": ({**_GEMMA, "query_pre_attn_scalar": 32, "sliding_window": 64}, "pieces"),
    "Gemma3ForCausalLM": ({**_GEMMA, "query_pre_attn_scalar": 32, "sliding_window": 64}, "pieces"),
    "Phi3ForCausalLM": (
        {**_DECODER, "pad_token_id": 0, "original_max_position_embeddings": 256, "sliding_window": None},
        "pieces",
    ),
    "SmolLM3ForCausalLM": ({**_DECODER, "tie_word_embeddings": True, "pad_token_id": 0}, "merges"),
    "BloomForCausalLM": ({"hidden_size": 64, "n_layer": 3, "n_head": 4, "seq_length": 256, **_ENDS}, "merges"),
    "Ernie4_5ForCausalLM": ({**_DECODER, "pad_token_id": 0}, "pieces"),
    "GraniteForCausalLM": ({**_DECODER, **_GRANITE, "pad_token_id": 0}, "merges"),
    "Olmo2ForCausalLM": ({**_DECODER, "pad_token_id": 0}, "merges"),
    "PhiForCausalLM": ({**_NEOX, **_ENDS, "max_position_embeddings": 256, "partial_rotary_factor": 0.5}, "merges"),
    "StableLmForCausalLM": ({**_DECODER, "partial_rotary_factor": 0.5, "tie_word_embeddings": False}, "merges"),
    "Starcoder2ForCausalLM": ({**_DECODER, "sliding_window": None}, "merges"),
    "GPT2LMHeadModel": ({"n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 256, **_ENDS}, "merges"),
    "GPTNeoXForCausalLM": ({**_NEOX, **_ENDS, "max_position_embeddings": 256, "tie_word_embeddings": False}, "merges"),
}
ENCODERS: dict[str, tuple[dict[str, Any], str]] = {
    "BertModel": ({**_WIDE, "max_position_embeddings": 256, "pad_token_id": 0}, "words"),
    "DistilBertModel": ({"dim": 64, "hidden_dim": 128, "n_layers": 3, "n_heads": 4, "pad_token_id": 0}, "words"),
    "RobertaModel": ({**_WIDE, **_OFFSET, "pad_token_id": 0, "bos_token_id": 1, "type_vocab_size": 1}, "merges"),
    "NomicBertModel": ({**_WIDE, "head_dim": 16, "pad_token_id": 0, "type_vocab_size": 2}, "words"),
    "XLMRobertaModel": ({**_WIDE, **_OFFSET, "type_vocab_size": 1}, "unigrams"),
}
# Transformers knows this family by other names of its settings than the hub's files and the converter do.
_NOMIC_HUB = {
    "architectures": ["NomicBertModel"],
    "model_type": "nomic_bert",
    "n_embd": 64,
    "n_head": 4,
    "n_layer": 3,
    "n_inner": 128,
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "activation_function": "swiglu",
    "causal": False,
    "qkv_proj_bias": False,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "prenorm": False,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_emb_scale_base": None,
    "rotary_emb_base": 1000,
    "layer_norm_epsilon": 1e-12,
    "type_vocab_size": 2,
    "pad_token_id": 0,
}
_SPREAD = 0.15  # wide enough that a mistake shows in the answers, small enough that no soft-max is a maximum


def decoder_folder(path: Path, architecture: str, merges: Path | None = None) -> Path:
    """A decoder of that class with random weights; `merges` is the GGUF file whose tokenizer some families take."""
    path.mkdir(parents=True)
    settings, kind = DECODERS[architecture]
    _save(path, architecture, settings, write_tokenizer(path, kind, merges))
    return path


def encoder_folder(path: Path, architecture: str, merges: Path | None = None) -> Path:
    """An encoder of that class with random weights, and how to make one vector of a text: the mean, normalised."""
    path.mkdir(parents=True)
    settings, kind = ENCODERS[architecture]
    _save(path, architecture, settings, write_tokenizer(path, kind, merges))
    _write_sentence_transformers(path, 64, "mean", normalize=True, max_tokens=250)
    if architecture == "NomicBertModel":
        _write_json(path / "config.json", _NOMIC_HUB | {"vocab_size": 29760})
    return path


def write_tokenizer(path: Path, kind: str, merges: Path | None) -> int:
    """Write a tokenizer and give back the number of its tokens."""
    if kind == "words":
        _write_word_pieces(path, None)
        return 29760
    if kind == "pieces":
        return _write_pieces(path, None)
    if kind == "unigrams":
        return _write_unigrams(path)
    assert merges is not None
    return _write_merges_of(path, merges)


def _save(path: Path, architecture: str, settings: dict[str, Any], vocabulary: int) -> None:
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    config = kind.config_class(**{**settings, "vocab_size": vocabulary, "initializer_range": _SPREAD})
    model = kind(config)
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:  # norms and biases, which would all be ones and zeros
            parameter.data += torch.randn_like(parameter) * 0.05 * ("embeddings" not in name)
    model.float().save_pretrained(path)
    config.save_pretrained(path / "native")


def _write_unigrams(path: Path) -> int:
    """A sentencepiece model of XLM-RoBERTa's kind, whose ids Transformers moves by one behind four of its own."""
    import sentencepiece
    from transformers import XLMRobertaTokenizer

    words = _CORPUS.split()
    lines = [" ".join(words[start:] + words[:start]) for start in range(len(words))] + ["abcdefghijklmnopqrstuvwxyz"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 3), model_writer=model, vocab_size=90, model_type="unigram",
        character_coverage=1.0, hard_vocab_limit=False, num_threads=1, minloglevel=2,
    )  # fmt: skip
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    own = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    vocabulary = [*own, *((pieces.IdToPiece(id), pieces.GetScore(id)) for id in range(3, len(pieces))), ("<mask>", 0.0)]
    (path / "sentencepiece.bpe.model").write_bytes(model.getvalue())
    XLMRobertaTokenizer(vocab=vocabulary).save_pretrained(path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    _write_json(path / "tokenizer_config.json", {**config, "model_max_length": 250})
    return len(vocabulary)


def _write_merges_of(path: Path, source: Path) -> int:
    """The byte-level tokenizer that a GGUF file of SmolLM's holds, as Transformers keeps it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    from edgeml.formats.gguf.header import read_header

    names = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.token_type")
    tokens, merges, kinds = (read_header(source, arrays=names).metadata[name] for name in names)
    ids = {token: id for id, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(ids, [tuple(merge.split(" ", 1)) for merge in merges]))
    levels = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(levels)
    tokenizer.decoder = decoders.ByteLevel()
    special = [token for token, kind in zip(tokens, kinds, strict=True) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in special])
    tokenizer.save(str(path / "tokenizer.json"))
    named = {"bos_token": tokens[1], "eos_token": tokens[2], "unk_token": tokens[0]}
    limit = {"model_max_length": 250, "tokenizer_class": "PreTrainedTokenizerFast"}
    _write_json(path / "tokenizer_config.json", {**limit, **named})
    return len(tokens)
