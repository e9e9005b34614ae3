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
    """A session on the CPU provider, silent but for errors."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except library_errors() as error:
        raise EdgemlError(f"cannot load {path.name}: {_first_line(error)}", hint="make the variant again") from error


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither pads nor truncates: both are the session's business."""
    if not path.is_file():
        raise EdgemlError(f"{path} is missing", hint="make the variant again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare ones
        raise EdgemlError(f"cannot read {path.name}: {_first_line(error)}", hint="make the variant again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def library_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph or an input that it does not take; they have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


class OnnxEncoder:
    """An Encoder over a graph with `last_hidden_state` (batch, tokens, width) as its first output."""

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer) -> None:
        self.manifest = manifest
        self._session = session
        self._counter = tokenizer
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.enable_truncation(manifest.max_tokens)
        self._inputs = [item.name for item in session.get_inputs()]
        self._output = [session.get_outputs()[0].name]

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text, `(len(texts), width)`; raises EdgemlError for a text without a single token."""
        ids, mask = self._rows(texts)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        hidden = self._session.run(self._output, {name: feeds[name] for name in self._inputs})[0]
        return pool(hidden, mask, self.manifest)

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""
        return len(self._counter.encode(text).ids)

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its arena with it."""
        del self._session

    def _rows(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """Token ids and mask `(len(texts), longest)`, padded on the right to the longest row and never further.

        The padding's id does not matter: no model here lets a token see what the mask hides, and positions are counted
        from the left.
        """
        rows = [self._tokenizer.encode(text).ids for text in texts]
        if not all(rows):
            raise EdgemlError("a text has no tokens", hint="leave empty texts out")
        if len(rows) == 1:
            ids = np.array(rows, dtype=np.int64)
            return ids, np.ones_like(ids)
        shape = (len(rows), max(map(len, rows)))
        ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return ids, mask


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


def _first_line(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return reason.rpartition(" failed:")[2][:200]  # before it, ONNX Runtime repeats the path
