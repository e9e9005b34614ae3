"""A process of its own that computes an importance matrix, because llama.cpp may end the process that runs a model.

Run as `python -m edgeml.formats.gguf.matrix_child JOB`, the path of a JSON file with a MatrixJob. Says `@done/total`
as it goes, and `!` with a Refusal when the text or the model is at fault.

What is summed is what `llama-imatrix` sums (`tools/imatrix/imatrix.cpp`): the squares of what each matrix of a block is
multiplied with, on texts joined and cut into chunks. An encoder, which that tool does not take, reads each text by
itself, as many as a chunk has room for at a time. Sums are of 64 bits here, of 32 there.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.matrix import Entry, Matrix, write_matrix
from edgeml_runtime.records import decode, encode
from edgeml_runtime.types import Record, Refusal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from edgeml_runtime.backends.gguf_model import Context, Ids, Model

CHUNK_TOKENS = 512  # as llama-imatrix does by default
LEAST_CHUNKS = 2  # as llama-imatrix asks for
_MOST_SEQUENCES = 64  # of an encoder's texts at a time; llama.cpp allows 256


class MatrixJob(Record, frozen=True, kw_only=True):
    """What to run, on which texts, and where to leave the matrix; `name` is the data's, which the file records."""

    model: str
    texts: tuple[str, ...]
    name: str
    target: str
    threads: int
    encoder: bool


class _Tensor(ctypes.Structure):
    """`ggml_tensor` of `ggml.h`, as of llama-cpp-python 0.3.36; `_check_layout` holds it to the library that runs."""


_Tensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.POINTER(_Tensor) * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
]


class Collector:
    """Adds up, in a context's `cb_eval`, the squares of what each matrix of a block is multiplied with."""

    def __init__(self, lib: Any, ggml: Any) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        self.counts: dict[str, NDArray[np.int64]] = {}
        self.problem: EdgemlError | None = None
        self.callback = lib.ggml_backend_sched_eval_callback(self._called)
        self._ggml = ggml
        self._names: dict[int, bytes] = {}

    def _called(self, pointer: int, ask: bool, _: object) -> bool:  # noqa: FBT001 C's own order
        """Whether this node's inputs are wanted; then, whether to go on."""
        try:
            return self.problem is None and self._node(ctypes.cast(pointer, ctypes.POINTER(_Tensor)).contents, ask=ask)
        except EdgemlError as error:
            self.problem = error  # C knows no exceptions: who runs the context raises it
            return False

    def _node(self, node: _Tensor, *, ask: bool) -> bool:
        if node.op not in self._names:
            _check_layout(self._ggml, node)
            self._names[node.op] = self._ggml.ggml_op_name(node.op)
        kind = self._names[node.op]
        if kind not in (b"MUL_MAT", b"MUL_MAT_ID"):
            return not ask
        matrix, inputs = node.src[0].contents, node.src[1].contents
        name = _plain_name(matrix.name.decode())
        wanted = inputs.type == 0 and name.startswith("blk.")
        if wanted and not ask:
            self._add(name, matrix, inputs, node.src[2].contents if kind == b"MUL_MAT_ID" else None)
        return wanted or not ask

    def _add(self, name: str, matrix: _Tensor, inputs: _Tensor, ids: _Tensor | None) -> None:
        import numpy as np

        values = np.square(self._read(inputs, np.float32))
        experts = int(matrix.ne[2] * matrix.ne[3])
        sums = self.sums.setdefault(name, np.zeros((experts, inputs.ne[0])))
        counts = self.counts.setdefault(name, np.zeros(experts, np.int64))
        if ids is None:
            # The matrix that i2 and i3 are multiplied with, repeated where there are fewer of them.
            for i3, block in enumerate(values):
                for i2, rows in enumerate(block):
                    at = (i3 % matrix.ne[3]) * matrix.ne[2] + i2 % matrix.ne[2]
                    sums[at] += rows.sum(axis=0, dtype=np.float64)
                    counts[at] += len(rows)
        else:
            chosen = self._read(ids, np.int32)[0, 0]  # an expert for each token and place
            for place in range(chosen.shape[1]):
                np.add.at(sums, chosen[:, place], values[0, :, place % values.shape[2]])
                np.add.at(counts, chosen[:, place], 1)
        if not np.isfinite(sums).all():
            hint = "its weights may hold NaN, or the text drives them out of their range"
            raise EdgemlError(f"the inputs of {name} are not finite on this text", hint=hint)

    def matrix(self, chunks: int, chunk_tokens: int, name: str) -> Matrix:
        """What was added up, as a file keeps it."""
        entries = {
            key: Entry(self.sums[key].astype("<f4"), self.counts[key].astype("<f4")) for key in sorted(self.sums)
        }
        return Matrix(entries=entries, chunks=chunks, chunk_tokens=chunk_tokens, datasets=(name,))

    def _read(self, tensor: _Tensor, kind: Any) -> NDArray[Any]:
        """A copy of a tensor's numbers in numpy's order of axes, wherever they lie."""
        import numpy as np

        raw = np.empty(self._ggml.ggml_nbytes(ctypes.byref(tensor)), np.uint8)
        self._ggml.ggml_backend_tensor_get(ctypes.byref(tensor), raw.ctypes.data, 0, raw.size)
        shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
        return np.lib.stride_tricks.as_strided(raw.view(kind), shape, strides)


