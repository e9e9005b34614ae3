"""How far the same variant's answers may be from those of another machine, and why. No I/O.

Seen with one version of each runtime, x86-64 (AVX-512) against emulated AArch64 of a Raspberry Pi 4 and 5. ONNX
Runtime: all-MiniLM-L6-v2 differs by 1e-7 in fp32, of a range of 0.4, so its worst cosine is 1 to twelve digits. So are
those of four texts of five in int8; in the others a sum that differs in its last bit moves an activation to the
neighbouring step, and the rest follows: the worst cosine of 8 texts was 0.9995, of 64 0.994, of 397 0.991, while 1 less
the cosine was 4e-4 in the mean and is 8e-3 to the same model in fp32. So the bound finds what is broken, and room for
texts that were not tried is in it. llama.cpp quantizes activations too, in blocks, and each processor's kernels sum
those in their own order: the same encoder's worst cosine was 0.999997 in f16 and 0.9997 in q4_k_m. SmolLM2-135M, in
q8_0, q4_0 and q4_k_m, had a mean KL divergence of 3.0e-3 to 6.5e-3, steady over 800 positions; 94 % of its likeliest
tokens were the same, 91 to 100 % of any 67 to 133. Two kernels of llama.cpp on one processor, that for a single token
and that for many, differ as much in q4_k_m: 5.4e-3 and 98 %. Another quantization of that model, which must not pass
for the same, is at 7e-2 and 88 %: so it is the divergence that tells them apart, and the share only finds what is
broken. Text that is written greedily parts after a few tokens, so it is never compared.
"""

from __future__ import annotations

from typing import NamedTuple


class Tolerance(NamedTuple):
    """The worst that passes, in the unit of what is compared, and why it is allowed."""

    bound: float
    reason: str


_STEP = Tolerance(0.98, "a rounding of another processor may move an activation to the neighbouring step")
_COSINES = {
    "fp32": Tolerance(0.9999, "floating-point sums differ between processors in their last bits"),
    "f16": Tolerance(0.9999, "half-precision sums differ between processors in their last bits"),
    "fp16": Tolerance(0.9999, "half-precision sums differ between processors in their last bits"),
    **dict.fromkeys(("int8", "int8-dynamic", "int8-static"), _STEP),
}
_BLOCKS = Tolerance(0.995, "each processor sums quantized blocks of activations in its own order")
KL_DIVERGENCE = Tolerance(0.01, "each processor sums in its own order, which moves quantized activations by a step")
SAME_TOP = Tolerance(0.85, "near ties between tokens may fall differently on another processor")
LABELS = Tolerance(1.0, "a label is what a user sees, and few rows are so near a tie")


def of_cosine(scheme: str) -> Tolerance:
    """The least cosine to what another machine computes, of vectors and of logits in that scheme."""
    return _COSINES.get(scheme.partition(":")[2], _BLOCKS)
