"""Writing text greedily with any ONNX graph: the loop around its steps, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from edgeml_runtime import reasoning
from edgeml_runtime.session import Generation, Written
from edgeml_runtime.types import Generate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeml_runtime.session import Floats

Step = Callable[[Sequence[int]], "Floats"]  # new tokens in, logits of the successor of the last one out


def steps(step: Step, first: Sequence[int], options: Generate, end_tokens: Sequence[int]) -> Iterator[int]:
    """The likeliest tokens after `first`, until an end token, which is left out, or `max_new_tokens`."""
    new = first
    for _ in range(options.max_new_tokens):
        token = int(step(new).argmax())
        if token in end_tokens and not options.past_end:
            return
        yield token
        new = [token]


def written(tokens: Iterator[int], options: Generate, *, tokenizer: Tokenizer, prompt_tokens: int) -> Generation:
    """The text of those new tokens, and when each of them came."""
    begin = perf_counter()
    made: list[int] = []
    times: list[float] = []
    for token in tokens:
        made.append(token)
        times.append(perf_counter() - begin)
    text = tokenizer.decode(made)
    return Generation(
        text=text,
        tokens=tuple(made),
        prompt_tokens=prompt_tokens,
        finish_reason="stop" if len(made) < options.max_new_tokens else "length",
        token_times_s=tuple(times),
        text_ends=tuple(_whole_characters(tokenizer, made[: count + 1]) for count in range(len(made))),
        hidden=reasoning.spans(text),
    )


def parts(tokens: Iterator[int], tokenizer: Tokenizer) -> Iterator[Written]:
    """The text of new tokens as they come; characters that are not complete yet wait for their other tokens."""
    made: list[int] = []
    said = 0
    yield Written("")
    for token in tokens:
        made.append(token)
        text = tokenizer.decode(made).rstrip("\ufffd")
        yield Written(text[said:], token)
        said = max(said, len(text))
    yield Written(tokenizer.decode(made)[said:])


def _whole_characters(tokenizer: Tokenizer, tokens: list[int]) -> int:
    return len(tokenizer.decode(tokens).rstrip("\ufffd"))
