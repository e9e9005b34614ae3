"""Turns as token ids, by the chat template that an ONNX variant carries beside its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml_runtime import reasoning
from edgeml_runtime.backends.control_words import any_of, broken, free_mark
from edgeml_runtime.chat_template import ChatTemplate, Writer
from edgeml_runtime.errors import UnfitError
from edgeml_runtime.records import read_record
from edgeml_runtime.session import Said

if TYPE_CHECKING:
    from tokenizers import Tokenizer

FILE = "chat.json"


class Chat:
    """A model's chat template with its tokenizer, which reads control words as words but for the template's own.

    Where the model `speaks` by special tokens, those that open and close its reasoning, all but `mute` ones are text.
    """

    def __init__(self, source: ChatTemplate, tokenizer: Tokenizer) -> None:
        self.marks = reasoning.named_in(source.template)
        self._writer = Writer(source)
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        special = {token for token, word in added.items() if word.special}
        thinking = {word for mark in reasoning.MARKS for word in mark}  # ends no turn, and templates look for it
        self.mute = frozenset(token for token in special if added[token].content not in thinking)
        self.speaks = bool(self.marks) and special > self.mute
        control = {added[token].content for token in special}
        control |= {word.content for word in added.values() if word.content.strip() and word.content in source.template}
        self._control_words = any_of(sorted(control - thinking, key=len, reverse=True))

    def said(self, turns: Sequence[Said]) -> list[int]:
        """Token ids of turns and the beginning of an answer.

        No text can end its turn and speak in another role: a control word in it, such as `<|im_end|>`, stays a word.
        Raises UnfitError for turns that the template refuses.
        """
        mark = free_mark(turns)
        spoken = [Said(turn.role, self._broken(turn.words, mark)) for turn in turns]
        return [token for piece in self._writer.write(spoken).split(mark) for token in self._tokens(piece)]

    def _broken(self, text: str, mark: str) -> str:
        text = broken(text, self._control_words, mark)
        for piece in text.split(mark):
            if self._tokens(piece) != self._tokenizer.encode(piece, add_special_tokens=False).ids:
                problem = "the text holds a control word of the model in another spelling"  # normalised, it is one
                raise UnfitError(problem, hint="leave it out")
        return text

    def _tokens(self, text: str) -> list[int]:
        """Token ids of a text whose control words are meant."""
        self._tokenizer.encode_special_tokens = False
        try:
            ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        finally:
            self._tokenizer.encode_special_tokens = True
        return ids


def open_chat(folder: Path, tokenizer: Tokenizer) -> Chat:
    """The chat of the variant in `folder`; raises EdgemlError where its template cannot be used."""
    return Chat(read_record(folder / FILE, ChatTemplate), tokenizer)
