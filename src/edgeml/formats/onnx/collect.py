"""Running a graph with its activations as outputs, slice by slice, so that a memory limit holds.

What bounds the peak: what is resident once a graph is open, what counting needs, which is known, and of the rest a half
for the outputs of one run and a half for what the graph needs itself on the way. Outputs that do not fit beside each
other are had by further runs over all inputs, and no more inputs are stacked than fit.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml.formats.onnx.graph import load, replace
from edgeml.formats.onnx.inputs import Reader
from edgeml.formats.onnx.ranges import CHUNK, SIDE, Histogram, Tick, count

if TYPE_CHECKING:
    import onnxruntime as ort

ROOM_BYTES = 1_000_000_000  # beyond what is resident, where the user set no limit
_SHARES = 2
_COUNTING_BYTES = 32 * CHUNK  # values, places and bins of a chunk, and what numpy makes between
_BINS_BYTES = 16 * SIDE  # of one tensor's histogram
_STACKED = 16  # more inputs at once are hardly faster
_FLOAT_BYTES = 4
_MMAP_THRESHOLD = -3  # glibc's name for it in malloc.h: M_MMAP_THRESHOLD
_BLOCK_BYTES = 128 * 1024  # where glibc begins


class _Space(NamedTuple):
    """How much one run's outputs may take, and the longest input."""

    bytes: int
    longest: int


def collect(
    graph: Path, tensors: Sequence[str], reader: Reader, *, limit_bytes: int | None, scratch: Path, tick: Tick
) -> dict[str, Histogram]:
    """A histogram of each of these floating-point values of the graph over all inputs.

    Raises EdgemlError where the limit holds not even the largest of them, and where a value is no finite number.
    """
    if limit_bytes is not None:
        _return_freed_blocks()
    bare = _without_weights(graph, scratch)
    session = _opened(bare, tensors)
    sizes = _sizes(session, max(reader.lengths))
    space = _Space(_room_bytes(limit_bytes, len(sizes)) // _SHARES, max(reader.lengths))
    del session
    groups = _groups(sizes, space.bytes, limit_bytes)
    found = {name: Histogram() for name in sizes}
    for number, group in enumerate(groups):
        session = _opened(bare, group)
        each = sum(sizes[name] for name in group) / space.longest
        done = 0
        for feeds in _fitting(reader, each, space):
            count(found, group, session.run(group, feeds))
            done += len(next(iter(feeds.values())))
            tick(number * len(reader.lengths) + done, len(groups) * len(reader.lengths))
    return found


def resident_bytes() -> int:
    """What this process holds in memory; where the system does not tell, the most that it held so far."""
    if sys.platform == "win32":
        from edgeml_runtime.windows import peak_working_set_bytes

        return peak_working_set_bytes() or 0
    import resource

    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def _return_freed_blocks() -> None:
    """Have the C library return large blocks when they are freed, as it does until a program has freed many.

    glibc raises that size as it goes, and activations of many sizes then leave gaps: half as much again was seen.
    """
    if sys.platform == "linux":
        import ctypes

        library = ctypes.CDLL(None)
        if hasattr(library, "mallopt"):
            library.mallopt(_MMAP_THRESHOLD, _BLOCK_BYTES)


def _fitting(reader: Reader, token_bytes: float, space: _Space) -> Any:
    """Batches whose outputs fit into the space: the more inputs, the shorter they are."""
    for length in sorted(set(reader.lengths)):
        rows = [row for row, own in enumerate(reader.lengths) if own == length]
        fit = int(space.bytes / max(1.0, token_bytes * length))
        yield from reader.chosen(rows).stacked(max(1, min(_STACKED, fit)))


def _room_bytes(limit_bytes: int | None, tensors: int) -> int:
    if limit_bytes is None:
        return ROOM_BYTES
    held = resident_bytes() + _COUNTING_BYTES + tensors * _BINS_BYTES
    if held >= limit_bytes:
        alone = f"the model with its libraries takes {held / 1e6:.0f} MB"
        message = f"--memory allows {limit_bytes / 1e6:.0f} MB, and {alone}"
        raise EdgemlError(message, hint="allow more")
    return limit_bytes - held


def _groups(sizes: dict[str, int], most: int, limit_bytes: int | None) -> list[list[str]]:
    largest = max(sizes.values(), default=0)
    if largest > most and limit_bytes is not None:
        needed = (limit_bytes + _SHARES * (largest - most)) / 1e6
        message = f"--memory allows {limit_bytes / 1e6:.0f} MB, and the largest activation needs {needed:.0f} MB"
        raise EdgemlError(message, hint="allow more, or give shorter texts")
    groups: list[list[str]] = [[]]
    for name, size in sizes.items():
        if groups[-1] and sum(sizes[one] for one in groups[-1]) + size > most:
            groups.append([])
        groups[-1].append(name)
    return groups


def _without_weights(graph: Path, scratch: Path) -> Path:
    """The graph with its weights in one file beside it, which every slice's graph then shares."""
    import onnx

    folder = scratch / "slices"
    folder.mkdir()
    path = folder / "bare.onnx"
    model = load(graph)
    onnx.save_model(model, path, save_as_external_data=True, location="weights.data", size_threshold=1024)
    return path


def _opened(bare: Path, tensors: Sequence[str]) -> ort.InferenceSession:
    """A session whose outputs are these values, and which gives its memory back after each run."""
    import onnxruntime as ort
    from onnx import ValueInfoProto

    from edgeml_runtime.machine import default_threads

    model = load(bare, weights=False)
    replace(model.graph.output, [ValueInfoProto(name=name) for name in tensors])
    path = bare.with_name("slice.onnx")
    path.write_bytes(model.SerializeToString())
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = default_threads(), 3
    options.enable_cpu_mem_arena = options.enable_mem_pattern = False
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _sizes(session: ort.InferenceSession, longest: int) -> dict[str, int]:
    """Bytes of each floating-point output for one input of that length."""
    return {
        item.name: _FLOAT_BYTES * prod(_length(axis, place, longest) for place, axis in enumerate(item.shape))
        for item in session.get_outputs()
        if item.type == "tensor(float)"
    }


def _length(axis: Any, place: int, longest: int) -> int:
    if isinstance(axis, int):
        return axis
    return 1 if place == 0 else longest  # the first axis that is free is the batch
