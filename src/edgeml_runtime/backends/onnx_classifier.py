"""Labels of texts, or of their words, by an ONNX graph whose first output are logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Encoding, Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from edgeml_runtime.backends.onnx import TextGraph, open_graph, open_tokenizer
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import Tagged, kind_of
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxClassifier | OnnxTagger:
    """Load the graph and the tokenizer: a tagger where every word gets a label, else a classifier."""
    graph = open_graph(folder / manifest.weights, threads=threads)
    kind = OnnxTagger if kind_of(manifest.task) == "tagger" else OnnxClassifier
    return kind(manifest, graph, open_tokenizer(folder / "tokenizer.json"))


class _Reader(TextGraph):
    """What both share: texts in, logits out."""

    def _logits(self, encodings: Sequence[Encoding]) -> Any:
        logits, _ = self._run([one.ids for one in encodings])
        if logits.shape[-1] != len(self.manifest.labels):
            problem = f"{self.manifest.name} gives {logits.shape[-1]} logits for {len(self.manifest.labels)} labels"
            raise EdgemlError(problem, hint="make the variant again")
        return logits


class OnnxClassifier(_Reader):
    """A Classifier over a graph with logits (batch, labels) as its first output."""

    def classify(self, texts: Sequence[str]) -> Floats:
        """Raw logits, `(len(texts), labels)`; raises EdgemlError for a text without a single token."""
        found: Floats = self._logits([self._tokenizer.encode(text) for text in texts]).astype(np.float32)
        return found

    def count_tokens(self, text: str) -> int:
        """Tokens of a text before truncation, special tokens included."""
        return len(self._counter.encode(text).ids)


class OnnxTagger(_Reader):
    """A Tagger over a graph with logits (batch, tokens, labels) as its first output."""

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer) -> None:
        super().__init__(manifest, session, _spaced(tokenizer))

    def tag(self, texts: Sequence[Sequence[str]]) -> list[Tagged]:
        """The logits of each text's words: those of a word's first token.

        Left out are words beyond the limit, and those of which the tokenizer leaves nothing.
        """
        encodings = [self._tokenizer.encode(list(words), is_pretokenized=True) for words in texts]
        logits = self._logits(encodings)
        return [_of_words(row, one.word_ids) for row, one in zip(logits, encodings, strict=True)]

    def count_tokens(self, words: Sequence[str]) -> int:
        """Tokens of a text's words before truncation, special tokens included."""
        return len(self._counter.encode(list(words), is_pretokenized=True).ids)


def _spaced(tokenizer: Tokenizer) -> Tokenizer:
    """A tokenizer that reads each word as after a space, as Transformers demands of one with bytes (RoBERTa's)."""
    if isinstance(tokenizer.pre_tokenizer, ByteLevel):
        tokenizer.pre_tokenizer.add_prefix_space = True
    return tokenizer


def _of_words(logits: Any, word_ids: Sequence[int | None]) -> Tagged:
    first: dict[int, int] = {}
    for place, word in enumerate(word_ids):
        if word is not None:
            first.setdefault(word, place)
    return Tagged(words=tuple(first), logits=logits[list(first.values())].astype(np.float32))
