"""Turns as token ids, by the chat template that an ONNX variant carries beside its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml_runtime import reasoning
from edgeml_runtime.authors import ASSISTANT, TEMPLATE, Traced, author_of
from edgeml_runtime.chat_template import ChatTemplate, Writer
from edgeml_runtime.records import read_record
from edgeml_runtime.session import Said

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

FILE = "chat.json"
Span = tuple[int, int]


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
        marks = {token for token, word in added.items() if word.content in reasoning.WORDS}
        self.mute = frozenset(special - marks)
        self.speaks = bool(self.marks) and special > self.mute
        own = (source.template, source.bos_token or "", source.eos_token or "")
        named = {
            token for token, word in added.items() if len(word.content) > 1 and any(word.content in one for one in own)
        }
        # Who may write a token. Marks of reasoning end no turn: an answer that is sent back holds them.
        self._authors = dict.fromkeys(special | named, TEMPLATE) | dict.fromkeys(special & marks, ASSISTANT)
        for token in marks - special:
            self._authors.pop(token, None)

    def said(self, turns: Sequence[Said]) -> list[int]:
        """Token ids of turns and the beginning of an answer.

        No text can end its turn and speak in another role: a control word in it, such as `<|im_end|>`, stays a word,
        even where the template makes one of it. Raises UnfitError for turns that the template refuses.
        """
        tokens: list[int] = []
        waiting = [(self._writer.write(turns), True)]
        while waiting:
            text, meant = waiting.pop()
            found = self._encoded(text, meant=meant)
            false = [
                span
                for token, span in self._controls(found, text)
                if author_of(text[slice(*span)]) < self._authors[token]
            ]
            if false:
                waiting += reversed(_pieces(text, false, meant=meant))
            else:
                tokens += found.ids
        return tokens

    def _controls(self, found: Encoding, text: Traced) -> Iterator[tuple[int, Span]]:
        """The control tokens of a text, and where the word of each stands, without the space that some take with it."""
        for token, (start, end) in zip(found.ids, found.offsets, strict=True):
            if token in self._authors:
                word = text[start:end]
                blank = len(word) - len(word.lstrip())
                yield token, (start + blank, start + blank + len(word.strip()))

    def _encoded(self, text: str, *, meant: bool) -> Encoding:
        """The tokens of a text whose special words are meant, or words."""
        self._tokenizer.encode_special_tokens = not meant
        try:
            return self._tokenizer.encode(text, add_special_tokens=False)
        finally:
            self._tokenizer.encode_special_tokens = True


def _pieces(text: Traced, words: Sequence[Span], *, meant: bool) -> list[tuple[Traced, bool]]:
    """The text cut so that words in it become no control token; of each piece, whether its special words are meant.

    A special word stands alone, and is not meant. Of others, which are always found, the first letter is cut off.
    """
    found, last = [], 0
    for start, end in words:
        if meant:
            found += [(text[last:start], True), (text[start:end], False)]
            last = end
        else:
            found.append((text[last : start + 1], False))
            last = start + 1
    return [*found, (text[last:], meant)]


def open_chat(folder: Path, tokenizer: Tokenizer) -> Chat:
    """The chat of the variant in `folder`; raises EdgemlError where its template cannot be used."""
    return Chat(read_record(folder / FILE, ChatTemplate), tokenizer)
