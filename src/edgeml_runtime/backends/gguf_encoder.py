"""Turns texts into vectors with llama.cpp. Knows nothing about files, tasks or generation."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence

import numpy as np

from edgeml_runtime.backends.gguf_model import Context, Floats, Ids, Model, room
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.types import VariantManifest

# Texts go together until so many: longer batches only add attention between strangers. As no text is shorter than one
# token, it is the most texts too, and may not exceed LLAMA_MAX_SEQ (llama-cparams.h), 256.
BATCH_TOKENS = 256
_POOLING = {None: -1, "mean": 1, "cls": 2, "last": 3}  # enum llama_pooling_type in llama.h; -1 as the file says
_SMALLEST_NORM = 1e-12  # torch.nn.functional.normalize's own, against division by zero


class GgufEncoder:
    """An embedding model. Texts are cut to `manifest.max_tokens` from the end, before a final special token.

    The context grows with the longest batch seen and never shrinks.
    """

    def __init__(self, model: Model, manifest: VariantManifest, *, threads: int) -> None:
        if manifest.max_tokens > model.trained_tokens:
            problem = f"{manifest.name} claims {manifest.max_tokens} tokens, its weights know {model.trained_tokens}"
            raise EdgemlError(problem, hint="make the variant again")
        self.manifest = manifest
        self._model = model
        self._threads = threads
        self._context: Context | None = None
        self._ends = {model.lib.llama_vocab_sep(model.vocabulary), model.lib.llama_vocab_eos(model.vocabulary)}

    def embed(self, texts: Sequence[str]) -> Floats:
        """One vector a text, `(len(texts), width)`, pooled and normalised as the manifest says."""
        rows = [self._row(text) for text in texts]
        vectors = np.empty((len(rows), self._model.width), np.float32)
        for start, stop in _packs([len(row) for row in rows]):
            self._run(rows[start:stop], vectors[start:stop])
        if self.manifest.normalize:
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), _SMALLEST_NORM)
        return vectors

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""
        return len(self._model.tokenize(text, add_special=True, parse_special=True))

    def close(self) -> None:
        """Give the model's memory back."""
        if self._context:
            self._context.close()
        self._model.close()

    def _row(self, text: str) -> Ids:
        row = self._model.tokenize(text, add_special=True, parse_special=True)
        limit = self.manifest.max_tokens
        if len(row) > limit:
            last = row[-1]
            row = row[:limit]
            if int(last) in self._ends:
                row[-1] = last
        if not len(row):
            raise EdgemlError(f"{self.manifest.name} has no token for an empty text", hint="leave empty texts out")
        return row

    def _run(self, rows: Sequence[Ids], vectors: Floats) -> None:
        need = max(sum(map(len, rows)), BATCH_TOKENS)
        context = self._context = room(self._context, need, self._open)
        context.forget()
        stop = 0
        for sequence, row in enumerate(rows):
            stop = context.batch.put(row, at=stop, sequence=sequence)
        context.run(stop)
        for sequence, vector in enumerate(vectors):
            found = self._model.lib.llama_get_embeddings_seq(context.pointer, sequence)
            ctypes.memmove(vector.ctypes.data, found, vector.nbytes)

    def _open(self, size: int) -> Context:
        context = Context(
            self._model,
            size,
            n_threads=self._threads,
            n_threads_batch=self._threads,
            n_batch=size,
            n_ubatch=size,  # attention that sees the whole text needs it in one piece
            n_seq_max=BATCH_TOKENS,
            kv_unified=True,
            embeddings=True,
            pooling_type=_POOLING[self.manifest.pooling],
        )
        context.batch.outputs[:] = 1
        return context


def _packs(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Ranges of neighbours that fit one batch; a text longer than a batch goes alone."""
    start = total = 0
    for index, length in enumerate(lengths):
        if index > start and total + length > BATCH_TOKENS:
            yield start, index
            start, total = index, 0
        total += length
    if lengths:
        yield start, len(lengths)
