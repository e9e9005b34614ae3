"""Running ONNX variants: tokenizers for text, ONNX Runtime for the graph, numpy for pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import is_encoder
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Decoder, Encoder, Floats


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> Encoder | Decoder:
    """Load the graph and the tokenizer of an ONNX variant."""
    session = open_graph(folder / manifest.weights, threads=threads)
    tokenizer = open_tokenizer(folder / "tokenizer.json")
    if is_encoder(manifest):
        return OnnxEncoder(manifest, session, tokenizer)
    from edgeml_runtime.backends.onnx_decoder import OnnxDecoder

    return OnnxDecoder(manifest, session, tokenizer)


def open_graph(path: Path, *, threads: int) -> ort.InferenceSession:
    """A session on the CPU provider; no telemetry, no spinning once a run is over."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except _load_errors() as error:
        raise EdgemlError(f"cannot load {path.name}: {_first_line(error)}", hint="make the variant again") from error


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither pads nor truncates: both are the session's business."""
    if not path.is_file():
        raise EdgemlError(f"{path} is missing", hint="make the variant again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise EdgemlError(f"cannot read {path.name}: {_first_line(error)}", hint="make the variant again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class OnnxEncoder:
    """An Encoder over a graph with `last_hidden_state` (batch, tokens, width) as its first output."""

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer) -> None:
        self.manifest = manifest
        self._session = session
        self._counter = tokenizer
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.enable_truncation(manifest.max_tokens)
        self._inputs = {item.name for item in session.get_inputs()}
        self._output = [session.get_outputs()[0].name]

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text, `(len(texts), width)`."""
        feeds = self._feeds(texts)
        hidden = self._session.run(self._output, feeds)[0]
        return pool(hidden, feeds["attention_mask"], self.manifest)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""
        return len(self._counter.encode(text).ids)

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its arena with it."""
        del self._session

    def _feeds(self, texts: Sequence[str]) -> dict[str, Any]:
        if len(texts) == 1:
            encoding = self._tokenizer.encode(texts[0])
            ids = np.array([encoding.ids], dtype=np.int64)  # (1, tokens)
            feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
            return {name: feeds[name] for name in feeds if name in self._inputs or name == "attention_mask"}
        encodings = [self._tokenizer.encode(text) for text in texts]
        shape = (len(texts), max(len(encoding.ids) for encoding in encodings))  # padded to the longest, never further
        ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for row, encoding in enumerate(encodings):
            ids[row, : len(encoding.ids)] = encoding.ids
            mask[row, : len(encoding.ids)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return {name: feeds[name] for name in feeds if name in self._inputs or name == "attention_mask"}


def pool(hidden: Any, mask: Any, manifest: VariantManifest) -> Floats:
    """Pool `(batch, tokens, width)` to `(batch, width)` over the unmasked tokens, and normalise if the model does."""
    if manifest.pooling == "cls":
        vectors = hidden[:, 0]
    elif manifest.pooling == "last":
        vectors = hidden[np.arange(len(hidden)), mask.sum(1) - 1]
    elif len(hidden) == 1:
        vectors = hidden.mean(1)
    else:
        weights = mask[:, :, None].astype(np.float32)
        vectors = (hidden * weights).sum(1) / weights.sum(1)
    if manifest.normalize:
        vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-12)
    result: Floats = np.ascontiguousarray(vectors, dtype=np.float32)
    return result


def _load_errors() -> tuple[type[Exception], ...]:
    # ONNX Runtime's exceptions have no common base but Exception; these are what loading a bad file raises.
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:200]
