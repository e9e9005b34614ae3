"""Vectors of texts by an ONNX graph: tokenizer, graph, pooling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.backends.onnx import TextGraph, open_graph, open_tokenizer
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxEncoder:
    """Load the graph and the tokenizer."""
    graph = open_graph(folder / manifest.weights, threads=threads)
    return OnnxEncoder(manifest, graph, open_tokenizer(folder / "tokenizer.json"))


class OnnxEncoder(TextGraph):
    """An Encoder over a graph with `last_hidden_state` (batch, tokens, width) as its first output."""

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text, `(len(texts), width)`; raises EdgemlError for a text without a single token."""
        hidden, mask = self._run([self._tokenizer.encode(text).ids for text in texts])
        return pool(hidden, mask, self.manifest)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""
        return len(self._counter.encode(text).ids)


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
