"""A process of its own that exports and quantizes, so that the exporter's memory, threads and prints end with it.

Run as `python -m edgeml.formats.onnx_child SOURCE FOLDER SHARED KIND SCHEME KERNELS`. Says
`@done/total step` as it goes, and `!` with a Refusal when the user's files are at fault. Writes `model.onnx` and
`tokenizer.json` into FOLDER, and leaves the export, which takes longest, in SHARED for the next scheme.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import cast

from edgeml.errors import EdgemlError
from edgeml.formats.onnx_export import EXPORTS, write_tokenizer
from edgeml.formats.onnx_fuse import fuse
from edgeml.formats.onnx_graph import load, plain, save, split_heads
from edgeml.formats.onnx_int8 import write_int8
from edgeml_runtime.records import encode
from edgeml_runtime.session import Kind
from edgeml_runtime.types import Refusal

STEPS = 4


def convert(source: Path, folder: Path, shared: Path, *, kind: Kind, scheme: str, kernels: str) -> None:
    """Do all the steps in order; graphs on the way lie in a scratch folder."""
    say(0, "read the tokenizer")
    write_tokenizer(_folder(source), folder / "tokenizer.json")
    target = folder / "model.onnx"
    with tempfile.TemporaryDirectory(dir=folder, prefix="scratch-") as name:
        scratch = Path(name)
        say(1, "load and export")
        exported = _exported(source, shared / "export", kind)
        say(2, "fuse")
        if kind == "decoder":
            made = _cleaned(exported, scratch, copy_head=scheme == "int8")
        else:
            made = fuse(exported, scratch, heads=_heads(_folder(source)))
        if scheme == "int8":
            say(3, "quantize")
            made = write_int8(made, scratch / "int8.onnx", kernels)
        save(load(made), target)
    _check_loads(target)
    say(STEPS, "done")


def _exported(source: Path, goal: Path, kind: Kind) -> Path:
    if source.is_file():
        return source.resolve()  # onnx reads no weights beside a graph through links
    if not goal.exists():
        part = goal.with_name("export.part")
        EXPORTS[kind](source, part)
        part.rename(goal)
    return goal / "model.onnx"


def _cleaned(exported: Path, scratch: Path, *, copy_head: bool) -> Path:
    model = plain(load(exported))
    path = scratch / "plain.onnx"
    save(split_heads(model) if copy_head else model, path)
    return path


def _heads(folder: Path) -> int | None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    found: int | None = config.get("num_attention_heads") or config.get("n_heads")
    return found


def _check_loads(target: Path) -> None:
    from edgeml_runtime.backends.onnx import open_graph

    try:
        open_graph(target, threads=1)
    except EdgemlError as error:
        raise EdgemlError(error.message, hint="start from the model's safetensors folder, or try gguf:") from error


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def say(done: int, step: str) -> None:
    """Tell the parent how far the work is."""
    sys.stderr.write(f"@{done}/{STEPS} {step}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    source, folder, shared, kind, scheme, kernels = sys.argv[1:]
    try:
        convert(Path(source), Path(folder), Path(shared), kind=cast("Kind", kind), scheme=scheme, kernels=kernels)
    except EdgemlError as error:
        sys.exit("!" + encode(Refusal(message=error.message, hint=error.hint)))
