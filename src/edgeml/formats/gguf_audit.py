"""What a GGUF file really holds, and whether that is what its scheme's name promises.

Judges by names, shapes and types in the file's header alone; starts nothing and knows no library.

llama.cpp decides the type of each weight (`llama-quant.cpp`, `llama_tensor_get_type`), and the rule here follows it:
- Only weights of two or more dimensions are quantized; norms, biases, positions and small gates never are, under any
  scheme, so they take nothing away from a label.
- A scheme is a family of types: `Q4_K_M` is Q4_K with Q5_K or Q6_K where that pays, and the token embedding of a tied
  model is Q6_K even under `Q4_0`.
- A K-quant's block is 256 columns. Where 256 does not divide the row, llama.cpp falls back: Q4_K to Q5_0, Q5_K to
  Q5_1, Q6_K to Q8_0, and to F16 where 32 does not divide it either. Such a file is larger than its name says and
  holds another quantization: the label is not earned. Types chosen freely (Q8_0 for experts, say) are part of it.
- Numbers that were quantized before and changed their type carry both losses: the label is not earned either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from edgeml.formats.gguf_header import Header, Tensor
from edgeml_runtime.types import Audit

BLOCK = 32
K_BLOCK = 256
_KEPT_TABLES = ("token_embd.weight", "output.weight")


class Mixture(NamedTuple):
    """A scheme as llama.cpp knows it: the number of its `llama_ftype` (`llama.h`) and the types that belong to it."""

    ftype: int
    family: frozenset[str]


MIXTURES = {
    "f16": Mixture(1, frozenset({"F16"})),
    "q4_0": Mixture(2, frozenset({"Q4_0", "Q6_K"})),
    "q8_0": Mixture(7, frozenset({"Q8_0"})),
    "q4_k_m": Mixture(15, frozenset({"Q4_K", "Q5_K", "Q6_K"})),
    "q5_k_m": Mixture(17, frozenset({"Q5_K", "Q6_K"})),
    "q6_k": Mixture(18, frozenset({"Q6_K"})),
}
_REPLACED = {"Q5_0": "Q4_K", "Q5_1": "Q5_K", "Q8_0": "Q6_K"}


def audit(header: Header, scheme: str, *, source: Header | None = None, quantized: str | None = None) -> Audit:
    """The audit of a written file. `source` is the GGUF that it was made from, if it was one.

    `quantized` names the method of a source in another format that was quantized already.
    """
    counts: Counter[str] = Counter()
    for tensor in header.tensors:
        counts[tensor.type.name] += tensor.parameters
    parameters = counts.total()
    shortfalls = (
        *_fallbacks(header.tensors, scheme, parameters),
        *_left_alone(header.tensors, scheme, parameters),
        *_requantized(header.tensors, source, quantized, parameters),
    )
    return Audit(
        parameters=parameters,
        bits_per_weight=round(sum(tensor.size_bytes for tensor in header.tensors) * 8 / parameters, 4),
        tensor_types=dict(counts.most_common()),
        share_quantized=round(share_quantized(header), 6),
        earned=not shortfalls,
        shortfalls=shortfalls,
    )


def share_quantized(header: Header) -> float:
    """Share of the parameters that are stored in a quantized type."""
    quantized = sum(tensor.parameters for tensor in header.tensors if tensor.type.quantized)
    return quantized / sum(tensor.parameters for tensor in header.tensors)


def most_used(tensors: Iterable[Tensor]) -> str | None:
    """The quantized type that holds most parameters, or None where nothing is quantized."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.type.quantized:
            counts[tensor.type.name] += tensor.parameters
    return counts.most_common(1)[0][0] if counts else None


def largest_bytes(header: Header, scheme: str) -> int:
    """An upper bound of the file that `scheme` makes of these tensors: every weight in the family's widest type."""
    total = 0.0
    for tensor in header.tensors:
        if len(tensor.shape) < 2:
            bits = 32.0
        elif scheme == "f16" or tensor.columns % BLOCK:
            bits = 16.0
        else:
            bits = 6.5625 if scheme != "q8_0" and tensor.columns % K_BLOCK == 0 else 8.5
        total += tensor.parameters * bits / 8
    first = min((tensor.offset for tensor in header.tensors), default=header.size_bytes)
    return int(total) + first


def _fallbacks(tensors: Iterable[Tensor], scheme: str, parameters: int) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    columns: dict[tuple[str, str], set[int]] = {}
    family = MIXTURES[scheme].family
    for tensor in tensors:
        replaced = _REPLACED.get(tensor.type.name)
        if tensor.type.name not in family and replaced in family and tensor.columns % K_BLOCK:
            counts[replaced, tensor.type.name] += tensor.parameters
            columns.setdefault((replaced, tensor.type.name), set()).add(tensor.columns)
    return [
        f"{_share(count, parameters)} of parameters fell back from {pair[0]} to {pair[1]}: "
        f"{' and '.join(map(str, sorted(columns[pair])))} columns are no multiple of {K_BLOCK}"
        for pair, count in counts.most_common()
    ]


def _left_alone(tensors: Iterable[Tensor], scheme: str, parameters: int) -> list[str]:
    sentences = []
    for tensor in tensors:
        unusual = len(tensor.shape) > 1 and tensor.columns % BLOCK != 0 and tensor.type.name == "F16"
        missed = not tensor.type.quantized and (tensor.name in _KEPT_TABLES or unusual)
        if tensor.type.quantized if scheme == "f16" else missed:
            reason = f": {tensor.columns} columns are no multiple of {BLOCK}" if tensor.columns % BLOCK else ""
            share = _share(tensor.parameters, parameters)
            sentences.append(f"{share} of parameters ({tensor.name}) stayed in {tensor.type.name}{reason}")
    return sentences


def _requantized(tensors: Iterable[Tensor], source: Header | None, quantized: str | None, parameters: int) -> list[str]:
    if quantized:
        return [f"the source was quantized already ({quantized}): what that lost is lost"]
    before = {tensor.name: tensor for tensor in source.tensors} if source else {}
    changed = [
        before[tensor.name]
        for tensor in tensors
        if tensor.name in before and before[tensor.name].type.quantized and before[tensor.name].type != tensor.type
    ]
    if not changed:
        return []
    share = _share(sum(tensor.parameters for tensor in changed), parameters)
    names = " and ".join(dict.fromkeys(tensor.type.name for tensor in changed))
    return [f"{share} of parameters were quantized already, as {names}: what that lost is lost"]


def _share(count: int, parameters: int) -> str:
    percent = 100 * count / parameters
    return f"{percent:.0f} %" if percent >= 1 else "less than 1 %"
