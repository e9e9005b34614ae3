"""What a conversion needs of the disk and of memory, asked before it starts: a refusal now, not a killed process later.

Knows nothing of any format; what is needed is for the formats to say.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.sources.headers import stored_numbers
from edgeml.types import Model
from edgeml_runtime.meters.sysfs import number, text

_FLOAT_BYTES = 4
_WIDENED = 2  # a file whose numbers cannot be counted holds halves at the least


def full_bytes(model: Model) -> int:
    """Bytes of a model's weights in 32 bits: counted in safetensors, at most twice the size of a pickle.

    An ONNX file is taken to be in 32 bits.
    """
    if model.format == "onnx":
        return model.size_bytes
    if model.format != "safetensors":
        return model.size_bytes * _WIDENED
    files = [file.path for file in model.files if file.path.endswith(".safetensors")]
    return _FLOAT_BYTES * sum(stored_numbers(Path(model.path, name)) for name in files)


def need_disk(folder: Path, need_bytes: float) -> None:
    """Raise EdgemlError where the disk of `folder` has less free than that."""
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        message = f"not enough space in {folder.parent}: {_size(need_bytes)} needed, {_size(free_bytes)} free"
        raise EdgemlError(message, hint="free some space, or write elsewhere with --artifacts")


def need_memory(need_bytes: float, *, what: str, hint: str, system: Path = Path("/")) -> None:
    """Raise EdgemlError where less memory than that can be had; nothing where the system does not tell (macOS)."""
    free_bytes = available_bytes(system)
    if free_bytes is not None and need_bytes > free_bytes:
        needs = f"{what} needs about {_size(need_bytes)} of memory"
        raise EdgemlError(f"{needs}, {_size(free_bytes)} are available", hint=hint)


def available_bytes(system: Path = Path("/")) -> int | None:
    """Memory that programs can have now, swap included, within the limit of the control group; None if not told.

    Source: proc(5), MemAvailable and SwapFree of meminfo; memory.max, memory.current and inactive_file, which can be
    given back, of control groups v2, as a container sees its own.
    """
    said = _lines(system / "proc/meminfo")
    if "MemAvailable:" not in said:
        return None
    free_bytes = (said["MemAvailable:"] + said.get("SwapFree:", 0)) * 1024
    group = system / "sys/fs/cgroup"
    limit, used = number(group / "memory.max"), number(group / "memory.current")
    if limit is None or used is None:
        return free_bytes
    return min(free_bytes, max(0, limit - used + _lines(group / "memory.stat").get("inactive_file", 0)))


def _lines(path: Path) -> dict[str, int]:
    words = (line.split() for line in (text(path) or "").splitlines())
    return {one[0]: int(one[1]) for one in words if len(one) > 1 and one[1].isdecimal()}


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
