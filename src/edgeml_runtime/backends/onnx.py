"""Running ONNX variants: which module opens one, and what those modules share.

Tokenizers for text, ONNX Runtime for the graph, numpy around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import Kind, kind_of
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Session


# Which module's `open_variant` loads a variant, by the kind of its task.
_MODULES: dict[Kind, str] = {
    "encoder": "onnx_encoder",
    "classifier": "onnx_classifier",
    "tagger": "onnx_classifier",
    "image": "onnx_image",
    "speech": "onnx_speech",
    "decoder": "onnx_decoder",
    "seq2seq": "onnx_seq2seq",
}


def open_variant(
    folder: Path,
    manifest: VariantManifest,
    *,
    threads: int,
    threads_prefill: int | None = None,  # noqa: ARG001 - ONNX Runtime has one number for all
    gpu: bool | None = None,  # noqa: ARG001 - none is used
) -> Session:
    """Load what an ONNX variant consists of."""
    module = import_module(f"edgeml_runtime.backends.{_MODULES[kind_of(manifest.task)]}")
    return cast("Session", module.open_variant(folder, manifest, threads=threads))


def accelerator(*, gpu: bool | None) -> None:
    """None: the CPU provider alone, whose kernels are those of every device that a variant is shipped to.

    Core ML knows none of a quantized graph's integer operators, and would compile the rest anew: that would be another
    model. Source: onnxruntime.ai/docs/execution-providers/CoreML-ExecutionProvider.html, supported operators.
    """


def open_graph(path: Path, *, threads: int) -> ort.InferenceSession:
    """A session on the CPU provider, silent but for errors."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except library_errors() as error:
        raise EdgemlError(f"cannot load {path.name}: {_first_line(error)}", hint="make the variant again") from error


def open_tokenizer(path: Path) -> Tokenizer:
    """A tokenizer that neither pads nor truncates: both are the session's business."""
    if not path.is_file():
        raise EdgemlError(f"{path} is missing", hint="make the variant again")
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises bare ones
        raise EdgemlError(f"cannot read {path.name}: {_first_line(error)}", hint="make the variant again") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def library_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises for a graph or an input that it does not take; they have no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


class TextGraph:
    """A graph over token ids with its tokenizer, which cuts a text to `manifest.max_tokens`."""

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession, tokenizer: Tokenizer) -> None:
        self.manifest = manifest
        self._session = session
        self._counter = tokenizer
        self._tokenizer = Tokenizer.from_str(tokenizer.to_str())
        self._tokenizer.enable_truncation(manifest.max_tokens)
        self._inputs = [item.name for item in session.get_inputs()]
        self._output = [session.get_outputs()[0].name]

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its arena with it."""
        del self._session

    def _run(self, rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
        """The graph's first output for rows of token ids, and the mask of their padding."""
        ids, mask = padded(rows)
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        return self._session.run(self._output, {name: feeds[name] for name in self._inputs})[0], mask


def padded(rows: Sequence[Sequence[int]]) -> tuple[Any, Any]:
    """Token ids and mask `(len(rows), longest)`, padded on the right to the longest row and never further.

    The padding's id does not matter: no model here lets a token see what the mask hides, and positions are counted
    from the left. Raises EdgemlError for a text without a single token.
    """
    if not all(rows):
        raise EdgemlError("a text has no tokens", hint="leave empty texts out")
    if len(rows) == 1:
        ids = np.array(rows, dtype=np.int64)
        return ids, np.ones_like(ids)
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _first_line(error: Exception) -> str:
    reason = str(error).strip().splitlines()[0]
    return reason.rpartition(" failed:")[2][:200]  # before it, ONNX Runtime repeats the path
