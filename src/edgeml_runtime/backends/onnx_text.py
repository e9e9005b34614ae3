"""The text of tokens that come one by one. Knows nothing about models."""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

_MOST = 32  # tokens that wait for a whole character; the longest one takes four, of a byte each
_BROKEN = "\ufffd"  # what a decoder writes for bytes that are no character, or none yet


class GrowingText:
    """A text that grows by tokens: each is decoded with the few before it that its own characters depend on.

    A decoder may leave out the space before the first token that it sees, and gives bytes of an incomplete character
    as broken ones, so that no token is decoded alone: those of the text's last whole part stay before it. `mute` tokens
    are no text.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str], mute: Container[int] = ()) -> None:
        self._decode = decode
        self._mute = mute
        self._tokens: list[int] = []
        self._whole = 0  # tokens of them whose characters were complete before the others came
        self._given = 0  # characters of their text that were given away

    def add(self, token: int) -> str:
        """The characters that are complete with one more token; broken ones wait, but not for ever."""
        if token in self._mute:
            return ""
        self._tokens.append(token)
        text = self._decode(self._tokens)
        whole = text.rstrip(_BROKEN) if len(self._tokens) < _MOST else text
        part = whole[self._given :]
        self._given = max(self._given, len(whole))
        if whole == text:
            self._forget(text)
        return part

    def rest(self) -> str:
        """The broken characters at the end."""
        return self._decode(self._tokens)[self._given :]

    def _forget(self, text: str) -> None:
        """Drop the tokens that are not needed any more: what is left has a text of its own, the end of the whole."""
        last = self._tokens[self._whole :] if len(self._tokens) < _MOST else self._tokens[-1:]
        end = self._decode(last)
        if len(self._tokens) >= _MOST or (end and text.endswith(end)):
            self._tokens, self._given = last, len(end)
        if end:  # else these show nothing where they come first, and with the next ones they may
            self._whole = len(self._tokens)
