"""Writing text greedily with any ONNX graph: the loop around its steps, and its clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TYPE_CHECKING

from edgeml_runtime import reasoning
from edgeml_runtime.session import Generation
from edgeml_runtime.types import Generate

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from edgeml_runtime.session import Floats

Step = Callable[[Sequence[int]], "Floats"]  # new tokens in, logits of the successor of the last one out


def written(
    step: Step,
    first: Sequence[int],
    options: Generate,
    *,
    tokenizer: Tokenizer,
    end_tokens: Sequence[int],
    prompt_tokens: int,
) -> Generation:
    """The likeliest text after `first`, until an end token or `max_new_tokens`."""
    begin = perf_counter()
    made: list[int] = []
    times: list[float] = []
    new, reason = first, "length"
    while len(made) < options.max_new_tokens:
        token = int(step(new).argmax())
        if token in end_tokens and not options.past_end:
            reason = "stop"
            break
        made.append(token)
        times.append(perf_counter() - begin)
        new = [token]
    text = tokenizer.decode(made)
    return Generation(
        text=text,
        tokens=tuple(made),
        prompt_tokens=prompt_tokens,
        finish_reason=reason,
        token_times_s=tuple(times),
        text_ends=tuple(_whole_characters(tokenizer, made[: count + 1]) for count in range(len(made))),
        hidden=reasoning.spans(text),
    )


def _whole_characters(tokenizer: Tokenizer, tokens: list[int]) -> int:
    return len(tokenizer.decode(tokens).rstrip("\ufffd"))
