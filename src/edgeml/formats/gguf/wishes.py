"""Which ggml types the user wishes for which tensors: `PATTERN=TYPE` held against the tensors of one model."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import TENSOR_TYPES, Header, Tensor
from edgeml.formats.gguf.mixtures import WISHABLE

# What llama.cpp never quantizes, by parts of its names (`tensor_allows_quantization` in `llama-quant.cpp`), as far as
# the families that edgeml makes have them.
_NEVER = ("_norm.weight", "ffn_gate_inp.weight", "position_embd", "token_types")
_BLOCKS = {type.name: type.block for type in TENSOR_TYPES.values()}


def wished_types(wishes: Sequence[str], header: Header) -> dict[str, str]:
    """The wished type of each tensor that a pattern fits, by name; of several patterns, the first that fits counts.

    Raises EdgemlError for a wish that cannot be read or fits nothing, and for a type that a row cannot be stored in.
    """
    found: dict[str, str] = {}
    for wish in wishes:
        pattern, type = parse_wish(wish)
        fitting = [tensor for tensor in header.tensors if pattern.search(tensor.name) and _quantizable(tensor)]
        if not fitting:
            raise _fits_nothing(wish, pattern, header)
        for tensor in fitting:
            if tensor.columns % _BLOCKS[type]:
                message = f"{tensor.name} has {tensor.columns} columns, and {type} takes multiples of {_BLOCKS[type]}"
                raise EdgemlError(message, hint=f"wish another type for it, such as {_nearest_fitting(tensor)}")
            found.setdefault(tensor.name, type)
    return found


def parse_wish(wish: str) -> tuple[re.Pattern[str], str]:
    """The pattern and the type of one wish."""
    text, equals, type = wish.rpartition("=")
    if not (text and equals and type):
        raise EdgemlError(f"cannot read the tensor type {wish!r}", hint="write PATTERN=TYPE, such as attn_v=q8_0")
    if type.upper() not in WISHABLE:
        near = get_close_matches(type.upper(), WISHABLE, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(WISHABLE))}"
        raise EdgemlError(f"ggml has no type {type!r} for weights", hint=hint)
    try:
        return re.compile(text), type.upper()
    except re.error as error:
        message = f"the pattern {text!r} is no regular expression: {error}"
        raise EdgemlError(message, hint="write a part of a tensor's name, such as attn_v") from error


def _quantizable(tensor: Tensor) -> bool:
    never = any(part in tensor.name for part in _NEVER)
    return len(tensor.shape) > 1 and tensor.name.endswith("weight") and not never


def _fits_nothing(wish: str, pattern: re.Pattern[str], header: Header) -> EdgemlError:
    parts = dict.fromkeys(re.sub(r"^blk\.\d+\.|\.weight$", "", one.name) for one in header.tensors if _quantizable(one))
    kept = [tensor.name for tensor in header.tensors if pattern.search(tensor.name)]
    near = get_close_matches(re.sub(r"^blk\.\d+\.|\.weight$", "", pattern.pattern), parts, n=1)
    known = f"did you mean {near[0]}?" if near else f"there are {', '.join(parts)}"
    if kept:
        return EdgemlError(f"--tensor-type {wish}: llama.cpp never quantizes {kept[0]}", hint=known)
    return EdgemlError(f"--tensor-type {wish} fits no tensor of this model", hint=known)


def _nearest_fitting(tensor: Tensor) -> str:
    return "Q8_0" if tensor.columns % 32 == 0 else "F16"
