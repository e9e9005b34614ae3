"""Ways to spoil a good file. All draw from the `Random` that they are given, so that one seed gives one file."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from copy import deepcopy
from random import Random
from typing import Any

DEEP = "[" * 50_000 + "]" * 50_000
_LENGTHS = (0, 1, 0x7F, 0xFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
_WIDTHS = {"<B": 1, "<H": 2, "<I": 4, "<Q": 8, ">I": 4, ">Q": 8}
_DEEP_PLACE = "edgeml:deep"
_HUGE_PLACE = "edgeml:huge"
_HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 2**64, 10**30, 1e308, -0.5, float("nan"), float("inf"),
    "", " ", "x", "\0", "\x1b[31mred", "\ud800", "é" * 300, "x" * 100_000, "../../etc/passwd", "/etc/passwd", "-rf",
    [], {}, [[]], [None], {"": None}, {"a": {"a": {"a": 1}}}, [1] * 3000, _DEEP_PLACE, _HUGE_PLACE,
)  # fmt: skip


def spoiled(seed: bytes, random: Random) -> bytes:
    """A file with one to four things wrong: bits, bytes, lengths, parts that are missing, repeated or out of place."""
    content = bytearray(seed)
    for _ in range(random.choice((1, 1, 1, 2, 4))):
        random.choice(_BINARY)(content, random)
    return bytes(content)


def spoiled_text(seed: bytes, random: Random) -> bytes:
    """A text file with a line, a word or a character wrong; at times what `spoiled` makes of it."""
    if random.random() < 0.3:
        return spoiled(seed, random)
    lines = seed.split(b"\n")
    place = random.randrange(len(lines))
    strange = random.choice(_WORDS)
    spot = random.randrange(len(lines[place]) + 1)
    match random.randrange(5):
        case 0:
            lines[place] = strange
        case 1:
            lines[place] = lines[place][:spot] + strange + lines[place][spot:]
        case 2:
            lines.insert(place, lines[random.randrange(len(lines))])
        case 3:
            head, mark, _ = lines[place].partition(b":")
            lines[place] = head + mark + b" " + strange
        case _:
            del lines[place]
    return b"\n".join(lines)


def spoiled_json(plain: Any, random: Random) -> bytes:
    """JSON with one to three values replaced, dropped, repeated or moved; at times what `spoiled` makes of it."""
    text = json.dumps(plain)
    if random.random() < 0.15:
        return spoiled(text.encode(), random)
    plain = json.loads(text)
    for _ in range(random.choice((1, 1, 2, 3))):
        plain = _with_change(plain, random)
    text = json.dumps(plain).replace(f'"{_DEEP_PLACE}"', DEEP).replace(f'"{_HUGE_PLACE}"', "9" * 6000)
    return text.encode()


def _with_change(plain: Any, random: Random) -> Any:
    places = list(_places(plain))
    if not places:
        return deepcopy(random.choice(_HOSTILE))
    box, key = random.choice(places)
    match random.randrange(6):
        case 0:
            del box[key]
        case 1 if isinstance(box, dict):
            box[random.choice(("", "schema", "\ud800", "x" * 500, f"{key}x"))] = box[key]
        case 2:
            other, of = random.choice(places)
            box[key] = json.loads(json.dumps(other[of])) if of in other or isinstance(of, int) else None
        case 3 if isinstance(box[key], (int, float)):
            box[key] = random.choice((-box[key], box[key] * 2**40, box[key] + 0.5, str(box[key])))
        case _:
            box[key] = deepcopy(random.choice(_HOSTILE))
    return plain


def _places(plain: Any) -> Any:
    if isinstance(plain, dict):
        for key, value in plain.items():
            yield plain, key
            yield from _places(value)
    elif isinstance(plain, list):
        for key, value in enumerate(plain):
            yield plain, key
            yield from _places(value)


def _flip_bits(content: bytearray, random: Random) -> None:
    for _ in range(random.choice((1, 1, 3, 30))):
        if content:
            content[_place(content, random)] ^= 1 << random.randrange(8)


def _other_bytes(content: bytearray, random: Random) -> None:
    if content:
        place = _place(content, random)
        content[place : place + 4] = random.choice((b"\0", b"\xff", random.randbytes(4)))


def _cut(content: bytearray, random: Random) -> None:
    del content[random.randrange(len(content) + 1) :]


def _extend(content: bytearray, random: Random) -> None:
    content += random.choice((b"\0", b"\n", random.randbytes(7), bytes(5000), b"PK\x03\x04"))


def _drop(content: bytearray, random: Random) -> None:
    place = _place(content, random)
    del content[place : place + random.choice((1, 4, 8, 100))]


def _repeat(content: bytearray, random: Random) -> None:
    place = _place(content, random)
    size = random.choice((1, 8, 64, 512))
    content[place:place] = content[place : place + size]


def _swap(content: bytearray, random: Random) -> None:
    first, second = sorted((_place(content, random), _place(content, random)))
    content[first : first + 8], content[second : second + 8] = content[second : second + 8], content[first : first + 8]


def _other_length(content: bytearray, random: Random) -> None:
    """Where something looks like a small number, it is likely to be a length, a count or an offset."""
    form = random.choice(tuple(_WIDTHS))
    width = _WIDTHS[form]
    for _ in range(20):
        place = _place(content, random)
        if place + width <= len(content) and struct.unpack_from(form, content, place)[0] < 1 << 20:
            limit = 1 << 8 * width
            number = random.choice((*_LENGTHS, len(content), random.randrange(limit)))
            struct.pack_into(form, content, place, number % limit)
            return


def _place(content: bytearray, random: Random) -> int:
    """Mostly near the beginning, where the headers are."""
    if not content:
        return 0
    return random.randrange(min(len(content), random.choice((64, 512, 4096, len(content)))))


_BINARY: tuple[Callable[[bytearray, Random], None], ...] = (
    _flip_bits,
    _other_bytes,
    _cut,
    _extend,
    _drop,
    _repeat,
    _swap,
    _other_length,
    _other_length,
)
_WORDS = (
    b"",
    b"\0",
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"&a [*a, *a]",
    b"*b",
    b"{",
    b"[" * 400,
    b"- " * 3000,
    b"!!python/object:os.system x",
    b"!!binary x",
    b"!!int x",
    b"!!float x",
    b"!!timestamp x",
    b"0x",
    b"0b",
    b"1:99",
    b"=",
    b"<<: 1",
    b"? [a, b]\n: c",
    b".nan",
    b".inf",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"'",
    b'"',
    b"%TAG",
    b"---",
    b"...",
    b"x" * 200_000,
    b"\x1b[31m",
    b"\t",
    b"\r",
    b'"a""b',
    "\u2028".encode(),
)
