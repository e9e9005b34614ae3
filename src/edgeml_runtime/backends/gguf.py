"""Opens GGUF variants with llama.cpp, on the CPU or a GPU.

Knows nothing about tasks, meters or how a GGUF is made. llama.cpp aborts the process on some broken files (a
vocabulary without byte tokens, for one), so callers open a foreign variant in a child process.
"""

from __future__ import annotations

from pathlib import Path

from edgeml_runtime.backends.gguf_decoder import GgufDecoder
from edgeml_runtime.backends.gguf_encoder import GgufEncoder
from edgeml_runtime.backends.gguf_model import Model, gpu_library
from edgeml_runtime.session import is_encoder
from edgeml_runtime.types import VariantManifest


def open_variant(
    folder: Path,
    manifest: VariantManifest,
    *,
    threads: int,
    threads_prefill: int | None = None,
    gpu: bool | None = None,
) -> GgufEncoder | GgufDecoder:
    """An encoder for embedding tasks, else a decoder; raises EdgemlError when llama.cpp cannot load the weights."""
    model = Model(folder / manifest.weights, gpu=gpu)
    if is_encoder(manifest):
        return GgufEncoder(model, manifest, threads=threads)
    return GgufDecoder(model, manifest, threads=threads, threads_prefill=threads_prefill)


def accelerator(*, gpu: bool | None) -> str | None:
    """What llama.cpp computes with beside the CPU; with `gpu` left out, whatever it was built for."""
    return None if gpu is False else gpu_library()
