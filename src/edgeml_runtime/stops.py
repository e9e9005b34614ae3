"""Words that end a text: where the first of them begins, and how much of a growing text can be none of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from msgspec.structs import replace

from edgeml_runtime.reasoning import Span, spans
from edgeml_runtime.session import Generation, Thinking, Written
from edgeml_runtime.types import Generate

Hidden = Callable[[str], tuple[Span, ...]]  # where in a text the model thinks aloud: no word ends the text there


def words(options: Generate) -> tuple[str, ...]:
    """The words that end a text; none where not even an end token does."""
    return () if options.past_end else options.stop


def hidden_after(thinking: Callable[[], Thinking]) -> Hidden:
    """What finds the reasoning in a text, with the marks of its prompt, which is looked at once, at the first need."""
    known = cache(thinking)
    return lambda text: spans(text, known().marks, begun=known().begun)


def place_of(text: str, stops: Sequence[str], hidden: Sequence[Span] = ()) -> int | None:
    """Where the first of the words begins that does not begin in reasoning; None where there is none."""
    found = [place for stop in stops if (place := _outside(text, stop, hidden)) is not None]
    return min(found, default=None)


def undecided(text: str, words: Sequence[str]) -> int:
    """How many of the text's last characters may still become one of the words."""
    return max((_begun(text, word) for word in words), default=0)


def cut(made: Generation, place: int | None) -> Generation:
    """The generation with its text ended before a word at `place`; its tokens took their time all the same."""
    if place is None:
        return made
    return replace(
        made,
        text=made.text[:place],
        finish_reason="stop",
        text_ends=tuple(min(end, place) for end in made.text_ends),
        hidden=tuple((start, min(end, place)) for start, end in made.hidden if start < place),
    )


def until(steps: Iterator[Written], stops: Sequence[str], hidden: Hidden) -> Iterator[Written]:
    """The steps of a text that ends before the first of the words, of which no part is given away."""
    if not stops:
        yield from steps
        return
    text, said = "", 0
    for step in steps:
        text += step.text
        place = place_of(text, stops, hidden(text))
        known = len(text) - undecided(text, stops) if place is None else place
        yield step._replace(text=text[said:known])
        said = max(said, known)
        if place is not None:
            return
    yield Written(text[said:])


def _outside(text: str, word: str, hidden: Sequence[Span]) -> int | None:
    place = text.find(word)
    while place >= 0:
        over = next((end for start, end in hidden if start <= place < end), None)
        if over is None:
            return place
        place = text.find(word, over)
    return None


def _begun(text: str, word: str) -> int:
    """How many of the text's last characters are a word's first ones."""
    return next((size for size in range(min(len(word) - 1, len(text)), 0, -1) if text.endswith(word[:size])), 0)
