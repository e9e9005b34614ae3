"""The header of a safetensors file: how many numbers it holds, and whether the file is whole. Reads no weights.

Source: https://github.com/huggingface/safetensors#format (8 bytes of length, JSON, then the tensors back to back).
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError

_MAX_HEADER_BYTES = 100_000_000  # the format's own limit


def parameters(path: Path) -> int:
    """How many numbers a safetensors file holds.

    Raises EdgemlError when it is no such file or is cut off (naming the expected and the real size).
    """
    header, start = _read(path)
    try:
        tensors = [tensor for name, tensor in header.items() if name != "__metadata__"]
        end = start + max((int(tensor["data_offsets"][1]) for tensor in tensors), default=0)
        count = sum(int(math.prod(tensor["shape"])) for tensor in tensors)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise _foreign(path) from error
    size = path.stat().st_size
    if size != end:
        raise EdgemlError(f"{path} has {size} bytes, its header promises {end}", hint="download it again")
    return count


def _read(path: Path) -> tuple[dict[str, Any], int]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            text = file.read(length) if length <= _MAX_HEADER_BYTES else b""
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error
    if text and len(text) < length:
        message = f"{path} is cut off: it has {len(text) + 8} bytes and ends inside its header"
        raise EdgemlError(message, hint="download it again")
    try:
        header = json.loads(text)
    except ValueError as error:
        raise _foreign(path) from error
    if not isinstance(header, dict):
        raise _foreign(path)
    return header, 8 + length


def _foreign(path: Path) -> EdgemlError:
    return EdgemlError(f"{path} is not a safetensors file", hint="download it again")
