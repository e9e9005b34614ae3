"""Looks for marks in files, whatever they are: raw bytes, and what common archives hold, within bounds."""

from __future__ import annotations

import base64
import bz2
import hashlib
import io
import json
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any, NamedTuple

from edgeml.privacy.canaries import Stems, bare
from edgeml.privacy.forms import Pattern, distinct, parts, spellings, token_ids
from edgeml.privacy.rows import row_of
from edgeml.privacy.types import Canary, Class, Trace
from edgeml_runtime.feedback.content import content_hash

UNKNOWN = "one of them"  # where less than a whole mark was kept
_CHUNK = 8_000_000
_OVERLAP = 4096  # bytes that two chunks share; longer than any mark in any form, and than a digest's whole
_AROUND = 512  # bytes within which the rest of a mark stands
_INNER = 64_000_000  # bytes of an archive's member that are read
_MEMBERS = 1000
_DEPTH = 3
_HEX = re.compile(rb"[0-9a-f]{32,64}")
_FEWEST_IDS = 3  # of some 30,000 each
_SHORTEST = 16  # characters of an answer that stands in no file by chance


class Totals(NamedTuple):
    """What was searched. `unread` are files that could not be read."""

    files: int
    bytes: int
    unread: int


class Marks:
    """What to look for: the beginnings that all marks of a run share, answers, token ids and digests."""

    def __init__(
        self,
        shared: Stems,
        planted: Iterable[Canary],
        answers: Mapping[str, Sequence[str]],
        ids: Callable[[str], Sequence[int]] | None,
    ) -> None:
        self._canaries = list(planted)
        self._wanted: list[tuple[Class, Pattern]] = []
        self._of_steps: list[tuple[str, Class, Pattern]] = []
        self._digests = dict(_digests(self._canaries))
        self._want("words", [*spellings(shared.words), *parts(shared.words)])
        self._want("accents", [*spellings(shared.accents), *parts(bare(shared.accents))])
        self._want("address", spellings(shared.address))
        for number in (shared.phone, shared.iban, shared.card):
            self._want("number", spellings(number))
        for step, texts in answers.items():
            for text in texts:
                if len(text) >= _SHORTEST:
                    self._of_steps += [(step, "answer", one) for one in distinct(spellings(text[:64]))]
        found = list(ids(shared.words)) if ids else []
        inner = found[1:-1] if len(found) > 4 else found[:-1]  # the outermost depend on what stands beside the mark
        if len(inner) >= _FEWEST_IDS:
            self._want("tokens", token_ids(inner))

    def within(self, content: bytes, place: str) -> Iterator[Trace]:
        """Every trace in some bytes: each kind, form and step once."""
        small = content.lower()
        for what, pattern in self._wanted:
            for position in _positions(small if pattern.folded else content, pattern.content):
                around = content[max(0, position - _AROUND) : position + _AROUND]
                yield Trace(place=place, what=what, form=pattern.form, step=self._step(what, around))
        for step, what, pattern in self._of_steps:
            if pattern.content in (small if pattern.folded else content):
                yield Trace(place=place, what=what, form=pattern.form, step=step)
        for run in _HEX.findall(small):
            if run in self._digests:
                step, form = self._digests[run]
                yield Trace(place=place, what="digest", form=form, step=step)

    def _want(self, what: Class, patterns: Iterable[Pattern]) -> None:
        self._wanted += [(what, one) for one in distinct(patterns)]

    def _step(self, what: Class, around: bytes) -> str:
        small = around.lower()
        for one in self._canaries:
            for value in _values(one, what):
                if any(form.content in (small if form.folded else around) for form in spellings(value)):
                    return one.step
        return UNKNOWN


