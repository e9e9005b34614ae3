"""How a text may look where somebody kept it: the spellings that are searched for."""

from __future__ import annotations

import base64
import struct
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote

_PART = 8  # characters; a shorter piece of a mark may stand in a file by chance
FORMS = (
    "utf-8 (any case, and parts of 8 characters)",
    "utf-16le",
    "utf-16be",
    "JSON escapes",
    "percent-encoding",
    "quoted-printable",
    "HTML references",
    "base64 (of utf-8 and utf-16le, at any place)",
    "base32",
    "hexadecimal",
    "backwards",
    "token ids (as text, 32 and 64 bits)",
    "sha256, sha1 and md5 of the whole input (plain or of its JSON)",
)


class Pattern(NamedTuple):
    """Bytes to look for. `folded` ones are in small letters, and any case of them counts."""

    form: str
    content: bytes
    folded: bool = True


def spellings(text: str) -> Iterator[Pattern]:
    """Every form of a text that does not depend on what stands before or after it."""
    for whole in dict.fromkeys((unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text))):
        yield from _spelled(whole.lower())
        yield from _coded(whole)


def parts(text: str) -> Iterator[Pattern]:
    """The text's pieces of eight characters in utf-8: whoever keeps only the beginning, or the end, keeps one."""
    for start in range(max(1, len(text) - _PART + 1)):
        yield Pattern("a part in utf-8", text[start : start + _PART].lower().encode())


def token_ids(ids: Sequence[int]) -> Iterator[Pattern]:
    """A list of token ids as programs write one."""
    for between in (", ", ",", " ", "\n", ",\n"):
        yield Pattern("token ids as text", between.join(map(str, ids)).encode())
    for size, name in (("i", "32"), ("q", "64")):
        yield Pattern(f"token ids in {name} bits", struct.pack(f"<{len(ids)}{size}", *ids), folded=False)


def distinct(patterns: Iterable[Pattern]) -> tuple[Pattern, ...]:
    """Each of the bytes once, under the first name."""
    found: dict[tuple[bytes, bool], Pattern] = {}
    for one in patterns:
        found.setdefault((one.content, one.folded), one)
    return tuple(found.values())


def _spelled(text: str) -> Iterator[Pattern]:
    plain = text.encode()
    yield Pattern("utf-8", plain)
    yield Pattern("utf-8, backwards", text[::-1].encode())
    yield Pattern("utf-16le", text.encode("utf-16le"))
    yield Pattern("utf-16be", text.encode("utf-16be"))
    yield Pattern("hexadecimal", plain.hex().encode())
    yield Pattern("hexadecimal", plain.hex(" ").encode())
    yield Pattern("hexadecimal of utf-16le", text.encode("utf-16le").hex().encode())
    yield Pattern("JSON escapes", _escaped(text).encode())
    yield Pattern("JSON escapes", "".join(f"\\u{ord(one):04x}" for one in text).encode())
    yield Pattern("percent-encoding", quote(text, safe="").lower().encode())
    yield Pattern("percent-encoding", "".join(f"%{byte:02x}" for byte in plain).encode())
    yield Pattern("quoted-printable", "".join(_printable(byte) for byte in plain).lower().encode())
    yield Pattern("bytes of Python's repr", "".join(_repr(byte) for byte in plain).lower().encode())
    yield Pattern("HTML references", "".join(f"&#{ord(one)};" if ord(one) > 127 else one for one in text).encode())
    for place in range(5):
        yield Pattern("base32", _core(plain, place, 5, 8, base64.b32encode).lower())


def _coded(text: str) -> Iterator[Pattern]:
    for name, plain in (("base64", text.encode()), ("base64 of utf-16le", text.encode("utf-16le"))):
        for place in range(3):
            inner = _core(plain, place, 3, 4, base64.b64encode)
            yield Pattern(name, inner, folded=False)
            yield Pattern(name, inner.translate(bytes.maketrans(b"+/", b"-_")), folded=False)


def _core(plain: bytes, place: int, group: int, letters: int, code: object) -> bytes:
    """The encoding of a text that begins at a place within a group of bytes, without what its neighbours decide."""
    coded: bytes = code(bytes(place) + plain)  # type: ignore[operator] # one of base64's functions
    bits = 8 * group // letters
    first, last = -(-8 * place // bits), 8 * (place + len(plain)) // bits
    return coded[first:last]


def _escaped(text: str) -> str:
    return "".join(f"\\u{ord(one):04x}" if ord(one) > 127 else one for one in text)


def _printable(byte: int) -> str:
    return chr(byte) if 32 < byte < 127 and byte != 61 else f"={byte:02X}"


def _repr(byte: int) -> str:
    return chr(byte) if 31 < byte < 127 else f"\\x{byte:02x}"
