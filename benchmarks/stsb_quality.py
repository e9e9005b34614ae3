"""Quality on the STS Benchmark's dev split: every variant against the same model in PyTorch.

    python benchmarks/stsb_quality.py [--data stsb-dev.tsv]

Spearman's correlation of the cosine with the human score, texts embedded one at a time, and in batches of 32 (a
dynamic int8 model answers differently in a batch). Goals: fp32 and f16 within 0.0005 of PyTorch; int8 loses at most
0.001 one at a time and its file has at most 23.3 MB.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
from common import STSB_DEV, model, variants
from scipy.stats import spearmanr

from edgeml_runtime.machine import cores
from edgeml_runtime.rows import read_rows
from edgeml_runtime.session import open_session

SCHEMES = ("onnx:fp32", "onnx:int8", "gguf:f16", "gguf:q8_0", "gguf:q4_k_m")
BATCH = 32


def torch_vectors(texts: list[str]) -> Any:
    """The reference: Transformers in float32, mean over the tokens, length one."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    folder = model().path
    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    rows = []
    with torch.no_grad():
        for text in texts:
            feed = tokenizer(text, return_tensors="pt", truncation=True, max_length=256, padding=False)
            hidden = network(**feed).last_hidden_state[0]  # (tokens, width)
            rows.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
    return np.stack(rows)


def vectors(session: Any, texts: list[str], batch: int) -> Any:
    """The variant's vectors, in batches."""
    return np.concatenate([session.embed(texts[start : start + batch]) for start in range(0, len(texts), batch)])


def main() -> None:
    """Print a row a variant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=STSB_DEV)
    path = parser.parse_args().data
    if not path.is_file():
        sys.exit(f"left out: {path} is missing; give the STS Benchmark's dev split with --data")
    rows = read_rows(path)
    texts = list(dict.fromkeys(row[key] for row in rows for key in ("sentence1", "sentence2")))
    pairs = [(texts.index(row["sentence1"]), texts.index(row["sentence2"])) for row in rows]
    scores = [float(row["score"]) for row in rows]

    def spearman(found: Any) -> float:
        return float(spearmanr([found[a] @ found[b] for a, b in pairs], scores).statistic)

    reference = spearman(torch_vectors(texts))
    print(f"  {'variant':<14} {'Spearman':>9} {'change':>8} {f'batch {BATCH}':>9} {'file':>9}   n = {len(rows)}")
    print(f"  {'PyTorch fp32':<14} {reference:9.4f}")
    for variant in variants(*SCHEMES):
        session = open_session(variant.path, threads=cores())
        alone, batched = spearman(vectors(session, texts, 1)), spearman(vectors(session, texts, BATCH))
        size = next(f.size_bytes for f in variant.manifest.files if f.path == variant.manifest.weights)
        name = variant.name.partition("/")[2]
        print(f"  {name:<14} {alone:9.4f} {alone - reference:+8.4f} {batched:9.4f} {size / 1e6:6.1f} MB")


if __name__ == "__main__":
    main()
