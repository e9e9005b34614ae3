"""What a compiled library needs and what instructions it holds, read from the file itself.

Layout: System V ABI, chapters 4 and 5, and Linux Standard Base Core 5.0, 10.7 (symbol versions); instructions: Arm
Architecture Reference Manual, DDI 0487, C7.2 (SDOT, UDOT, by element and vector).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from edgeml_runtime.types import Record

MAGIC = b"\x7fELF\x02\x01"  # 64 bits, little-endian
AARCH64, X86_64 = 183, 62  # e_machine
_PROGBITS, _DYNAMIC, _VERNEED = 1, 6, 0x6FFFFFFE  # sh_type
_EXECUTABLE = 4  # sh_flags
_NEEDED = 1  # d_tag
_LOAD = 1  # p_type
# (mask, value) of SDOT and UDOT, first as vectors, then by element; the masks leave out registers, index and Q.
_DOT_PRODUCTS = (
    (0xBFE0FC00, 0x0E809400),
    (0xBFE0FC00, 0x2E809400),
    (0xBFC0F400, 0x0F80E000),
    (0xBFC0F400, 0x2F80E000),
)


class Library(Record, frozen=True, kw_only=True):
    """One shared library: `machine` is its ELF number, `glibc` the oldest that has every symbol that it asks for.

    `needs` are the libraries that it wants loaded with it. `page_bytes` is the largest memory page with which it loads.
    `dot_products` counts its SDOT and UDOT instructions, 0 on any machine but AArch64.
    """

    machine: int
    glibc: tuple[int, int]
    needs: tuple[str, ...]
    page_bytes: int
    dot_products: int


class _Section(NamedTuple):
    """Elf64_Shdr, in its own order."""

    name: int
    kind: int
    flags: int
    address: int
    offset: int
    size: int
    link: int
    about: int
    align: int
    entry_size: int


def read_library(content: bytes) -> Library:
    """What a shared library says of itself. Raises ValueError for any file but a whole 64-bit little-endian ELF."""
    if not content.startswith(MAGIC):
        raise ValueError("no 64-bit library")
    try:
        (machine,) = struct.unpack_from("<H", content, 18)
        sections = _sections(content)
        wanted = tuple(_versions(content, sections))
        return Library(
            machine=machine,
            glibc=max((found for name in wanted if (found := _glibc(name))), default=(0, 0)),
            needs=tuple(_needed(content, sections)),
            page_bytes=min(_alignments(content)),
            dot_products=sum(map(dot_products, _code(content, sections))) if machine == AARCH64 else 0,
        )
    except (struct.error, IndexError, ValueError) as error:
        raise ValueError("a broken library") from error


def dot_products(code: bytes) -> int:
    """How many SDOT and UDOT instructions are in AArch64 machine code."""
    import numpy as np

    words = np.frombuffer(code[: len(code) // 4 * 4], "<u4")
    return sum(int(np.count_nonzero((words & mask) == value)) for mask, value in _DOT_PRODUCTS)


def _alignments(content: bytes) -> list[int]:
    (start,) = struct.unpack_from("<Q", content, 32)
    entry_size, count = struct.unpack_from("<HH", content, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", content, start + entry_size * i) for i in range(count)]
    return [align for kind, *_, align in headers if kind == _LOAD]


def _sections(content: bytes) -> list[_Section]:
    (start,) = struct.unpack_from("<Q", content, 40)
    entry_size, count = struct.unpack_from("<HH", content, 58)
    return [_Section(*struct.unpack_from("<IIQQQQIIQQ", content, start + entry_size * i)) for i in range(count)]


def _code(content: bytes, sections: list[_Section]) -> Iterator[bytes]:
    for one in sections:
        if one.kind == _PROGBITS and one.flags & _EXECUTABLE:
            yield content[one.offset : one.offset + one.size]


def _needed(content: bytes, sections: list[_Section]) -> Iterator[str]:
    for one in sections:
        if one.kind == _DYNAMIC:
            for tag, value in struct.iter_unpack("<QQ", content[one.offset : one.offset + one.size]):
                if tag == _NEEDED:
                    yield _text(content, sections[one.link].offset + value)


def _versions(content: bytes, sections: list[_Section]) -> Iterator[str]:
    """The symbol versions that it asks other libraries for, such as `GLIBC_2.17`."""
    for one in sections:
        place = one.offset
        for _ in range(one.about if one.kind == _VERNEED else 0):
            count, _, aside, following = struct.unpack_from("<HIII", content, place + 2)
            inner = place + aside
            for _ in range(count):
                name, step = struct.unpack_from("<II", content, inner + 8)
                yield _text(content, sections[one.link].offset + name)
                inner += step
            place += following


def _glibc(name: str) -> tuple[int, int] | None:
    family, _, number = name.partition("_")
    major, _, minor = number.partition(".")
    if family != "GLIBC" or not major.isdigit():
        return None
    return int(major), int(minor.partition(".")[0])


def _text(content: bytes, start: int) -> str:
    return content[start : content.index(b"\0", start)].decode()
