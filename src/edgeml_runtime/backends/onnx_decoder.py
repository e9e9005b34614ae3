"""Generation with an ONNX graph that carries its own key-value cache.

The graph takes `input_ids`, `attention_mask` and `position_ids` (batch, tokens), and for each layer the keys and
values so far, `input.past_key_values.layers.<n>.keys|values` (batch, heads, tokens so far, width); it gives `logits`
(batch, tokens, vocabulary) and the caches with the new tokens appended, under `output.` instead of `input.`. The same
graph evaluates a prompt, from caches of no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.backends.onnx import open_graph, open_tokenizer
from edgeml_runtime.backends.onnx_writer import OnnxWriter, Step
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.session import plain_prompt
from edgeml_runtime.types import Generate, VariantManifest

if TYPE_CHECKING:
    import onnxruntime as ort
    from tokenizers import Tokenizer

    from edgeml_runtime.session import Floats

_IN, _OUT = "input.", "output."


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxDecoder:
    """Load the graph and the tokenizer."""
    graph = open_graph(folder / manifest.weights, threads=threads)
    return OnnxDecoder(manifest, graph, open_tokenizer(folder / "tokenizer.json"))


class OnnxDecoder(OnnxWriter):
    """A Decoder over such a graph, for one text at a time. Prompts are plain: the export carries no chat template."""

    omits_chat_template = True

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer) -> None:
        super().__init__(manifest, tokenizer)
        self._session = session
        self._empty = {
            item.name: np.zeros((1, int(item.shape[1]), 0, int(item.shape[3])), dtype=np.float32)
            for item in session.get_inputs()
            if item.name.startswith(_IN)
        }
        self._inputs = {item.name for item in session.get_inputs()}
        self._outputs = ["logits", *(_OUT + name.removeprefix(_IN) for name in self._empty)]

    @property
    def start_token(self) -> int | None:
        """The special token that the tokenizer puts before a text, if it puts one."""
        found = self._tokenizer.encode("a")
        return int(found.ids[0]) if found.special_tokens_mask[:1] == [1] else None

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of the instruction, an empty line and the text; a chat template is not applied."""
        return plain_prompt(self, instruction, text)

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits from an empty context, `(len(tokens), vocabulary)`."""
        found: Floats = self._step(tokens, self._empty)[0][0]
        return found

    def close(self) -> None:
        """Drop the session."""
        del self._session

    def _begin(self, tokens: Sequence[int], options: Generate) -> tuple[Step, Sequence[int]]:
        self._require(tokens, options)
        caches = self._empty

        def step(new: Sequence[int]) -> Any:
            nonlocal caches
            logits, caches = self._step(new, caches)
            return logits[0, -1]

        return step, tokens

    def _step(self, tokens: Sequence[int], caches: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        past = next(iter(caches.values())).shape[2]
        total = past + len(tokens)
        feeds = {
            "input_ids": np.array([tokens], dtype=np.int64),
            "attention_mask": np.ones((1, total), dtype=np.int64),
            "position_ids": np.arange(past, total, dtype=np.int64)[None],
        }
        feeds = {name: feed for name, feed in feeds.items() if name in self._inputs}
        logits, *new = self._session.run(self._outputs, feeds | caches)
        return logits, dict(zip(caches, new, strict=True))

    def _require(self, tokens: Sequence[int], options: Generate) -> None:
        if options.schema is not None:
            raise EdgemlError("an ONNX model cannot be held to a schema", hint="use a gguf variant of the model")
        room = self.manifest.max_tokens - options.max_new_tokens
        if not tokens or len(tokens) > room:
            raise UnfitError(
                f"the prompt has {len(tokens)} tokens, and {room} fit before {options.max_new_tokens} new ones",
                hint="shorten the text, or lower --max-new-tokens",
            )
