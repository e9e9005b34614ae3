"""What a variant's process needs of a device's memory, and whether the device has it.

Weights, the copy of those that llama.cpp rewrites at load, the cache of keys and values for the stated context, and a
base: libraries, tokenizer and buffers, as edgeml measured `memory_needed` of variants of its own. Pages of a mapped
file count, since a device that lacks them reads them from its card for every token.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from edgeml.targets.estimated.points import published
from edgeml.targets.types import Profile
from edgeml.types import Fit
from edgeml_runtime.types import Record

MIB = 1 << 20
GIB = 1 << 30  # memory is sold in these, and called GB
LARGEST_CONTEXT = 4096  # tokens that edgeml's own decoder takes at most


class Need(Record, frozen=True, kw_only=True):
    """Bytes that a process needs, and the bounds of that."""

    value: float
    low: float
    high: float
    method: str


class Weights(NamedTuple):
    """What is held of a model: the files, what of them is kept twice, what no step reads as a whole."""

    file_bytes: int
    repacked_bytes: int = 0
    unused_bytes: int = 0
    kv_bytes: int = 0


Kind = Literal["gguf decoder", "gguf encoder", "onnx"]


def need(kind: Kind, weights: Weights) -> Need:
    """What a process needs for these weights.

    The least leaves out pages of the file that may go: what is only looked up, such as a table of tokens, and what was
    rewritten. The most counts the base twice, since buffers grow with a model's width. Both bounds are stated, not
    fitted: there are too few measurements.
    """
    share, base = calibrated(kind)
    held = share * weights.file_bytes + weights.repacked_bytes + weights.kv_bytes
    method = (
        f"{_words(held)} of weights and cache, and a base of {_words(base)} that edgeml's own processes had on x86-64; "
        "from without pages that may go, to with the base twice"
    )
    spare = weights.unused_bytes + weights.repacked_bytes
    return Need(value=held + base, low=held + base - spare, high=held + 2 * base, method=method)


def calibrated(kind: Kind) -> tuple[float, float]:
    """How many times its weights a process holds, and the bytes that it needs beside them.

    llama.cpp maps its file once. ONNX Runtime reads its own and lays products' weights out anew: its share is fitted.
    """
    import numpy as np

    rows = [row for row in published().memory if row.kind == kind]
    sizes = np.array([row.file_bytes for row in rows], float)
    beside = np.array([row.needed_mib * MIB - row.repacked_bytes for row in rows])
    if kind != "onnx":
        return 1.0, float(np.mean(beside - sizes))
    share, base = np.polyfit(sizes, beside, 1)
    return float(share), float(base)


def fit(variant: str, needed: Need, profile: Profile, context_tokens: int | None) -> Fit | None:
    """Whether a variant fits into the memory that the profile names, or sells first; None where it is not known.

    It fits if the most that it may need is free beside the largest system that the profile knows, and does not if the
    least is not, beside the smallest.
    """
    size, system = profile.chosen_gb or next(iter(profile.memory_gb), None), profile.system_gb
    if size is None or system is None:
        return None
    least, usual, most = (
        max(0.0, size - kept) * GIB
        for kept in (system.high or system.value, system.value, system.value if system.low is None else system.low)
    )
    tight: Literal["tight", "does not fit"] = "tight" if needed.low <= most else "does not fit"
    return Fit(
        variant=variant,
        target=profile.name,
        word="fits" if needed.high <= least else tight,
        memory_gb=size,
        needed_bytes=round(needed.value),
        needed_high_bytes=round(needed.high),
        available_bytes=round(usual),
        available_low_bytes=round(least),
        available_high_bytes=round(most),
        needed_low_bytes=round(needed.low),
        method=f"{needed.method}; its system keeps {size - most / GIB:g} to {size - least / GIB:g} GB",
        context_tokens=context_tokens,
    )


def held_context(tokens: int) -> int:
    """The context that edgeml's decoder makes for so many tokens: the next power of two, at most 4096."""
    return min(1 << max(0, math.ceil(math.log2(max(1, tokens)))), LARGEST_CONTEXT)


def _words(size: float) -> str:
    return f"{size / MIB:.0f} MiB" if size < GIB else f"{size / GIB:.2f} GiB"
