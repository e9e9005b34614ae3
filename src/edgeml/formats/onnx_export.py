"""From a Transformers folder to an ONNX graph in fp32, by Transformers' own exporter. Runs no code of the model's."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

_FUSIONS = "cpu"  # fused operators that ONNX Runtime has CPU kernels for


def export_encoder(source: Path, scratch: Path) -> Path:
    """The graph of an encoder: `last_hidden_state` (batch, tokens, width) first, batch and tokens free."""
    from transformers import AutoModel
    from transformers.exporters import OnnxExporter

    model = _load(AutoModel, source)
    accepted = inspect.signature(model.forward).parameters
    sample = {name: value for name, value in _sample(model).items() if name in accepted}
    OnnxExporter().export(model, sample, _config()).save_pretrained(str(scratch))
    return scratch / "model.onnx"


def export_decoder(source: Path, scratch: Path) -> Path:
    """The decoding graph of a language model with its cache; it serves the prompt as well, from an empty cache.

    Beside it lies a prefill graph with a second copy of the weights, which nothing here needs.
    """
    from transformers import AutoModelForCausalLM
    from transformers.exporters import OnnxExporter

    model = _load(AutoModelForCausalLM, source)
    sample = _sample(model)
    del sample["token_type_ids"]
    made = OnnxExporter().export_for_generation(model, sample, _config(), multi_token_decode=True)
    made.save_pretrained(str(scratch))
    return scratch / "decode.onnx"


def write_tokenizer(source: Path, target: Path) -> None:
    """`tokenizer.json` that neither pads nor truncates: the limit is decided once, in the manifest."""
    from tokenizers import Tokenizer

    path = source / "tokenizer.json"
    if path.is_file():
        tokenizer = Tokenizer.from_file(str(path))
    else:
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False).backend_tokenizer
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tokenizer.save(str(target), pretty=False)


def _load(kind: Any, source: Path) -> Any:
    import torch

    return kind.from_pretrained(source, dtype=torch.float32, trust_remote_code=False, local_files_only=True).eval()


def _config() -> Any:
    from transformers.exporters import OnnxConfig

    return OnnxConfig(dynamic=True, ort_fusions=_FUSIONS)


def _sample(model: Any) -> dict[str, Any]:
    """Two rows of unequal length: a mask of ones alone would be exported as no mask at all."""
    import torch

    ids = torch.arange(10, 22).reshape(2, 6) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
