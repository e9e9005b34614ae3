"""edgeml's worker against a bare loop over tokenizers and ONNX Runtime, on the same texts.

    python benchmarks/worker_onnx.py [--rounds 9] [--repeats 400] [--threads N]

Both go from text to a pooled vector of length one, one text at a time in the same order, in fresh processes in turn,
on the fp32 variant of all-MiniLM-L6-v2. Goal: the worker's median latency is within 3 % of the bare loop's.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from common import LINES, child, interleaved, ratio, variants

from edgeml.progress import silent
from edgeml.targets import local
from edgeml_runtime.machine import cores
from edgeml_runtime.rows import read_rows
from edgeml_runtime.types import Job

WARMUPS = 20
SEED = 20
BARE = """
import csv, itertools, json, random, statistics, sys, time
import numpy as np, onnxruntime as ort
from tokenizers import Tokenizer
folder, lines, threads, warmups, repeats, seed = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = int(threads), 1, 3
session = ort.InferenceSession(folder + "/model.onnx", options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(folder + "/tokenizer.json")
tokenizer.enable_truncation(256)
texts = [row["text"] for row in csv.DictReader(open(lines, encoding="utf-8"))]
texts = random.Random(int(seed)).sample(texts, len(texts))
times = []
for text in itertools.islice(itertools.cycle(texts), int(warmups) + int(repeats)):
    begin = time.perf_counter()
    ids = np.array([tokenizer.encode(text).ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    hidden = session.run(["last_hidden_state"], feed)[0]
    vector = hidden.mean(1)
    vector /= np.linalg.norm(vector)
    times.append((time.perf_counter() - begin) * 1000)
print(json.dumps(statistics.median(times[int(warmups):])))
"""


def worker(folder: Path, repeats: int, threads: int) -> float:
    """Median latency that the worker reports."""
    job = Job(
        variant=str(folder),
        task="feature-extraction",
        target="laptop",
        threads=threads,
        warmups=WARMUPS,
        repeats=repeats,
        seed=SEED,
        rows=tuple(read_rows(LINES)),
    )
    samples = local.run(job, progress=silent).samples
    return statistics.median(next(sample for sample in samples if sample.metric == "latency").values)


def main() -> None:
    """Print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--repeats", type=int, default=400)
    parser.add_argument("--threads", type=int, default=cores())
    options = parser.parse_args()
    [variant] = variants("onnx:fp32")
    folder = variant.path.resolve()
    numbers = (str(number) for number in (options.threads, WARMUPS, options.repeats, SEED))
    arguments = (str(folder), str(LINES), *numbers)
    sides = {
        "edgeml worker": lambda: worker(folder, options.repeats, options.threads),
        "bare loop": lambda: child(BARE, *arguments),
    }
    samples = interleaved(sides, options.rounds)
    ratio(samples, "edgeml worker", "bare loop", unit="ms", goal="at most 1.03")


if __name__ == "__main__":
    main()