def compute(job: MatrixJob) -> None:
    """Write the matrix of a model on texts. Raises EdgemlError where the texts are too short, or sums not finite."""
    from edgeml_runtime.backends.gguf_model import Context, Model, library

    model = Model(Path(job.model), gpu=False)
    chunk = min(CHUNK_TOKENS, model.trained_tokens)
    batches = _whole_texts(model, job.texts, chunk) if job.encoder else _chunks(model, job.texts, chunk)
    collector = Collector(model.lib, _ggml(library("_ggml")))
    settings = {"n_batch": chunk, "n_ubatch": chunk, "n_threads": job.threads, "n_threads_batch": job.threads}
    if job.encoder:
        settings |= {"n_seq_max": _MOST_SEQUENCES, "kv_unified": True, "embeddings": True}
    context = Context(model, chunk, cb_eval=collector.callback, pooling_type=0, **settings)
    context.batch.outputs[:] = 1  # else the last block would be computed for the last token alone
    for done, batch in enumerate(batches, 1):
        _run(context, batch)
        if collector.problem:
            raise collector.problem
        say(done, len(batches))
    write_matrix(Path(job.target), collector.matrix(len(batches), chunk, job.name))


def _chunks(model: Model, texts: Sequence[str], size: int) -> list[list[Ids]]:
    """The joined texts in parts of so many tokens, each beginning as the model's texts do; the rest is left out."""
    tokens = model.tokenize("\n".join(texts), add_special=True)
    _check_enough(len(tokens), size)
    found = [tokens[start : start + size] for start in range(0, len(tokens) - size + 1, size)]
    if model.lib.llama_vocab_get_add_bos(model.vocabulary):
        for chunk in found:
            chunk[0] = model.lib.llama_vocab_bos(model.vocabulary)
    return [[chunk] for chunk in found]


def _whole_texts(model: Model, texts: Sequence[str], size: int) -> list[list[Ids]]:
    """The texts one by one, cut to what fits, as many of them together as there is room for."""
    batches: list[list[Ids]] = []
    room, total = 0, 0
    for text in texts:
        row = model.tokenize(text, add_special=True)
        if len(row) > size:
            row[size - 1] = row[-1]  # the mark of its end
            row = row[:size]
        if len(row) > room or len(batches[-1]) == _MOST_SEQUENCES:
            batches.append([])
            room = size
        batches[-1].append(row)
        room -= len(row)
        total += len(row)
    _check_enough(total, size)
    return batches


def _check_enough(tokens: int, size: int) -> None:
    if tokens < LEAST_CHUNKS * size:
        message = f"the calibration text has {tokens} tokens, and an importance matrix needs {LEAST_CHUNKS * size}"
        raise EdgemlError(message, hint="give more text like that which the model will read")


def _run(context: Context, rows: Sequence[Ids]) -> None:
    context.forget()
    count = 0
    for sequence, row in enumerate(rows):
        count = context.batch.put(row, at=count, sequence=sequence)
    context.run(count)


def _plain_name(name: str) -> str:
    """`blk.0.attn_k.weight` of `CUDA0#blk.0.attn_k.weight#0`, as a copy on a device is called."""
    return name.split("#")[1] if "#" in name else name


def _ggml(module: Any) -> Any:
    """The library of ggml's own functions, which libllama has loaded already, with their signatures."""
    from llama_cpp._ctypes_extensions import load_shared_library

    base = load_shared_library("ggml-base", module.libggml_base_path)
    base.ggml_op_name.restype = ctypes.c_char_p
    for name in ("ggml_get_name", "ggml_get_data"):
        getattr(base, name).restype = ctypes.c_void_p
    base.ggml_nbytes.restype = ctypes.c_size_t
    base.ggml_backend_tensor_get.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    return base


def _check_layout(ggml: Any, node: _Tensor) -> None:
    """Raise EdgemlError where the installed library keeps its tensors in another way than `_Tensor` says."""
    at = ctypes.byref(node)
    same = ggml.ggml_get_name(at) == ctypes.addressof(node) + _Tensor.name.offset
    if not (same and ggml.ggml_get_data(at) == node.data and ggml.ggml_nbytes(at) >= node.nb[0]):
        hint = "compute it with llama-imatrix, and give its file: --imatrix FILE"
        raise EdgemlError("edgeml cannot read the tensors of the installed llama-cpp-python", hint=hint)


def say(done: int, total: int) -> None:
    """Tell the parent how far the work is."""
    sys.stderr.write(f"@{done}/{total}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    try:
        compute(decode(Path(sys.argv[1]).read_bytes(), MatrixJob, where="the job"))
    except EdgemlError as error:
        sys.exit("!" + encode(Refusal(message=error.message, hint=error.hint)))
