"""Writing text with ONNX graphs: what a model that only continues and one that also reads have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from time import perf_counter
from typing import TYPE_CHECKING

from edgeml_runtime import stops
from edgeml_runtime.backends.onnx_text import GrowingText
from edgeml_runtime.errors import UnfitError
from edgeml_runtime.next_token import NextToken
from edgeml_runtime.session import Generation, Said, Thinking, Written
from edgeml_runtime.types import Generate, VariantManifest

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeml_runtime.session import Floats

Step = Callable[[Sequence[int]], "Floats"]  # new tokens in, logits of the successor of the last one out


class OnnxWriter(ABC):
    """Writes for one text at a time, and turns tokens into text."""

    def __init__(self, manifest: VariantManifest, tokenizer: Tokenizer) -> None:
        self.manifest = manifest
        self._tokenizer = tokenizer
        tokenizer.encode_special_tokens = True  # control words in a text stay words

    @abstractmethod
    def _begin(self, tokens: Sequence[int], options: Generate) -> tuple[Step, Sequence[int]]:
        """How a prompt's answer goes on step by step, and the tokens of the first step.

        Raises EdgemlError for what cannot be written.
        """

    def tokenize(self, text: str) -> list[int]:
        """Token ids of plain text, without special tokens."""
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def generate(self, tokens: Sequence[int], options: Generate) -> Generation:
        """Write as the options say until an end token, before a stop word, or `max_new_tokens`."""
        begin = perf_counter()
        made: list[int] = []
        times: list[float] = []
        ends: list[int] = []
        words, hidden = stops.words(options), stops.hidden_after(lambda: self.thinking(tokens))
        text, growing, ends_at = "", GrowingText(self._text, self._mute), None
        for token in self._tokens(tokens, options):
            made.append(token)
            times.append(perf_counter() - begin)
            text += growing.add(token)
            ends.append(len(text))
            if words and (ends_at := stops.place_of(text, words, hidden(text))) is not None:
                break
        text += growing.rest()
        if ends_at is None:
            ends_at = stops.place_of(text, words, hidden(text))
        whole = Generation(
            text=text,
            tokens=tuple(made),
            prompt_tokens=len(tokens),
            finish_reason="stop" if len(made) < options.max_new_tokens else "length",
            token_times_s=tuple(times),
            text_ends=tuple(ends),
            hidden=hidden(text),
        )
        return stops.cut(whole, ends_at)

    def write(self, tokens: Sequence[int], options: Generate) -> Iterator[Written]:
        """The text of `generate`, step by step; nothing is kept for another prompt.

        Characters that are not complete yet wait for their other tokens, and what may become a stop word until it is
        known not to.
        """
        hidden = stops.hidden_after(lambda: self.thinking(tokens))
        return stops.until(self._steps(tokens, options), stops.words(options), hidden)

    def said(self, turns: Sequence[Said]) -> list[int] | None:  # noqa: ARG002 - one signature for all
        """None where there is no chat template."""
        return None

    def thinking(self, tokens: Sequence[int]) -> Thinking:  # noqa: ARG002 - one signature for all
        """Only the mark that counts in every model."""
        return Thinking()

    def _steps(self, tokens: Sequence[int], options: Generate) -> Iterator[Written]:
        growing = GrowingText(self._text, self._mute)
        yield Written("")
        for token in self._tokens(tokens, options):
            yield Written(growing.add(token), token)
        yield Written(growing.rest())

    def _tokens(self, tokens: Sequence[int], options: Generate) -> Iterator[int]:
        """New tokens, until an end token, which is left out, or `max_new_tokens`."""
        step, new = self._begin(tokens, options)
        choice = NextToken(options)
        for _ in range(options.max_new_tokens):
            token = choice.choose(step(new))
            if token in self.manifest.end_tokens and not options.past_end:
                return
            yield token
            new = [token]

    @cached_property
    def _mute(self) -> frozenset[int]:
        """Special tokens, which are no text."""
        return frozenset(token for token, word in self._tokenizer.get_added_tokens_decoder().items() if word.special)

    def _text(self, tokens: Sequence[int]) -> str:
        spoken = [token for token in tokens if token not in self._mute]
        text: str = self._tokenizer.decode(spoken, skip_special_tokens=False)
        return text


def require_tokens(tokens: Sequence[int]) -> None:
    """Refuse an empty prompt."""
    if not tokens:
        raise UnfitError("there is no token to continue from", hint="give a text")
