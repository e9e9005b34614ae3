"""Writing the answer to one request, in the model's thread: its prompt, its limits, and its text as it may be shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import structs

from edgeml_runtime.reasoning import THINK, spans, visible
from edgeml_runtime.server.refusals import require_countable, wrong
from edgeml_runtime.server.work import Ask, GivenUpError
from edgeml_runtime.session import Decoder, Thinking, kind_of
from edgeml_runtime.stops import place_of, undecided
from edgeml_runtime.types import Generate


class Asked(NamedTuple):
    """What is to be written: after which prompt, how, until which words; `max_tokens` where the request said so.

    `characters` are those of the prompt.
    """

    prompt: Callable[[Decoder], Sequence[int]]
    characters: int
    options: Generate
    stops: tuple[str, ...] = ()
    max_tokens: int | None = None


class Answered(NamedTuple):
    """A whole answer and what it took; `reused` are tokens of the prompt that were not read again."""

    text: str
    finish_reason: str
    prompt_tokens: int
    reused: int
    tokens: int


def write(session: Decoder, asked: Asked, ask: Ask[Answered], context_tokens: int) -> Answered:
    """Write, and `say` each part that may be shown; raises the refusal of a prompt that does not fit."""
    limit = min(session.manifest.max_tokens, context_tokens)
    require_countable(asked.characters, limit, session.manifest.name)
    prompt = asked.prompt(session)
    options = _within(session, asked, len(prompt), context_tokens)
    shown = Shown(asked.stops, None if options.schema is not None else session.thinking(prompt))
    reused = tokens = 0
    for step in session.write(prompt, options):
        reused, tokens = reused + step.reused, tokens + (step.token is not None)
        if part := shown.add(step.text):
            ask.say(part)
        if ask.given_up.is_set():
            raise GivenUpError
        if shown.stopped:
            break
    if part := shown.rest():
        ask.say(part)
    reason = "stop" if shown.stopped or tokens < options.max_new_tokens else "length"
    return Answered(shown.text, reason, len(prompt), reused, tokens)


def _within(session: Decoder, asked: Asked, given: int, context_tokens: int) -> Generate:
    """The options with as many new tokens as there is room for, unless the request says how many it wants."""
    limit, name = min(session.manifest.max_tokens, context_tokens), session.manifest.name
    if kind_of(session.manifest.task) == "seq2seq":  # what is read and what is written have rooms of their own
        room = context_tokens
        if given > limit:
            raise wrong(f"the text has {given} tokens, and {name} reads {limit} here", code="context_length_exceeded")
    else:
        room = limit - given
    wanted = asked.max_tokens or min(asked.options.max_new_tokens, max(room, 1))
    if wanted > room:
        problem = f"{given} tokens and {wanted} new ones do not fit the {limit} of {name} here"
        raise wrong(problem, code="context_length_exceeded")
    return structs.replace(asked.options, max_new_tokens=wanted)


class Shown:
    """The part of a growing text that may be shown: without reasoning, and up to the first stop word.

    What could still become such a mark or word waits until it is known.
    """

    def __init__(self, stops: Sequence[str], thinking: Thinking | None) -> None:
        self.text = ""
        self.stopped = False
        self._stops = stops
        self._thinking = thinking
        self._marks = () if thinking is None else tuple(mark[0] for mark in (THINK, *thinking.marks))
        self._raw = ""

    def add(self, text: str) -> str:
        """What more may be shown, now that the text goes on so."""
        if not text or self.stopped:
            return ""
        self._raw += text
        return self._show(self._visible(), held=True)

    def rest(self) -> str:
        """What may be shown at the end."""
        return "" if self.stopped else self._show(self._visible(), held=False)

    def _visible(self) -> str:
        if self._thinking is None:
            return self._raw
        found = spans(self._raw, self._thinking.marks, begun=self._thinking.begun)
        return visible(self._raw, [span for span in found if self._thinking.begun or self._opens(span[0])])

    def _opens(self, place: int) -> bool:
        """Whether a mark opens reasoning there: what a mark closes that none opened has been shown already."""
        return self._raw.startswith(self._marks, place)

    def _show(self, text: str, *, held: bool) -> str:
        place = place_of(text, self._stops)
        if place is not None:
            self.stopped, text = True, text[:place]
        elif held:
            text = text[: len(text) - undecided(text, (*self._stops, *self._marks))]
        part = text[len(self.text) :]
        self.text += part
        return part
