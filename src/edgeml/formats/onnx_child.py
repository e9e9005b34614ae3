"""A process of its own that exports and quantizes, so that the exporter's memory, threads and prints end with it.

Run as `python -m edgeml.formats.onnx_child SOURCE FOLDER SHARED KIND SCHEME KERNELS`. Says
`@done/total step` as it goes, and `!` with a Refusal when the user's files are at fault. Writes the graphs and
`tokenizer.json` into FOLDER, and leaves the export, which takes longest, in SHARED for the next scheme.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import cast

from edgeml.errors import EdgemlError
from edgeml.formats.onnx_export import (
    export_classifier,
    export_decoder,
    export_encoder,
    export_tagger,
    write_tokenizer,
)
from edgeml.formats.onnx_fuse import fuse, split_skip_norms
from edgeml.formats.onnx_graph import load, plain, save, split_heads
from edgeml.formats.onnx_image import export_image, lookups_of_positions, products_of_patches
from edgeml.formats.onnx_int8 import write_int8
from edgeml.formats.onnx_seq2seq import GRAPHS, export_seq2seq
from edgeml_runtime.records import encode
from edgeml_runtime.session import Kind
from edgeml_runtime.types import Refusal

STEPS = 4
WEIGHTS = "model.onnx"
EXPORTS: dict[Kind, Callable[[Path, Path], None]] = {
    "encoder": export_encoder,
    "classifier": export_classifier,
    "tagger": export_tagger,
    "image": export_image,
    "decoder": export_decoder,
    "seq2seq": export_seq2seq,
}


def convert(source: Path, folder: Path, shared: Path, *, kind: Kind, scheme: str, kernels: str) -> None:
    """Do all the steps in order; graphs on the way lie in a scratch folder."""
    if kind != "image":
        say(0, "read the tokenizer")
        write_tokenizer(_folder(source), folder / "tokenizer.json")
    say(1, "load and export")
    for file_name, exported in _exported(source, shared / "export", kind).items():
        with tempfile.TemporaryDirectory(dir=folder, prefix="scratch-") as name:
            say(2, "fuse")
            made = _shaped(exported, Path(name), source=source, kind=kind, scheme=scheme)
            if scheme == "int8":
                say(3, "quantize")
                made = write_int8(made, Path(name) / "int8.onnx", kernels)
            save(load(made), folder / file_name)
        _check_loads(folder / file_name)
    say(STEPS, "done")


def _exported(source: Path, goal: Path, kind: Kind) -> dict[str, Path]:
    """The graphs that a model of this kind consists of, by the names that they will have."""
    if source.is_file():
        return {WEIGHTS: source.resolve()}  # onnx reads no weights beside a graph through links
    if not goal.exists():
        part = goal.with_name("export.part")
        EXPORTS[kind](source, part)
        part.rename(goal)
    return {name: goal / name for name in (GRAPHS.values() if kind == "seq2seq" else (WEIGHTS,))}


def _shaped(exported: Path, scratch: Path, *, source: Path, kind: Kind, scheme: str) -> Path:
    """The graph, cleaned, and as its scheme needs it."""
    if kind in ("encoder", "classifier", "tagger"):
        return fuse(exported, scratch, heads=_heads(_folder(source)))
    model = plain(load(exported))
    if scheme == "int8" and kind == "image":
        products_of_patches(model)
        lookups_of_positions(model)
        split_skip_norms(model)
    elif scheme == "int8":
        split_heads(model)
    path = scratch / "plain.onnx"
    save(model, path)
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
