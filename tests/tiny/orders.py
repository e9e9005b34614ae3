"""A conversion to ONNX in this process, since PyTorch takes long to load in another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeml.formats.onnx import child as onnx_child
from edgeml.formats.onnx.order import Answer, Order


def convert(source: Path, folder: Path, shared: Path, **fields: Any) -> Answer:
    """What the child that makes graphs does for such an order, for a processor without VNNI."""
    places = {"source": str(source), "folder": str(folder), "shared": str(shared)}
    return onnx_child.convert(Order(**places, **{"kernels": "x86-64-avx2", **fields}))
