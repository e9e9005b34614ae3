"""Writes a turn as a model was taught to read it. Knows nothing about generating or about what is said.

llama.cpp recognises the usual chat templates and writes them itself: no template of a model is run as a program.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Sequence
from functools import cached_property, partial

import numpy as np

from edgeml_runtime.backends.control_words import any_of, broken, free_mark
from edgeml_runtime.backends.gguf_model import Model
from edgeml_runtime.errors import UnfitError
from edgeml_runtime.reasoning import WORDS
from edgeml_runtime.session import Said

_UNKNOWN, _CONTROL = 1 << 0, 1 << 3  # llama_token_attr in llama.h: what only parse_special makes of a word


class Chat:
    """A model's chat template, as far as llama.cpp knows it."""

    def __init__(self, model: Model) -> None:
        self._model = model

    @cached_property
    def template(self) -> str:
        """The template that the file carries, empty where it has none."""
        found = self._model.lib.llama_model_chat_template(self._model.pointer, None)
        return found.decode("utf-8", "replace") if found else ""

    def tokens(self, instruction: str | None, text: str) -> list[int] | None:
        """Token ids of a turn, as `said`, of one instruction and one text."""
        spoken = (("system", instruction), ("user", text))
        return self.said([Said(role, words) for role, words in spoken if words is not None])

    def said(self, turns: Sequence[Said]) -> list[int] | None:
        """Token ids of turns and the beginning of an answer, or None where llama.cpp does not know the template.

        Control words in what was said, such as `<|im_end|>`, stay words: only the template's own become
        control tokens, so that no text can end its turn and speak in another role. Marks of reasoning are none in an
        answer that is sent back. A SentencePiece vocabulary puts a space after the first character of such a word.

        Raises UnfitError for texts that make a control word together, where a template writes nothing between them.
        """
        mark = free_mark(turns)
        tokens = self._read([Said(turn.role, self._broken(turn, mark)) for turn in turns], mark)
        harmless = self._read([Said(turn.role, "a" if turn.words.strip() else turn.words) for turn in turns], mark)
        if tokens is None or harmless is None:
            return None
        if self._control_tokens(tokens) != self._control_tokens(harmless):
            raise UnfitError("the texts make a control word of the model together", hint="leave it out")
        return tokens

    def _read(self, turns: Sequence[Said], mark: str) -> list[int] | None:
        written = self._written(turns)
        pieces = None if written is None else written.split(mark)
        tokenize = partial(self._model.tokenize, parse_special=True)
        return None if pieces is None else [token for piece in pieces for token in tokenize(piece).tolist()]

    def _control_tokens(self, tokens: Sequence[int]) -> Counter[int]:
        """How often each control token stands there, but for marks of reasoning."""
        lib, vocabulary = self._model.lib, self._model.vocabulary
        kinds = {token: lib.llama_vocab_get_attr(vocabulary, token) for token in set(tokens)}
        return Counter(token for token in tokens if kinds[token] & _CONTROL and self._word(token) not in WORDS)

    def _broken(self, turn: Said, mark: str) -> str:
        """The turn's text with a mark inside every control word."""
        if np.array_equal(self._model.tokenize(turn.words, parse_special=True), self._model.tokenize(turn.words)):
            return turn.words  # the usual case, in which the vocabulary need not be searched
        words = self._control_words - WORDS if turn.role == "assistant" else self._control_words
        return broken(turn.words, any_of(sorted(words, key=len, reverse=True)), mark)

    @cached_property
    def _control_words(self) -> frozenset[str]:
        lib, vocabulary = self._model.lib, self._model.vocabulary
        kinds = ((token, lib.llama_vocab_get_attr(vocabulary, token)) for token in range(self._model.tokens))
        control = [token for token, kind in kinds if kind & (_CONTROL | _UNKNOWN)]
        return frozenset(map(self._word, control))

    def _word(self, token: int) -> str:
        word: bytes = self._model.lib.llama_vocab_get_text(self._model.vocabulary, token)
        return word.decode("utf-8", "replace")

    def _written(self, said: Sequence[Said]) -> str | None:
        lib, template = self._model.lib, self.template.encode()
        if not template:
            return None
        turns = [lib.llama_chat_message(turn.role.encode(), _c_text(turn.words)) for turn in said]
        messages = (lib.llama_chat_message * len(turns))(*turns)
        write = partial(lib.llama_chat_apply_template, template, messages, len(turns), 1)  # 1: now the assistant
        size = write(None, 0)
        if size < 0:
            return None
        turn = ctypes.create_string_buffer(size + 1)
        write(turn, len(turn))
        return turn.value.decode("utf-8", "replace")


def _c_text(text: str) -> bytes:
    """UTF-8 for C, in which a NUL would end the text before its end."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace")
