"""The int8 ONNX variant of all-MiniLM-L6-v2 against the one that optimum makes, on the same texts.

    python benchmarks/int8_optimum.py [--rounds 5]

optimum-onnx lives in an environment of its own (`peers/optimum.txt`), made on the first run; its model is exported and
quantized by its own command, with the preset for this processor, per channel. Both files are then run by this
environment's ONNX Runtime with the same options, one text at a time over the recipe's lines, in fresh processes in
turn. Timed: the graph alone. Goal: at most 0.95 of optimum's latency.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
from pathlib import Path

from common import LINES, interleaved, model, ratio, store, variants

from edgeml_runtime.machine import cores, cpu_features

PINS = Path(__file__).parent / "peers" / "optimum.txt"
TIMED = """
import csv, json, statistics, sys, time
import numpy as np, onnxruntime as ort
from tokenizers import Tokenizer
path, tokens, lines, threads = sys.argv[1:]
options = ort.SessionOptions()
options.intra_op_num_threads, options.inter_op_num_threads, options.log_severity_level = int(threads), 1, 3
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
tokenizer = Tokenizer.from_file(tokens)
names = {item.name for item in session.get_inputs()}
output = [next(item.name for item in session.get_outputs() if item.name == "last_hidden_state")]
feeds = []
for row in csv.DictReader(open(lines, encoding="utf-8")):
    ids = np.array([tokenizer.encode(row["text"]).ids], dtype=np.int64)
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    feeds.append({name: value for name, value in feed.items() if name in names})
times = []
for feed in [*feeds[:50], *feeds]:
    begin = time.perf_counter()
    session.run(output, feed)
    times.append((time.perf_counter() - begin) * 1000)
print(json.dumps(statistics.median(times[50:])))
"""


def preset() -> str:
    """Optimum's name for this processor."""
    features = cpu_features()
    if "avx512_vnni" in features:
        return "--avx512_vnni"
    return "--arm64" if "asimd" in features else "--avx2"


def optimum_model() -> Path:
    """The file that optimum makes, with its folder in the benchmarks' cache."""
    folder = store().root.parent / "optimum"
    python, made = folder / "env" / "bin" / "python", folder / "int8" / "model_quantized.onnx"
    if not python.exists():
        venv.create(folder / "env", with_pip=True)
    if not made.exists():
        quiet = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", str(PINS)]
        subprocess.run(quiet, check=True, stdout=sys.stderr)
        cli = folder / "env" / "bin" / "optimum-cli"
        export = [
            str(cli),
            "export",
            "onnx",
            "--model",
            model().path,
            "--task",
            "feature-extraction",
            str(folder / "fp32"),
        ]
        subprocess.run(export, check=True, stdout=sys.stderr)
        quantize = ["onnxruntime", "quantize", "--onnx_model", str(folder / "fp32"), preset(), "--per_channel"]
        subprocess.run([str(cli), *quantize, "-o", str(folder / "int8")], check=True, stdout=sys.stderr)
    return made


def main() -> None:
    """Print the ratio."""
    from common import child

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    [variant] = variants("onnx:int8")
    tokenizer, ours, theirs = variant.path / "tokenizer.json", variant.path / "model.onnx", optimum_model()
    sides = {
        "edgeml onnx:int8": lambda: child(TIMED, str(ours), str(tokenizer), str(LINES), str(cores())),
        f"optimum {preset()} --per_channel": lambda: child(
            TIMED, str(theirs), str(tokenizer), str(LINES), str(cores())
        ),
    }
    first, second = sides
    print(f"  files: {ours.stat().st_size / 1e6:.1f} MB against {theirs.stat().st_size / 1e6:.1f} MB")
    ratio(interleaved(sides, rounds), first, second, unit="ms", goal="at most 0.95")


if __name__ == "__main__":
    main()
