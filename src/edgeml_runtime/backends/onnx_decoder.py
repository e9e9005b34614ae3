"""Generation with an ONNX graph that carries its own key-value cache.

The graph takes `input_ids`, `attention_mask` and `position_ids` (batch, tokens), and for each layer the keys and
values so far, `input.past_key_values.layers.<n>.keys|values` (batch, heads, tokens so far, width); it gives `logits`
(batch, tokens, vocabulary) and the caches with the new tokens appended, under `output.` instead of `input.`. The same
graph evaluates a prompt, from caches of no tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml_runtime.backends.onnx import open_graph, open_tokenizer
from edgeml_runtime.backends.onnx_writer import OnnxWriter, Step, require_tokens
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.session import PROMPT_END, Said, Thinking, plain_prompt
from edgeml_runtime.types import Generate, VariantManifest

if TYPE_CHECKING:
    import onnxruntime as ort
    from tokenizers import Tokenizer

    from edgeml_runtime.backends.onnx_chat import Chat
    from edgeml_runtime.session import Floats

_IN, _OUT = "input.", "output."


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxDecoder:
    """Load the graph and the tokenizer."""
    graph = open_graph(folder / manifest.weights, threads=threads)
    tokenizer, chat = open_tokenizer(folder / "tokenizer.json"), None
    if manifest.chat_template == "kept":
        from edgeml_runtime.backends.onnx_chat import open_chat

        chat = open_chat(folder, tokenizer)
    return OnnxDecoder(manifest, graph, tokenizer, chat)


class OnnxDecoder(OnnxWriter):
    """A Decoder over such a graph, for one text at a time."""

    def __init__(
        self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer, chat: Chat | None
    ) -> None:
        super().__init__(manifest, tokenizer)
        self._chat = chat
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

    @property
    def omits_chat_template(self) -> bool:
        """Whether the model has a chat template that is left out, or may have one."""
        return self._chat is None and self.manifest.chat_template != "none"

    def prompt(self, instruction: str | None, text: str) -> list[int]:
        """Token ids of a turn in the model's chat template; without one, of instruction, empty line and text.

        A template that knows no system turn gets the instruction in the user's.
        """
        if self._chat is None:
            return plain_prompt(self, instruction, text)
        if instruction is None:
            return self._chat.said([Said("user", text)])
        try:
            return self._chat.said([Said("system", instruction), Said("user", text)])
        except UnfitError:
            return self._chat.said([Said("user", f"{instruction}\n\n{text}")])

    def said(self, turns: Sequence[Said]) -> list[int] | None:
        """Token ids of several turns in the model's chat template; None without one."""
        return None if self._chat is None else self._chat.said(turns)

    def thinking(self, tokens: Sequence[int]) -> Thinking:
        """The marks that the model's chat template names, and whether the prompt opens one."""
        if self._chat is None or not self._chat.marks:
            return Thinking()
        before = self._tokenizer.decode(tokens[-PROMPT_END:], skip_special_tokens=False).rstrip()
        return Thinking(self._chat.marks, any(before.endswith(opening) for opening, _ in self._chat.marks))

    def logits(self, tokens: Sequence[int]) -> Floats:
        """Teacher-forced logits from an empty context, `(len(tokens), vocabulary)`."""
        found: Floats = self._step(tokens, self._empty)[0][0]
        return found

    def close(self) -> None:
        """Drop the session."""
        del self._session

    @cached_property
    def _mute(self) -> frozenset[int]:
        return self._chat.mute if self._chat is not None and self._chat.speaks else super()._mute

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
        require_tokens(tokens)
        given, wanted, limit = len(tokens), options.max_new_tokens, self.manifest.max_tokens
        if given + wanted > limit:
            problem = f"{given} tokens and {wanted} new ones do not fit the {limit} of {self.manifest.name}"
            raise UnfitError(problem, hint="shorten the text, or ask for fewer new tokens")
