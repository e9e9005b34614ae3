"""llama.cpp's file types: which types of tensor each is made of, and what becomes of rows that do not fit.

A table and nothing else. Sources, as of llama-cpp-python 0.3.36: `llama.h` (`llama_ftype`), `llama-quant.cpp`
(`llama_ftype_get_default_type`, `llama_tensor_get_type_impl`, `tensor_type_fallback`, `tensor_requires_imatrix`) and
`ggml-quants.c` (which quantizers read an importance matrix). `nvfp4` is missing: `llama-quant.cpp` writes none.
"""

from __future__ import annotations

from typing import NamedTuple

BLOCK = 32
K_BLOCK = 256


class Mixture(NamedTuple):
    """A scheme as llama.cpp knows it.

    `ftype` is the number of its `llama_ftype`, `main` the type that weights have unless they are special, and `family`
    the types that belong to the scheme. `demanding`: llama.cpp makes it with an importance matrix only.
    """

    ftype: int
    main: str
    family: frozenset[str]
    demanding: bool = False

    @property
    def quantized(self) -> bool:
        """Whether several weights share a scale."""
        return self.main not in FULL

    @property
    def uses_matrix(self) -> bool:
        """Whether an importance matrix makes another file of it; it holds nothing of the embedding and the output."""
        return self.main in MATRIX_TYPES


def _mixture(ftype: int, *family: str, demanding: bool = False) -> Mixture:
    return Mixture(ftype, family[0], frozenset(family), demanding)


FULL = frozenset({"F32", "F16", "BF16"})
MIXTURES = {
    "f32": _mixture(0, "F32"),
    "f16": _mixture(1, "F16"),
    "bf16": _mixture(32, "BF16"),
    "q8_0": _mixture(7, "Q8_0"),
    "q6_k": _mixture(18, "Q6_K"),
    "q5_k_m": _mixture(17, "Q5_K", "Q6_K"),
    "q5_k_s": _mixture(16, "Q5_K", "Q6_K"),
    "q5_1": _mixture(9, "Q5_1", "Q6_K"),
    "q5_0": _mixture(8, "Q5_0", "Q5_1", "Q6_K"),
    "q4_k_m": _mixture(15, "Q4_K", "Q5_K", "Q6_K"),
    "q4_k_s": _mixture(14, "Q4_K", "Q5_K", "Q6_K"),
    "q4_1": _mixture(3, "Q4_1", "Q6_K"),
    "q4_0": _mixture(2, "Q4_0", "Q4_1", "Q6_K"),
    "iq4_nl": _mixture(25, "IQ4_NL", "Q5_K", "Q6_K"),
    "iq4_xs": _mixture(30, "IQ4_XS", "Q5_K", "Q6_K"),
    "mxfp4_moe": _mixture(38, "MXFP4", "Q8_0"),
    "q3_k_l": _mixture(13, "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    "q3_k_m": _mixture(12, "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    "q3_k_s": _mixture(11, "Q3_K", "Q5_K", "Q6_K"),
    "iq3_m": _mixture(27, "IQ3_S", "Q4_K", "Q5_K", "Q6_K"),
    "iq3_s": _mixture(26, "IQ3_S", "Q4_K", "Q5_K", "Q6_K"),
    "iq3_xs": _mixture(22, "IQ3_S", "IQ3_XXS", "Q4_K", "Q5_K", "Q6_K", demanding=True),
    "iq3_xxs": _mixture(23, "IQ3_XXS", "IQ3_S", "IQ2_S", "Q3_K", "Q4_K", "Q5_K", demanding=True),
    "q2_k": _mixture(10, "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"),
    "q2_k_s": _mixture(21, "Q2_K", "Q4_K", "Q5_K", "Q6_K", demanding=True),
    "q2_0": _mixture(41, "Q2_0", "Q4_K", "Q6_K"),
    "iq2_m": _mixture(29, "IQ2_S", "IQ3_S", "Q4_K", "Q5_K", demanding=True),
    "iq2_s": _mixture(28, "IQ2_XS", "IQ3_S", "Q4_K", "Q5_K", demanding=True),
    "iq2_xs": _mixture(20, "IQ2_XS", "Q2_K", "Q4_K", "Q5_K", demanding=True),
    "iq2_xxs": _mixture(19, "IQ2_XXS", "Q2_K", "Q4_K", "Q5_K", demanding=True),
    "tq2_0": _mixture(37, "TQ2_0", "Q4_K", "Q6_K"),
    "tq1_0": _mixture(36, "TQ1_0", "Q4_K", "Q6_K"),
    "iq1_m": _mixture(31, "IQ1_M", "IQ2_XXS", "Q2_K", "Q4_K", "Q5_K", demanding=True),
    "iq1_s": _mixture(24, "IQ1_S", "IQ2_XXS", "Q2_K", "Q4_K", "Q5_K", demanding=True),
    "q1_0": _mixture(40, "Q1_0", "Q6_K"),
}

# What llama.cpp puts in the place of a type whose block does not divide a row, and which types that may have been.
# Q8_0 is also what it takes for an output or tied embedding that was to be Q5_K.
REPLACED = {
    "IQ4_NL": ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"),
    "Q4_0": ("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"),
    "Q5_0": ("Q4_K",),
    "Q5_1": ("Q5_K",),
    "Q8_0": ("Q6_K", "Q5_K"),
}
DEMANDING_TYPES = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"})
MATRIX_TYPES = DEMANDING_TYPES | {"IQ3_S", "IQ4_NL", "IQ4_XS", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K"}
MATRIX_TYPES |= {"Q4_0", "Q4_1", "Q5_0", "Q5_1"}
# The types that may be wished for a tensor: every one that `ggml_quantize_chunk` writes.
WISHABLE = FULL | MATRIX_TYPES | {"Q8_0", "MXFP4", "NVFP4", "TQ1_0", "TQ2_0", "Q1_0", "Q2_0"}
