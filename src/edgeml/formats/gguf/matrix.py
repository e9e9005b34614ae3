"""Importance matrices as llama.cpp keeps them: how large the inputs of each matrix are, column by column.

Reads both of its forms, the GGUF of today and the older `.dat`, and writes today's (`tools/imatrix/imatrix.cpp`,
`common/imatrix-loader.cpp`); what the sums mean to the quantizer is `load_imatrix` of `tools/quantize/quantize.cpp`.
A file comes from outside, so that its lengths are checked before anything is kept. Starts nothing.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import Header, read_header

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SUMS, _COUNTS = ".in_sum2", ".counts"
_LONGEST_NAME = 1024
_FLOOR = 1e-6  # of the mean: a block of columns without any importance would be stored as zeros
_AGAIN = "make it again: edgeml quantize --calibration FILE, or llama-imatrix"


class Entry(NamedTuple):
    """The inputs of one tensor: `sums` of their squares, a row each matrix (expert), and how many were `counts`-ed."""

    sums: NDArray[np.float32]
    counts: NDArray[np.float32]

    @property
    def importance(self) -> NDArray[np.float32]:
        """What the quantizer weighs columns by: mean squares, and 1 for an expert that no token came to.

        Columns without any input weigh a millionth of the mean rather than nothing.
        """
        import numpy as np

        seen = (self.counts > 0) & (self.sums.max(axis=1) > 0)
        means = np.ones_like(self.sums)
        np.divide(self.sums, self.counts[:, None], out=means, where=seen[:, None])
        floor = means.mean(axis=1, keepdims=True) * np.float32(_FLOOR)
        weights: NDArray[np.float32] = np.maximum(means, floor).astype(np.float32)
        return weights

    @property
    def unseen(self) -> int:
        """How many of its matrices got no input at all."""
        return int(((self.counts <= 0) | (self.sums.max(axis=1) <= 0)).sum())


class Matrix(NamedTuple):
    """An importance matrix by the tensors' names, and what it was computed on."""

    entries: dict[str, Entry]
    chunks: int = 0
    chunk_tokens: int = 0
    datasets: tuple[str, ...] = ()

    @property
    def unseen(self) -> dict[str, int]:
        """The tensors with experts that no token came to, and how many those are."""
        return {name: entry.unseen for name, entry in self.entries.items() if entry.unseen}


def read_matrix(path: Path) -> Matrix:
    """The importance matrix in a file of llama.cpp's. Raises EdgemlError where it holds none, or one without sense."""
    try:
        with path.open("rb") as file:
            is_gguf = file.read(4) == b"GGUF"
        found = _read_gguf(path) if is_gguf else _read_dat(path)
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    for name, entry in found.entries.items():
        _check_finite(name, entry, str(path))
    return found


def write_matrix(path: Path, matrix: Matrix) -> None:
    """Write today's form, the tensors in the order of their names, as `llama-imatrix` does."""
    import gguf

    writer = gguf.GGUFWriter(path, "")  # of no architecture
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", list(matrix.datasets))
    writer.add_uint32("imatrix.chunk_count", matrix.chunks)
    writer.add_uint32("imatrix.chunk_size", matrix.chunk_tokens)
    for name, entry in sorted(matrix.entries.items()):
        writer.add_tensor(name + _SUMS, entry.sums)
        writer.add_tensor(name + _COUNTS, entry.counts[:, None])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def check_fits(matrix: Matrix, header: Header, where: str) -> None:
    """Raise EdgemlError where the matrix is not one of the model with that header."""
    known = [tensor for tensor in header.tensors if tensor.name in matrix.entries]
    if not known:
        raise EdgemlError(f"{where} is of another model: it has none of its tensors", hint=_AGAIN)
    for tensor in known:
        found, wanted = matrix.entries[tensor.name].sums.size, tensor.columns * math.prod(tensor.shape[2:])
        if found != wanted:
            message = f"{where} is of another model: {found} values for {tensor.name}, not {wanted}"
            raise EdgemlError(message, hint=_AGAIN)


def _check_finite(name: str, entry: Entry, where: str) -> None:
    import numpy as np

    if not (np.isfinite(entry.sums).all() and np.isfinite(entry.counts).all() and (entry.sums >= 0).all()):
        message = f"{where} has values for {name} that are no sums of squares (not finite, or negative)"
        raise EdgemlError(message, hint=_AGAIN)


def _read_gguf(path: Path) -> Matrix:
    header = read_header(path, arrays=("imatrix.datasets",))
    tensors = {tensor.name: tensor for tensor in header.tensors}
    names = [name.removesuffix(_SUMS) for name in tensors if name.endswith(_SUMS)]
    if not names:
        raise EdgemlError(f"{path} holds no importance matrix", hint=_AGAIN)
    entries = {}
    for name in names:
        pair = [tensors.get(name + ending) for ending in (_SUMS, _COUNTS)]
        parts = [_floats(path, one) for one in pair if one and one.type.name == "F32"]
        if len(parts) < 2 or parts[0].size % parts[1].size:
            raise EdgemlError(f"{path} is damaged: sums and counts of {name} do not belong together", hint=_AGAIN)
        entries[name] = Entry(parts[0].reshape(parts[1].size, -1), parts[1])
    return Matrix(
        entries=entries,
        chunks=int(header.metadata.get("imatrix.chunk_count", 0)),
        chunk_tokens=int(header.metadata.get("imatrix.chunk_size", 0)),
        datasets=tuple(header.metadata.get("imatrix.datasets", ())),
    )


def _floats(path: Path, tensor: Any) -> NDArray[np.float32]:
    import numpy as np

    return np.fromfile(path, "<f4", tensor.parameters, offset=tensor.offset)


def _read_dat(path: Path) -> Matrix:
    """The older form: a count, then names, calls and means times calls; then the chunks and the data's name."""
    import numpy as np

    raw = memoryview(path.read_bytes())
    place = 0

    def take(count: int) -> memoryview:
        nonlocal place
        if count < 0 or count > len(raw) - place:
            raise EdgemlError(f"{path} is no importance matrix of llama.cpp's, or is cut off", hint=_AGAIN)
        place += count
        return raw[place - count : place]

    def number(limit: int) -> int:
        found: int = struct.unpack("<i", take(4))[0]
        return found if 0 <= found <= limit else len(take(-1))

    entries = {}
    for _ in range(number(len(raw) // 12)):
        name = bytes(take(number(_LONGEST_NAME))).decode("utf-8", errors="replace")
        calls, size = number(2**31 - 1), number(len(raw) // 4)
        sums = np.frombuffer(take(4 * size), "<f4").reshape(1, -1)
        if not size or name in entries:
            take(-1)
        entries[name] = Entry(sums, np.array([max(1, calls)], np.float32))
    if not entries:
        take(-1)
    chunks = number(2**31 - 1) if place < len(raw) else 0
    data = bytes(take(number(len(raw)))).decode("utf-8", errors="replace") if place < len(raw) else ""
    return Matrix(entries=entries, chunks=chunks, datasets=(data,) if data else ())
