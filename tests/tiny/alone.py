"""A bundle's own runtime, in a process that has no workshop: neither edgeml nor what makes models can be imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_ALONE = """
import runpy, sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "edgeml", "onnx", "optimum")))  # an import of these fails
sys.path.insert(0, ".")
sys.argv = ["edgeml_runtime", *sys.argv[1:]]
runpy.run_module("edgeml_runtime", run_name="__main__")
"""


def alone(bundle: Path, *arguments: str) -> str:
    """What it prints; it must not fail."""
    command = [sys.executable, "-P", "-c", _ALONE, *arguments]
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
