"""A process of its own that exports and quantizes, so that the exporter's memory, threads and prints end with it.

Run as `python -m edgeml.formats.onnx.child ORDER`, a file. Says `@done/total step` as it goes, `=` with an Answer at
the end, and `!` with a Refusal when the user's files are at fault. Writes the graphs and `tokenizer.json` into the
order's folder, and leaves the export, which takes longest, in the shared one for the next scheme.
"""

from __future__ import annotations

import gc
import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.choice import Work
from edgeml.formats.onnx.export import (
    export_classifier,
    export_decoder,
    export_encoder,
    export_tagger,
    write_tokenizer,
)
from edgeml.formats.onnx.fuse import fuse, split_skip_norms
from edgeml.formats.onnx.graph import load, plain, save, settle, split_heads
from edgeml.formats.onnx.image import export_image, lookups_of_positions, products_of_patches
from edgeml.formats.onnx.order import Answer, Order
from edgeml.formats.onnx.schemes import make
from edgeml.formats.onnx.seq2seq import GRAPHS, PAIRS, export_seq2seq
from edgeml.formats.onnx.speech import export_speech, lookups_of_places, products_of_frames
from edgeml_runtime.records import encode, read_record
from edgeml_runtime.session import Kind
from edgeml_runtime.types import Refusal

STEPS = 4
WEIGHTS = "model.onnx"
EXPORTS: dict[Kind, Callable[[Path, Path], None]] = {
    "encoder": export_encoder,
    "classifier": export_classifier,
    "tagger": export_tagger,
    "image": export_image,
    "speech": export_speech,
    "decoder": export_decoder,
    "seq2seq": export_seq2seq,
}


def convert(order: Order) -> Answer:
    """Do all the steps in order; graphs on the way lie in a scratch folder."""
    source, folder = Path(order.source), Path(order.folder)
    if order.kind != "image":
        say(0, STEPS, "read the tokenizer")
        write_tokenizer(_folder(source), folder / "tokenizer.json")
    say(1, STEPS, "load and export")
    exports = _exported(source, Path(order.shared) / "export", order.kind)
    with tempfile.TemporaryDirectory(dir=folder, prefix="scratch-") as name:
        settings = {} if order.only_export else _graphs(order, exports, Path(name))
    if not order.only_export:
        say(STEPS, STEPS, "audit")  # by the parent
    calibrated = order.calibration is not None and order.scheme not in ("fp32", "fp16")
    return Answer(settings=settings, calibrated=calibrated)


def _graphs(order: Order, exports: dict[str, Path], scratch: Path) -> dict[str, Any]:
    """Write the graphs into the order's folder; their settings, by their names where there are several."""
    settings: dict[str, dict[str, Any]] = {}
    reads: Work | None = None
    for file_name, exported in exports.items():
        own = scratch / file_name
        own.mkdir()
        shape = partial(_shaped, exported, own, source=Path(order.source), kind=order.kind)
        work = Work(order, file_name, shape, own, say, reads)
        made = make(work)
        settle(made.path, Path(order.folder) / file_name)
        _check_loads(Path(order.folder) / file_name)
        settings[file_name], reads = made.settings, work
    found = {name: one for name, one in settings.items() if one}
    return found if len(exports) > 1 else found.get(WEIGHTS, {})


def _exported(source: Path, goal: Path, kind: Kind) -> dict[str, Path]:
    """The graphs that a model of this kind consists of, by the names that they will have."""
    if source.is_file():
        return {WEIGHTS: source.resolve()}  # onnx reads no weights beside a graph through links
    if not goal.exists():
        part = goal.with_name("export.part")
        EXPORTS[kind](source, part)
        gc.collect()  # the exporter's cycles would keep the model's weights in memory
        part.rename(goal)
    return {name: goal / name for name in (GRAPHS.values() if kind in PAIRS else (WEIGHTS,))}


def _shaped(exported: Path, scratch: Path, *, source: Path, kind: Kind, small: bool) -> Path:
    """The graph, cleaned, and for a scheme that makes it small as a quantizer knows it."""
    say(2, STEPS, "fuse")
    if kind in ("encoder", "classifier", "tagger"):
        return fuse(exported, scratch, heads=_heads(_folder(source)))
    model = plain(load(exported))
    if small and kind == "image":
        products_of_patches(model)
        lookups_of_positions(model)
        split_skip_norms(model)
    elif small:
        split_heads(model)
        if kind == "speech":
            products_of_frames(model)
            lookups_of_places(model)
    path = scratch / ("small.onnx" if small else "plain.onnx")
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


def say(done: int, total: int, step: str) -> None:
    """Tell the parent how far the work is."""
    sys.stderr.write(f"@{done}/{total} {step}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        answer = convert(read_record(Path(sys.argv[1]), Order))
    except EdgemlError as error:
        sys.exit("!" + encode(Refusal(message=error.message, hint=error.hint)))
    sys.stderr.write(f"={encode(answer)}\n")
