"""Makers of tiny models by Transformers' own classes, each in a folder as a hub holds it.

The weights are random and large enough that a mistake in the graph shows. Widths, heads and vocabularies are small.
"""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

_LETTERS = [*string.ascii_letters, *string.digits, *string.punctuation]
_BERT_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_ROBERTA_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
_WINDOW = 8  # tokens that the Mistral model looks back

_WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
_DISTIL = {"dim": 64, "hidden_dim": 128, "n_layers": 2, "n_heads": 4}
_OFFSET = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2, "max_position_embeddings": 66}
_GROUPED = {**_WIDE, "num_key_value_heads": 2, "max_position_embeddings": 64, "bos_token_id": 1, "eos_token_id": 2}
_PLAIN = {"pad_token_id": 0, "max_position_embeddings": 64}
# As DeBERTa v3 has them: places are told apart by how far they are from each other, in buckets, and by nothing else.
_RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16, "share_att_key": True}
_RELATIVE |= {"norm_rel_ebd": "layer_norm", "position_biased_input": False, "type_vocab_size": 0}
_ALTERNATING = {"num_hidden_layers": 3, "global_attn_every_n_layers": 2, "local_attention": _WINDOW}
_ALTERNATING |= {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
SETTINGS: dict[str, dict[str, Any]] = {
    "AlbertModel": {**_WIDE, **_PLAIN, "embedding_size": 32},
    "BertModel": {**_WIDE, **_PLAIN},
    "CamembertModel": {**_WIDE, **_OFFSET},
    "DebertaV2Model": {**_WIDE, **_PLAIN, **_RELATIVE},
    "ElectraModel": {**_WIDE, **_PLAIN, "embedding_size": 32},
    "ModernBertModel": {**_WIDE, **_PLAIN, **_ALTERNATING},
    "DistilBertModel": {**_DISTIL, **_PLAIN},
    "MPNetModel": {**_WIDE, **_OFFSET},
    "RobertaModel": {**_WIDE, **_OFFSET},
    "RobertaForMaskedLM": {**_WIDE, **_OFFSET},
    "XLMRobertaModel": {**_WIDE, **_OFFSET},
    "LlamaForCausalLM": {**_GROUPED, "tie_word_embeddings": False},
    "MistralForCausalLM": {**_GROUPED, "sliding_window": _WINDOW},
    "Qwen2ForCausalLM": {**_GROUPED, "tie_word_embeddings": True},
    "Qwen3ForCausalLM": {**_GROUPED, "tie_word_embeddings": True, "head_dim": 32},
}
_ENDS = {"bos_token_id": 1, "eos_token_id": 2}
_UNTIED = {"tie_word_embeddings": False}  # a head of its own, where random ones would repeat a word
_GPT = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 64, **_ENDS}
_SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
_GEMMA = {"num_hidden_layers": 3, "layer_types": _SLIDING, "sliding_window": _WINDOW, "head_dim": 16}
DECODERS: dict[str, dict[str, Any]] = {
    **{name: one for name, one in SETTINGS.items() if name.endswith("CausalLM")},
    "BloomForCausalLM": {"hidden_size": 64, "n_layer": 2, "n_head": 4, "seq_length": 64, **_ENDS, **_UNTIED},
    "Ernie4_5ForCausalLM": {**_GROUPED, "pad_token_id": 0},
    "GemmaForCausalLM": {**_GROUPED, "head_dim": 16},
    "Gemma2ForCausalLM": {**_GROUPED, **_GEMMA, "query_pre_attn_scalar": 16},
    "Gemma3ForCausalLM": {**_GROUPED, **_GEMMA, "query_pre_attn_scalar": 16},
    "GPTNeoForCausalLM": {
        "hidden_size": 64,
        "num_layers": 2,
        "num_heads": 4,
        "attention_types": [[["global", "local"], 1]],
        "window_size": _WINDOW,
        "max_position_embeddings": 64,
        **_ENDS,
    },
    "GraniteForCausalLM": {
        **_GROUPED,
        "pad_token_id": 0,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 2.0,
        "attention_multiplier": 0.25,
    },
    "Olmo2ForCausalLM": {**_GROUPED, "pad_token_id": 0},
    "OPTForCausalLM": {
        "hidden_size": 64,
        "word_embed_proj_dim": 64,
        "ffn_dim": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        **_ENDS,
    },
    "PhiForCausalLM": {**_WIDE, **_ENDS, "max_position_embeddings": 64, "partial_rotary_factor": 0.5},
    "StableLmForCausalLM": {**_GROUPED, "partial_rotary_factor": 0.5, "tie_word_embeddings": False},
    "Starcoder2ForCausalLM": {**_GROUPED, "sliding_window": None},
    "Phi3ForCausalLM": {**_GROUPED, "pad_token_id": 1, "partial_rotary_factor": 0.5},
    "SmolLM3ForCausalLM": {**_GROUPED, "num_hidden_layers": 4, "no_rope_layer_interval": 2, "pad_token_id": 1},
    "GPT2LMHeadModel": _GPT,
    "GPTJForCausalLM": {**_GPT, "rotary_dim": 8, "tie_word_embeddings": False},
    "GPTNeoXForCausalLM": {**_WIDE, "max_position_embeddings": 64, "rotary_pct": 0.25, "tie_word_embeddings": False},
}
_READERS = tuple(name.removesuffix("Model") for name in SETTINGS if name.endswith("Model"))
_LABELS = {"id2label": dict(enumerate(("fuel", "rent", "travel"))), "label2id": {"fuel": 0, "rent": 1, "travel": 2}}
_TAGS = {"id2label": dict(enumerate(("O", "B-LOC", "I-LOC"))), "label2id": {"O": 0, "B-LOC": 1, "I-LOC": 2}}
CLASSIFIERS = {f"{name}ForSequenceClassification": {**SETTINGS[f"{name}Model"], **_LABELS} for name in _READERS}
TAGGERS = {f"{name}ForTokenClassification": {**SETTINGS[f"{name}Model"], **_TAGS} for name in _READERS}
_ALL = {**SETTINGS, **DECODERS, **CLASSIFIERS, **TAGGERS}


