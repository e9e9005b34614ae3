"""A process of its own that exports and quantizes, so that the exporter's memory, threads and prints end with it.

Run as `python -m edgeml.formats.onnx_child SOURCE FOLDER encoder|decoder SCHEME KERNELS`. Says `@done/total step` as it
goes, and `!` with a Refusal when the user's files are at fault. Writes `model.onnx` and `tokenizer.json` into FOLDER.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats.onnx_export import export_decoder, export_encoder, write_tokenizer
from edgeml.formats.onnx_fuse import fuse
from edgeml.formats.onnx_graph import load, plain, save, split_heads
from edgeml.formats.onnx_int8 import write_int8
from edgeml_runtime.records import encode
from edgeml_runtime.types import Refusal

STEPS = 4


def convert(source: Path, folder: Path, *, kind: str, scheme: str, kernels: str) -> None:
    """Do all the steps in order; the fp32 graph of an int8 variant lies in a scratch folder."""
    say(0, "read the tokenizer")
    write_tokenizer(_folder(source), folder / "tokenizer.json")
    target = folder / "model.onnx"
    with tempfile.TemporaryDirectory(dir=folder, prefix="fp32-") as scratch:
        say(1, "load and export")
        exported = _exported(source, Path(scratch), kind)
        say(2, "fuse")
        if scheme == "fp32":
            save(plain(load(exported)), target)
        else:
            prepared = _prepared(exported, Path(scratch), kind, source)
            say(3, "quantize")
            write_int8(prepared, Path(scratch) / "int8.onnx", kernels)
            save(load(Path(scratch) / "int8.onnx"), target)
    _check_loads(target)
    say(STEPS, "done")


def _exported(source: Path, scratch: Path, kind: str) -> Path:
    if source.is_file():
        return source
    goal = scratch / "export"
    return export_encoder(source, goal) if kind == "encoder" else export_decoder(source, goal)


def _prepared(exported: Path, scratch: Path, kind: str, source: Path) -> Path:
    if kind == "encoder":
        config = json.loads((_folder(source) / "config.json").read_text(encoding="utf-8"))
        prepared = fuse(exported, scratch, heads=config.get("num_attention_heads") or config.get("n_heads"))
    else:
        prepared = scratch / "plain.onnx"
        save(split_heads(plain(load(exported))), prepared)
    shutil.rmtree(scratch / "export", ignore_errors=True)
    return prepared


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
    source, folder, kind, scheme, kernels = sys.argv[1:]
    try:
        convert(Path(source), Path(folder), kind=kind, scheme=scheme, kernels=kernels)
    except EdgemlError as error:
        sys.exit("!" + encode(Refusal(message=error.message, hint=error.hint)))
