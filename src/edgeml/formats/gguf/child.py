"""A process of its own that calls `llama_model_quantize`, because llama.cpp may end the process that calls it.

Run as `python -m edgeml.formats.gguf.child JOB`, the path of a JSON file with a QuantizeJob. llama.cpp's own log goes
to stderr.
"""

from __future__ import annotations

import ctypes
import re
import signal
import sys
from pathlib import Path
from typing import Any

from edgeml.formats.gguf.header import TENSOR_TYPES
from edgeml_runtime.records import decode
from edgeml_runtime.types import Record

BUFFER_BYTES = 64 << 20  # rows of one tensor are worked on in slices of this size, whatever the tensor's own


class QuantizeJob(Record, frozen=True, kw_only=True):
    """What to write where. `matrix` is the file of an importance matrix; `types` are ggml's, by whole tensor names."""

    source: str
    target: str
    ftype: int
    requantize: bool = False
    matrix: str | None = None
    types: dict[str, str] = {}


def quantize(job: QuantizeJob) -> int:
    """llama.cpp's return code: 0 when the target was written."""
    from edgeml_runtime.backends.gguf_model import library

    llama = library()
    # An empty pointer means llama.cpp's own printing. The package's callback would print through Python, and with
    # the default answers to these signals the process ends at once, with its parent or with the user's Ctrl-C.
    llama.llama_log_set(llama.llama_log_callback(), ctypes.c_void_p())
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    llama.llama_backend_init()
    options = llama.llama_model_quantize_default_params()
    options.ftype = job.ftype
    options.allow_requantize = job.requantize
    options.max_buf_size = BUFFER_BYTES
    if job.matrix:
        options.imatrix = _matrix(llama, Path(job.matrix))
    if job.types:
        options.tt_overrides = _overrides(llama, job.types)
    code: int = llama.llama_model_quantize(job.source.encode(), job.target.encode(), ctypes.byref(options))
    return code


def _overrides(llama: Any, types: dict[str, str]) -> Any:
    """llama.cpp's list, which ends with an empty one. It takes patterns: the names are made to fit themselves alone."""
    numbers = {type.name: number for number, type in TENSOR_TYPES.items()}
    made = [llama.llama_model_tensor_override(f"^{re.escape(n)}$".encode(), numbers[t]) for n, t in types.items()]
    return (llama.llama_model_tensor_override * (len(made) + 1))(*made)


def _matrix(llama: Any, path: Path) -> Any:
    """llama.cpp's list, which ends with an empty one, of what each column weighs."""
    from edgeml.formats.gguf.matrix import read_matrix

    made = []
    for name, entry in read_matrix(path).entries.items():
        values: Any = entry.importance.ravel()
        floats = (ctypes.c_float * values.size).from_buffer(values)  # which keeps `values` alive
        first = ctypes.cast(floats, ctypes.POINTER(ctypes.c_float))
        made.append(llama.llama_model_imatrix_data(name.encode(), first, values.size))
    return (llama.llama_model_imatrix_data * (len(made) + 1))(*made)


if __name__ == "__main__":
    sys.exit(quantize(decode(Path(sys.argv[1]).read_bytes(), QuantizeJob, where="the job")))
