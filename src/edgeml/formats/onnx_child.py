"""A process of its own that exports and quantizes, so that the exporter's memory, threads and prints end with it.

Run as `python -m edgeml.formats.onnx_child SOURCE FOLDER encoder|decoder SCHEME KERNELS`. Says `@done/total step` as it
goes. Writes `model.onnx` and `tokenizer.json` into FOLDER.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.formats.onnx_export import export_decoder, export_encoder, write_tokenizer
from edgeml.formats.onnx_graph import fused_for_int8, load, plain, save
from edgeml.formats.onnx_int8 import write_int8

if TYPE_CHECKING:
    from onnx import ModelProto

STEPS = 4


def convert(source: Path, folder: Path, *, kind: str, scheme: str, kernels: str) -> None:
    """Do all the steps in order; the fp32 graph of an int8 variant lies in a scratch folder."""
    target = folder / "model.onnx"
    with tempfile.TemporaryDirectory(dir=folder, prefix="fp32-") as scratch:
        say(0, "load and export")
        exported = _exported(source, Path(scratch), kind)
        say(2, "fuse")
        write_tokenizer(_folder(source), folder / "tokenizer.json")
        if scheme == "fp32":
            save(plain(load(exported)), target)
        else:
            fused = Path(scratch) / "fused.onnx"
            save(_prepared(exported, kind, source), fused)
            say(3, "quantize")
            write_int8(fused, target, kernels)
    say(STEPS, "export and quantize")


def _exported(source: Path, scratch: Path, kind: str) -> Path:
    if source.is_file():
        return source
    return export_encoder(source, scratch) if kind == "encoder" else export_decoder(source, scratch)


def _prepared(exported: Path, kind: str, source: Path) -> ModelProto:
    if kind == "decoder":
        return plain(load(exported), split_heads=True)
    config = json.loads((_folder(source) / "config.json").read_text(encoding="utf-8"))
    return fused_for_int8(exported, heads=config.get("num_attention_heads") or config["n_heads"])


def _folder(source: Path) -> Path:
    return source if source.is_dir() else source.parent


def say(done: int, step: str) -> None:
    """Tell the parent how far the work is."""
    sys.stderr.write(f"@{done}/{STEPS} {step}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    source, folder, kind, scheme, kernels = sys.argv[1:]
    convert(Path(source), Path(folder), kind=kind, scheme=scheme, kernels=kernels)
