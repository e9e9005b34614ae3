"""The processor and its memory, in one shape whatever the system."""

from __future__ import annotations

from edgeml_runtime.types import Record


class Chip(Record, frozen=True, kw_only=True):
    """What a system tells of its processor; what it does not tell is absent.

    `features` are the instruction sets that matter to integer kernels, by Linux' names. `performance_cores` and
    `efficiency_cores` are those that this process may use of a processor that has both kinds. `device` is the maker's
    name for the machine, `emulator` what runs this process on another processor.
    """

    cpu: str | None = None
    features: tuple[str, ...] = ()
    memory_bytes: int | None = None
    performance_cores: int | None = None
    efficiency_cores: int | None = None
    device: str | None = None
    emulator: str | None = None
