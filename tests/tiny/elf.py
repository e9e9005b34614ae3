"""Shared libraries of a few hundred bytes, with the parts that say what a library needs and holds."""

from __future__ import annotations

import struct
from collections.abc import Sequence

SDOT = 0x4E829420  # sdot v0.4s, v1.16b, v2.16b
NOP = 0xD503201F
AARCH64, X86_64 = 183, 62
_PROGBITS, _STRTAB, _DYNAMIC, _VERNEED = 1, 3, 6, 0x6FFFFFFE


def library(
    words: Sequence[int] = (NOP,),
    *,
    machine: int = AARCH64,
    glibc: Sequence[str] = ("GLIBC_2.17",),
    needs: Sequence[str] = ("libc.so.6",),
    page_bytes: int = 1 << 16,
) -> bytes:
    """A 64-bit library with this code, which asks the first of `needs` for symbols of the versions in `glibc`."""
    strings, places = b"\0", {}
    for text in (*glibc, *needs):
        places[text] = len(strings)
        strings += text.encode() + b"\0"
    dynamic = b"".join(struct.pack("<QQ", 1, places[name]) for name in needs) + struct.pack("<QQ", 0, 0)
    asked = struct.pack("<HHIII", 1, len(glibc), places[needs[0]], 16, 0)
    for number, name in enumerate(glibc):
        asked += struct.pack("<IHHII", 0, 0, 0, places[name], 16 if number + 1 < len(glibc) else 0)
    sections = [  # type, flags, content, link, info
        (0, 0, b"", 0, 0),
        (_PROGBITS, 4, b"".join(struct.pack("<I", word) for word in words), 0, 0),
        (_PROGBITS, 0, struct.pack("<I", SDOT), 0, 0),  # no code: constants may look like instructions
        (_STRTAB, 0, strings, 0, 0),
        (_DYNAMIC, 0, dynamic, 3, 0),
        (_VERNEED, 0, asked, 3, 1),
    ]
    return _laid_out(sections, machine, page_bytes)


def _laid_out(sections: Sequence[tuple[int, int, bytes, int, int]], machine: int, page_bytes: int) -> bytes:
    headers = b""
    body = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 64, 64, page_bytes)  # a PT_LOAD segment
    for kind, flags, content, link, about in sections:
        headers += struct.pack("<IIQQQQIIQQ", 0, kind, flags, 0, 64 + len(body), len(content), link, about, 0, 0)
        body += content
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    rest = struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 64 + len(body), 0, 64, 56, 1, 64, len(sections), 0)
    return ident + rest + body + headers