class Search:
    """Goes through files and texts, and keeps what was found, each trace once."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._found: dict[Trace, None] = {}
        self._files = self._bytes = self._unread = 0

    @property
    def found(self) -> tuple[Trace, ...]:
        """Every trace so far."""
        return tuple(self._found)

    @property
    def totals(self) -> Totals:
        """How much was searched so far."""
        return Totals(self._files, self._bytes, self._unread)

    def file(self, path: Path, place: str) -> None:
        """Search a file, its name, and what it holds if it is an archive; `place` is how it is called."""
        self._take(self._marks.within(os.fsencode(place), f"the name of a file in {Path(place).parts[0]}"))
        try:
            if path.is_symlink():
                self._take(self._marks.within(os.fsencode(path.readlink()), f"where {place} points"))
            elif S_ISREG(path.stat().st_mode):
                self._content(path, place)
        except OSError:
            self._unread += 1

    def text(self, content: bytes, place: str, depth: int = _DEPTH) -> None:
        """Search bytes, and what they hold if they are an archive."""
        self._bytes += len(content)
        self._take(self._marks.within(content, place))
        for name, inner in _members(content) if depth else ():
            self.text(inner, f"{place} ({name})", depth - 1)

    def _content(self, path: Path, place: str) -> None:
        self._files += 1
        with path.open("rb") as file:
            head = file.read(_CHUNK)
            if len(head) < _CHUNK or _is_packed(head):
                self.text(head + file.read(_INNER), place)
                return
            while True:
                self._bytes += len(head)
                self._take(self._marks.within(head, place))
                more = file.read(_CHUNK)
                if not more:
                    return
                head = head[-_OVERLAP:] + more

    def _take(self, traces: Iterable[Trace]) -> None:
        self._found.update(dict.fromkeys(traces))


def _values(one: Canary, what: Class) -> tuple[str, ...]:
    values: dict[Class, tuple[str, ...]] = {
        "words": (one.words,),
        "accents": (one.accents, bare(one.accents)),
        "address": (one.address.partition("@")[0],),
        "number": (one.phone[1:], one.iban[4:], one.card),
    }
    return values.get(what, ())


def _digests(planted: Iterable[Canary]) -> Iterator[tuple[bytes, tuple[str, str]]]:
    """Digests in hex of each input, as text and as the JSON that says it, with and without spaces."""
    for one in planted:
        row = {"text": one.text}
        written = [one.words, one.text]
        written += [
            json.dumps(row, ensure_ascii=ascii, separators=(",", between))
            for ascii in (True, False)
            for between in (":", ": ")
        ]
        for text in written:
            for name in ("sha256", "sha1", "md5"):
                digest = hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()
                yield digest.encode(), (one.step, f"{name} of the input, without salt")
        for task in ("text-classification", "sentence-similarity", "token-classification"):
            content = content_hash(row_of(task, one) or row)
            yield content.encode(), (one.step, "sha256 of the input as feedback knows it again, without salt")


def _positions(content: bytes, wanted: bytes) -> Iterator[int]:
    """The first places of some bytes, far enough apart to belong to other marks; at most a hundred."""
    position = content.find(wanted)
    for _ in range(100):
        if position < 0:
            return
        yield position
        position = content.find(wanted, position + len(wanted))


def _is_packed(head: bytes) -> bool:
    return head.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ\x00", b"x\x01", b"x\x9c", b"x\xda"))


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """What an archive holds, so much of it as can be read; nothing of what is no archive."""
    if content.startswith(b"PK\x03\x04"):
        yield from _zipped(content)
    elif content.startswith((b"\x1f\x8b", b"x\x01", b"x\x9c", b"x\xda")):
        yield from _inflated(zlib.decompressobj(47), content, "zlib")
    elif content.startswith(b"BZh"):
        yield from _inflated(bz2.BZ2Decompressor(), content, "bzip2")
    elif content.startswith(b"\xfd7zXZ\x00"):
        yield from _inflated(lzma.LZMADecompressor(memlimit=_INNER * 2), content, "xz")
    elif decoded := _decoded(content):
        yield "base64", decoded


def _zipped(content: bytes) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for one in archive.infolist()[:_MEMBERS]:
                with archive.open(one) as file:
                    yield one.filename, file.read(_INNER)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, zlib.error, OSError, EOFError):
        return


def _inflated(reader: Any, content: bytes, name: str) -> Iterator[tuple[str, bytes]]:
    try:
        yield name, reader.decompress(content, _INNER)
    except (zlib.error, OSError, EOFError, ValueError, lzma.LZMAError):
        return


def _decoded(content: bytes) -> bytes:
    """The bytes of a file that is base64 from its first to its last letter, as a packed trace may be written."""
    if not 16 <= len(content) <= _INNER:
        return b""
    try:
        return base64.b64decode(b"".join(content.split()), validate=True)
    except ValueError:
        return b""
