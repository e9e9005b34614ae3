"""How long the command line takes to answer: whole processes of `edgeml --help` and `edgeml list`, against bare Python.

    python benchmarks/startup.py [--rounds 10]

Goals: `--help` under 0.3 s and `list` under 0.5 s on an idle laptop; the ratio to a bare interpreter carries over to
other machines.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from common import interleaved, ratio, store

COMMANDS = {
    "edgeml --help": ["-m", "edgeml", "--help"],
    "edgeml list": ["-m", "edgeml", "list", "--artifacts", str(store().root)],
    "python -c pass": ["-c", "pass"],
}


def wall_s(arguments: list[str]) -> float:
    """Seconds of one whole process."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - begin


def main() -> None:
    """Print both ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=10)
    sides = {name: lambda words=words: wall_s(words) for name, words in COMMANDS.items()}
    samples = interleaved(sides, parser.parse_args().rounds)
    ratio(samples, "edgeml --help", "python -c pass", unit="s", goal="under 0.3 s")
    ratio(samples, "edgeml list", "python -c pass", unit="s", goal="under 0.5 s")


if __name__ == "__main__":
    main()
