"""How far the same variant's answers may be from those of another machine, and why. No I/O.

Measured with one version of each runtime, x86-64 (AVX-512) against AArch64: ONNX Runtime's int8 encoder differed by
1e-6 of a range of 4.3 and its fp32 one by 2e-6, all-MiniLM-L6-v2 by 5e-8 and 1e-7 of a range of 0.4. So these cosines
leave room for an activation that rounds to the neighbouring step. llama.cpp also quantizes activations, in blocks,
whose sums each processor orders in its own way: 98.1 % of the likeliest tokens agreed, the mean KL divergence was 8e-4,
with random weights, the worst case for near ties; text that is written greedily differs after a few tokens, so it is
never compared.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    """The worst that passes, in the unit of what is compared, and why it is allowed."""

    bound: float
    reason: str


_COSINES = {
    "fp32": Tolerance(0.9999, "floating-point sums differ between processors in their last bits"),
    "f16": Tolerance(0.9999, "half-precision sums differ between processors in their last bits"),
    "int8": Tolerance(0.999, "a rounding of another processor may move an activation to the neighbouring step"),
}
_BLOCKS = Tolerance(0.995, "each processor sums quantized blocks of activations in its own order")
_TIES = "near ties between tokens may fall differently on another processor"
KL_DIVERGENCE = Tolerance(0.01, f"{_BLOCKS.reason}; twelve times what was seen with random weights")
SAME_TOP = Tolerance(0.95, _TIES)
SAME_TOP_OF_GOLDENS = Tolerance(0.9, _TIES)  # a device that refuses a good bundle is worse than a late alarm
LABELS = Tolerance(1.0, "a label is far from a tie in most rows, and what a user sees")


def of_cosine(scheme: str) -> Tolerance:
    """The least cosine to what another machine computes, of vectors and of logits in that scheme."""
    return _COSINES.get(scheme.partition(":")[2], _BLOCKS)