def family_folder(path: Path, architecture: str, **more: Any) -> Path:
    """A model of that class with random weights, and its tokenizer; `more` takes the place of its settings."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    vocabulary = letters_tokenizer(path, _ALL[architecture].get("pad_token_id"))
    settings = {**_ALL[architecture], **more, "vocab_size": vocabulary, "initializer_range": 0.2}
    model = kind(kind.config_class(**settings))
    if architecture.startswith("Gemma"):  # which multiplies them by the root of the width: it would repeat a word
        model.get_input_embeddings().weight.data.mul_(0.05)
        model.model.norm.weight.data.fill_(19)  # and one more: logits as large as before
    model.save_pretrained(path)
    return path


def letters_tokenizer(path: Path, padding: int | None) -> int:
    """A tokenizer of letters, with special tokens as encoders (padding 0 or 1) and decoders (none) have them."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    path.mkdir(parents=True)
    special = _BERT_SPECIAL if padding == 0 else _ROBERTA_SPECIAL
    begin, end, unknown = ("[CLS]", "[SEP]", "[UNK]") if padding == 0 else ("<s>", "</s>", "<unk>")
    words = [*special, *_LETTERS, *(f"##{letter}" for letter in _LETTERS)]
    tokenizer = Tokenizer(models.WordPiece({word: id for id, word in enumerate(words)}, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    if padding is not None:
        ends = [(begin, words.index(begin)), (end, words.index(end))]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{begin} $A {end}", special_tokens=ends)
        tokenizer.enable_padding(length=40)  # which real models ask for by accident
    tokenizer.save(str(path / "tokenizer.json"))
    limit = {"model_max_length": 60, "tokenizer_class": "PreTrainedTokenizerFast"}
    (path / "tokenizer_config.json").write_text(json.dumps(limit))
    return len(words)
