"""Devices as text: those that have a name, and what one of them says of itself."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from edgeml.render.tables import Column, size, table
from edgeml.targets.types import Device, Probe

_MARGIN = 14


def devices(found: Sequence[Device], width: int) -> list[str]:
    """A table of names."""
    columns = [
        Column(title="device", cells=tuple(one.name for one in found)),
        Column(title="host", cells=tuple(one.host for one in found)),
        Column(title="target", cells=tuple(one.target or "not known" for one in found)),
    ]
    return [table(columns, width)]


def probes(found: Sequence[Probe], width: int) -> list[str]:
    """Each fact on a line."""
    return ["\n".join(line for name, text in _facts(one) for line in _line(name, text, width)) for one in found]


def _line(name: str, text: str | None, width: int) -> list[str]:
    indent = " " * _MARGIN
    return textwrap.wrap(text or "", width, initial_indent=f"{name:<{_MARGIN}}", subsequent_indent=indent)


def _facts(one: Probe) -> list[tuple[str, str | None]]:
    memory = _joined(_size(one.memory_bytes), _size(one.memory_available_bytes, "available"))
    kind = _joined(
        one.machine, f"{one.userland_bits}-bit programs", f"emulated by {one.emulator}" if one.emulator else None
    )
    throttled = None if one.throttled is None else ", ".join(one.throttled) or "no, and not since it started"
    return [
        ("model", one.model),
        ("machine", kind),
        ("system", _joined(one.release, one.system, one.libc)),
        ("cores", None if one.cores is None else str(one.cores)),
        ("memory", memory),
        ("free disk", _size(one.disk_free_bytes)),
        ("Python", ", ".join(one.pythons)),
        ("governor", one.governor),
        ("throttled", throttled),
    ]


def _size(amount: int | None, word: str = "") -> str | None:
    return None if amount is None else f"{size(amount)} {word}".strip()


def _joined(*parts: str | None) -> str | None:
    return ", ".join(part for part in parts if part) or None
