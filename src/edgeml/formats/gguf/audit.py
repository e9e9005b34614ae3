"""What a GGUF file really holds, and whether that is what its scheme's name promises.

Judges by names, shapes and types in the file's header alone; starts nothing and knows no library.

llama.cpp decides the type of each weight (`llama-quant.cpp`, `llama_tensor_get_type`), and the rule here follows it:
- Only weights of two or more dimensions are quantized; norms, biases, positions and small gates never are, under any
  scheme, so they take nothing away from a label.
- A scheme is a family of types: `Q4_K_M` is Q4_K with Q5_K or Q6_K where that pays, and the token embedding of a tied
  model is Q6_K even under `Q4_0`. The type that gives the scheme its name must be there at all.
- The block of a K-quant or an IQ type is 256 columns. Where 256 does not divide the row, llama.cpp falls back: Q4_K to
  Q5_0, Q5_K to Q5_1, Q6_K to Q8_0, Q2_K and Q3_K to Q4_0, IQ types to IQ4_NL, and to F16 where 32 does not divide it
  either. Such a file is larger than its name says and holds another quantization: the label is not earned. Types
  chosen freely (Q8_0 for experts, say) are part of it.
- A tensor whose type the user wished has it, or the label is not earned; a wish that was granted is no shortfall.
- Numbers that were quantized before and changed their type carry both losses: the label is not earned either.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import TENSOR_TYPES, Header, Tensor
from edgeml.formats.gguf.mixtures import BLOCK, K_BLOCK, MIXTURES, REPLACED, Mixture
from edgeml_runtime.types import Audit

_KEPT_TABLES = ("token_embd.weight", "output.weight")
_BITS = {type.name: type.size_bytes * 8 / type.block for type in TENSOR_TYPES.values()}


def audit(
    header: Header,
    scheme: str,
    *,
    source: Header | None = None,
    quantized: str | None = None,
    wished: Mapping[str, str] | None = None,
) -> Audit:
    """The audit of a written file. `source` is the GGUF that it was made from, if it was one.

    `quantized` names the method of a source in another format that was quantized already. `wished` holds the types
    that the user chose, by the tensors' names. Raises EdgemlError for a file without any.
    """
    counts: Counter[str] = Counter()
    for tensor in header.tensors:
        counts[tensor.type.name] += tensor.parameters
    parameters = counts.total()
    if not parameters:
        raise EdgemlError("the GGUF file holds no parameters", hint="make it again from its source")
    mixture, wished = MIXTURES[scheme], wished or {}
    unwished = [tensor for tensor in header.tensors if tensor.name not in wished]
    shortfalls = (
        *_unfulfilled(header.tensors, wished, parameters),
        *(_fallbacks(unwished, mixture, parameters) or _nowhere(counts, mixture)),
        *_left_alone(unwished, mixture, parameters),
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
    """Share of the parameters that are stored in a quantized type; 0 where there are none."""
    quantized = sum(tensor.parameters for tensor in header.tensors if tensor.type.quantized)
    return quantized / max(1, sum(tensor.parameters for tensor in header.tensors))


def most_used(tensors: Iterable[Tensor]) -> str | None:
    """The quantized type that holds most parameters, or None where nothing is quantized."""
    counts: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.type.quantized:
            counts[tensor.type.name] += tensor.parameters
    return counts.most_common(1)[0][0] if counts else None


def largest_bytes(header: Header, scheme: str, wished: Mapping[str, str] | None = None) -> int:
    """An upper bound of the file that `scheme` makes of these tensors: every weight in the family's widest type."""
    mixture, total = MIXTURES[scheme], 0.0
    widest = max(_BITS[name] for name in mixture.family)
    for tensor in header.tensors:
        if len(tensor.shape) < 2:
            bits = 32.0
        elif tensor.columns % BLOCK:
            bits = max(16.0, widest)
        else:
            bits = widest if not mixture.quantized or tensor.columns % K_BLOCK == 0 else max(8.5, widest)
        if wished and tensor.name in wished:
            bits = max(bits, _BITS[wished[tensor.name]])
        total += tensor.parameters * bits / 8
    first = min((tensor.offset for tensor in header.tensors), default=header.size_bytes)
    return int(total) + first


def _unfulfilled(tensors: Iterable[Tensor], wished: Mapping[str, str], parameters: int) -> list[str]:
    return [
        f"{_share(tensor.parameters, parameters)} of parameters ({tensor.name}) are {tensor.type.name}, "
        f"not {wished[tensor.name]} as wished"
        for tensor in tensors
        if wished.get(tensor.name, tensor.type.name) != tensor.type.name
    ]


def _fallbacks(tensors: Iterable[Tensor], mixture: Mixture, parameters: int) -> list[str]:
    counts: Counter[tuple[str, str]] = Counter()
    columns: dict[tuple[str, str], set[int]] = {}
    for tensor in tensors:
        replaced = [name for name in REPLACED.get(tensor.type.name, ()) if name in mixture.family]
        if tensor.type.name not in mixture.family and replaced and tensor.columns % K_BLOCK:
            name = mixture.main if mixture.main in replaced else replaced[0]
            counts[name, tensor.type.name] += tensor.parameters
            columns.setdefault((name, tensor.type.name), set()).add(tensor.columns)
    return [
        f"{_share(count, parameters)} of parameters fell back from {pair[0]} to {pair[1]}: "
        f"{' and '.join(map(str, sorted(columns[pair])))} columns are no multiple of {K_BLOCK}"
        for pair, count in counts.most_common()
    ]


def _nowhere(counts: Counter[str], mixture: Mixture) -> list[str]:
    if counts[mixture.main] or not mixture.quantized:
        return []
    reason = ": only a mixture of experts has weights for it" if mixture.main == "MXFP4" else ""
    return [f"no weight is stored in {mixture.main}{reason}"]


def _left_alone(tensors: Iterable[Tensor], mixture: Mixture, parameters: int) -> list[str]:
    sentences = []
    for tensor in tensors:
        unusual = len(tensor.shape) > 1 and tensor.columns % BLOCK != 0 and tensor.type.name == "F16"
        missed = not tensor.type.quantized and (tensor.name in _KEPT_TABLES or unusual)
        other = tensor.type.quantized or (tensor.name in _KEPT_TABLES and tensor.type.name != mixture.main)
        if missed if mixture.quantized else other:
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
