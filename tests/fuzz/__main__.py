"""A longer run than the tests': `python -m fuzz gguf onnx --count 20000 --seed 7`, in tests/. Faulty files are kept."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from time import monotonic

from fuzz.readers import READERS
from fuzz.running import faults


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("readers", nargs="*", default=list(READERS), metavar="READER")
    parser.add_argument("--count", type=int, default=2000, help="cases a reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="a folder for the files that made a reader fail")
    parser.add_argument("--most", type=int, default=5, help="different faults after which a reader is left")
    asked = parser.parse_args()
    bad = 0
    for name in asked.readers:
        began, found = monotonic(), {}
        with tempfile.TemporaryDirectory() as scratch:
            for fault in faults(READERS[name], Path(scratch), count=asked.count, seed=asked.seed):
                kind = fault.what.partition(":")[0] + fault.what.rpartition("(")[2]
                if kind not in found:
                    found[kind] = fault
                    _say(f"  {name} case {fault.case}: {fault.what}")
                    if asked.keep:
                        asked.keep.mkdir(parents=True, exist_ok=True)
                        (asked.keep / f"{asked.seed}-{fault.case}-{READERS[name].name}").write_bytes(fault.content)
                if len(found) >= asked.most:
                    break
        bad += len(found)
        _say(f"{name}: {asked.count} cases, {len(found)} faults, {monotonic() - began:.1f} s")
    return int(bad > 0)


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
