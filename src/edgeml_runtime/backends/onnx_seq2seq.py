"""Text to text with two ONNX graphs: one reads the text once, one writes the answer token by token.

`encoder` takes `input_ids` (1, tokens) and gives for each layer of the decoder the keys and values of its
cross-attention, `past_key_values.cross_attention_cache.layers.<n>.keys|values` (1, heads, tokens, width). `decoder`
takes those under `input.`, its own keys and values so far, `input.past_key_values.self_attention_cache...`, and
`decoder_input_ids` (1, new tokens); it gives `logits` (1, new tokens, vocabulary) and its keys and values with the new
tokens appended, under `output.`. There is no mask: one text at a time needs no padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from edgeml_runtime.backends.onnx import open_graph, open_tokenizer
from edgeml_runtime.backends.onnx_writer import OnnxWriter, Step, require_tokens
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.types import Generate, VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats

GRAPHS = ("encoder", "decoder")
# Families that learned a vector for each place of an answer, as many as of a text. T5 knows distances alone.
_COUNTED = ("Bart",)
_IN, _OUT, _OWN = "input.", "output.", "self_attention_cache"


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxSeq2Seq:
    """Load both graphs and the tokenizer."""
    missing = [name for name in GRAPHS if name not in manifest.graphs]
    if missing or manifest.start_token is None:
        lacks = f"graph {missing[0]}" if missing else "start token"
        raise EdgemlError(f"{manifest.name} names no {lacks}", hint="make the variant again")
    graphs = {name: open_graph(folder / manifest.graphs[name], threads=threads) for name in GRAPHS}
    return OnnxSeq2Seq(manifest, graphs, open_tokenizer(folder / "tokenizer.json"))


class OnnxSeq2Seq(OnnxWriter):
    """A Decoder that reads its prompt with one graph, in the first step, and writes with the other."""

    omits_chat_template = False  # models of this kind have none
    start_token = None  # the tokenizer says itself what belongs around a text

    def __init__(
        self, manifest: VariantManifest, graphs: dict[str, ort.InferenceSession], tokenizer: Tokenizer
    ) -> None:
        super().__init__(manifest, tokenizer)
        self._reader, self._writer = (graphs[name] for name in GRAPHS)
        self._empty = {
            item.name: np.zeros((1, int(item.shape[1]), 0, int(item.shape[3])), dtype=np.float32)
            for item in self._writer.get_inputs()
            if _OWN in item.name
        }
        self._read = [item.name for item in self._reader.get_outputs()]
        self._written = ["logits", *(_OUT + name.removeprefix(_IN) for name in self._empty)]

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of the instruction, a space and the text, with the special tokens that the model reads them in."""
        ids: list[int] = self._tokenizer.encode(" ".join(part for part in (instruction, text) if part)).ids
        return ids

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Logits after each token of a text that is read and then written out again, `(len(tokens), vocabulary)`."""
        found: Floats = self._step(tokens, self._empty, self._read_once(tokens))[0][0]
        return found

    def close(self) -> None:
        """Drop both sessions."""
        del self._reader, self._writer

    def _begin(self, tokens: Sequence[int], options: Generate) -> tuple[Step, Sequence[int]]:
        self._require(tokens, options)
        own, read = self._empty, dict[str, Any]()

        def step(new: Sequence[int]) -> Any:
            nonlocal own, read
            read = read or self._read_once(tokens)
            logits, own = self._step(new, own, read)
            return logits[0, -1]

        begun = (self.manifest.start_token, self.manifest.first_token)
        return step, [token for token in begun if token is not None]

    def _read_once(self, tokens: Sequence[int]) -> dict[str, Any]:
        found = self._reader.run(self._read, {"input_ids": np.array([tokens], dtype=np.int64)})
        return {_IN + name: value for name, value in zip(self._read, found, strict=True)}

    def _step(self, tokens: Sequence[int], own: dict[str, Any], read: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        feeds = {"decoder_input_ids": np.array([tokens], dtype=np.int64), **own, **read}
        logits, *new = self._writer.run(self._written, feeds)
        return logits, dict(zip(own, new, strict=True))

    def _require(self, tokens: Sequence[int], options: Generate) -> None:
        if options.schema is not None:
            raise EdgemlError("an ONNX model cannot be held to a schema", hint="use a gguf variant of a decoder")
        require_tokens(tokens)
        if len(tokens) > self.manifest.max_tokens:
            raise UnfitError(
                f"the text has {len(tokens)} tokens with its instruction, and at most {self.manifest.max_tokens} are "
                "read",
                hint="shorten the text, or split it",
            )
        begun = 1 if self.manifest.first_token is None else 2
        room = self.manifest.max_tokens - begun
        if self.manifest.architecture.startswith(_COUNTED) and options.max_new_tokens > room:
            problem = f"an answer of {options.max_new_tokens} tokens was asked for, and the model writes at most {room}"
            raise UnfitError(problem, hint=f"--max-new-tokens {room}")
