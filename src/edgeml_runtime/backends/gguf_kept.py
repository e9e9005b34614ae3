"""Keeps the state of prompts' beginnings, so that one which comes again is not evaluated again.

A beginning is reused up to a multiple of `GRID` tokens. Prompts are always evaluated in pieces of so many tokens, from
their first one on, so that the state of a piece follows from the tokens before it alone, bit for bit: an answer is the
same whether its prompt's beginning was kept or not.
"""

from __future__ import annotations

import ctypes
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from edgeml_runtime.backends.gguf_model import Context

# Tokens evaluated at once. 64 cost a prompt of 754 tokens no more time than 512 did, 32 a third more (135 million
# parameters in Q4_0, one thread of x86-64), and a smaller one reuses more.
GRID = 64
_REMEMBERED = 8  # prompts in which a beginning may have stood before


class Kept(NamedTuple):
    """A beginning, and what llama.cpp knew after it."""

    tokens: tuple[int, ...]
    state: ctypes.Array[ctypes.c_uint8]


class Beginnings:
    """What a context holds now, and the states of beginnings that came twice: at most `limit_bytes`, latest last."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._held: list[int] = []
        self._kept: list[Kept] = []
        self._prompts: deque[tuple[int, ...]] = deque(maxlen=_REMEMBERED)

    @property
    def kept_bytes(self) -> int:
        """Memory that the kept states take."""
        return sum(len(one.state) for one in self._kept)

    def forget(self) -> None:
        """The context was emptied, or is another one."""
        self._held = []

    def resume(self, context: Context, tokens: Sequence[int]) -> int:
        """Leave in the context what it, or a kept state, knows of the prompt's beginning; that many tokens."""
        prompt = tokens[:-1]  # the last is evaluated in any case, for its logits
        held = shared(self._held, prompt)
        best = max(self._kept, key=lambda one: shared(one.tokens, prompt), default=None)
        if best is not None and shared(best.tokens, prompt) > held:
            context.forget()
            self._held = list(best.tokens) if context.restore(best.state) else []
            self._kept = [*(one for one in self._kept if one is not best), best]
            held = shared(self._held, prompt)
        if not held or not context.cut(held):  # a recurrent model cannot go back
            context.forget()
            held = 0
        self._held = self._held[:held]
        return held

    def worth_keeping(self, tokens: Sequence[int]) -> int:
        """How many of the prompt's first tokens an earlier prompt began with and no kept state has; 0 for none."""
        if not self._limit_bytes:
            return 0
        common = max((shared(prompt, tokens) for prompt in self._prompts), default=0)
        self._prompts.append(tuple(tokens))
        known = max((shared(one.tokens, tokens) for one in self._kept), default=0)
        return common if common > known else 0

    def evaluated(self, tokens: Sequence[int]) -> None:
        """The context now holds these tokens, too."""
        self._held += tokens

    def keep(self, context: Context) -> None:
        """Keep the state of what the context holds; the oldest ones make room, and one that it contains goes."""
        tokens = tuple(self._held)
        state = context.state() if tokens else None
        if state is None or len(state) > self._limit_bytes:
            return
        self._kept = [one for one in self._kept if tokens[: len(one.tokens)] != one.tokens]
        self._kept.append(Kept(tokens, state))
        while self.kept_bytes > self._limit_bytes:
            self._kept.pop(0)


def shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many first tokens are the same, in whole pieces."""
    size = min(len(one), len(other))
    same = next((index for index in range(size) if one[index] != other[index]), size)
    return same - same % GRID
