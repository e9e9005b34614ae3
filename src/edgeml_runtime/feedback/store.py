"""Feedback in one SQLite file that any instant may interrupt: what `add` acknowledged is there, nothing is half.

Chosen for a card that loses power. A rollback journal and not WAL: between transactions all is in one file, which can
be copied by hand. `synchronous=EXTRA` and not FULL, which leaves the journal's removal to the system, so that an
acknowledged item could be rolled back. What is removed is overwritten with zeros in the file.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from edgeml_runtime.errors import EdgemlError, counted
from edgeml_runtime.feedback.content import content_hash
from edgeml_runtime.feedback.redaction import Redaction
from edgeml_runtime.feedback.sealing import Seal, seal_of
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.feedback.types import Entry, FullError, Item
from edgeml_runtime.records import encode

VERSION = 1
_APPLICATION = 0x65646D6C  # "edml": the file says whose it is
_SCHEMA = (
    "CREATE TABLE items (sequence INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, "
    "kind TEXT NOT NULL, sealed INTEGER NOT NULL, item BLOB NOT NULL)",
    "CREATE INDEX kinds ON items (kind)",
    f"PRAGMA application_id = {_APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_WAIT_S = 10.0  # for another process, such as one that copies the file
_SPARE_PAGES = 6  # of the table, its two indexes, and the list of free pages, when an item splits each
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_FULL = (sqlite3.SQLITE_FULL,)
_LEAST_BYTES = 65_536
_UNREADABLE = (msgspec.DecodeError, UnicodeError, RecursionError, TypeError)


class FeedbackStore:
    """The feedback of one device, for any number of threads; `close` it in the end.

    Where there is no room, the oldest answers of low confidence go, since the model makes more of them; a correction
    is a person's work and stays: a new item is refused where only corrections are left. Raises EdgemlError for a file
    that is not such a store, a key that does not fit, or settings that cannot be. A damaged file is set aside under
    another name, and `warnings` say so.
    """

    def __init__(self, path: Path, settings: FeedbackSettings) -> None:
        self.path = path
        self.warnings: list[str] = []
        self._settings = _possible(settings)
        self._redact = Redaction(settings.redact, settings.patterns)
        self._seal = seal_of(Path(settings.key_file)) if settings.key_file else None
        self._lock = threading.Lock()
        self._database = self._opened()
        self._check_key()

    def add(self, entry: Entry) -> str:
        """Keep an entry, redacted; its id, once it is on the disk.

        Raises FullError where there is no room, and EdgemlError where it is too large or cannot be written. Then
        nothing of it is kept. No message repeats any of it.
        """
        item = self._item(entry)
        with self._lock, self._transaction():
            sequence = self._next_sequence()
            content = encode(msgspec.structs.replace(item, sequence=sequence)).encode()
            self._require_small(content)
            blob = self._seal.close(content, _name(sequence, item.id, item.kind)) if self._seal else content
            self._make_room(len(blob))
            row = (sequence, item.id, item.kind, int(self._seal is not None), blob)
            self._database.execute("INSERT INTO items (sequence, id, kind, sealed, item) VALUES (?, ?, ?, ?, ?)", row)
        return item.id

    def capture(self, entry: Entry) -> str | None:
        """Keep an answer if it is less sure than the settings' `low_confidence`; None where it is not, or no room is.

        An answer must not fail because there is no room to remember it.
        """
        most = self._settings.low_confidence
        if most is None or entry.confidence is None or entry.confidence >= most:
            return None
        try:
            return self.add(entry)
        except FullError:
            return None

    def items(self) -> list[Item]:
        """Every item, in the order in which they came."""
        with self._lock:
            return list(_items(self._database, self._seal))

    def counts(self) -> dict[str, int]:
        """How many items there are of each kind."""
        with self._lock:
            return dict(self._database.execute("SELECT kind, COUNT(*) FROM items GROUP BY kind ORDER BY kind"))

    def erase(self, *, id: str | None = None, input: dict[str, Any] | None = None) -> int:
        """Remove the item of an id, and all whose input has the same content; how many there were.

        The file holds nothing of them afterwards. A card may keep old blocks that no file shows any more.
        """
        content = content_hash(self._redact(input)) if input is not None else None
        with self._lock, self._transaction():
            found = [item.id for item in _items(self._database, self._seal) if item.content == content]
            return sum(
                self._database.execute("DELETE FROM items WHERE id = ?", (one,)).rowcount
                for one in dict.fromkeys([*found, *([id] if id else [])])
            )

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def _item(self, entry: Entry) -> Item:
        try:
            input = self._redact(entry.input)
            return Item(
                id=uuid.uuid4().hex,
                sequence=0,
                time=datetime.now(UTC).isoformat(timespec="seconds"),
                kind=entry.kind,
                task=entry.task,
                input=input,
                answer=self._redact(entry.answer),
                correction=self._redact(entry.correction),
                model=entry.model,
                variant_sha256=entry.variant_sha256,
                confidence=entry.confidence,
                content=content_hash(input),
            )
        except RecursionError as error:
            raise EdgemlError("the feedback is nested too deep", hint="send flatter JSON") from error

    def _require_small(self, content: bytes) -> None:
        most = self._settings.item_bytes
        if len(content) > most:
            hint = f"send less, or allow more: feedback.item_bytes (now {most})"
            raise EdgemlError(f"the feedback has {len(content)} bytes as JSON, more than {most}", hint=hint)

    def _next_sequence(self) -> int:
        found = self._database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'items'").fetchone()
        return (found[0] if found else 0) + 1

    def _make_room(self, size_bytes: int) -> None:
        page = self._pragma("page_size")
        needed = size_bytes // (page - 4) + _SPARE_PAGES
        while self._pragma("page_count") - self._pragma("freelist_count") + needed > self._settings.max_bytes // page:
            gone = self._database.execute(
                "DELETE FROM items WHERE sequence = (SELECT MIN(sequence) FROM items WHERE kind = 'low-confidence')"
            )
            if not gone.rowcount:
                hint = "bring the corrections home: edgeml feedback pull --delete; or allow more: feedback.max_bytes"
                raise FullError(f"the feedback has its {self._settings.max_bytes} bytes", hint=hint)

    def _pragma(self, name: str) -> int:
        return int(self._database.execute(f"PRAGMA {name}").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block or nothing of it, on the disk when it ends."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            yield
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            raise _refusal(self.path, error) from error
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _opened(self) -> sqlite3.Connection:
        try:
            return _open(self.path)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:
                raise _refusal(self.path, error) from error
        aside = _set_aside(self.path)
        self.warnings.append(f"the feedback in {self.path} was damaged; it lies now in {aside}, and a new file began")
        try:
            return _open(self.path)
        except sqlite3.DatabaseError as error:
            raise _refusal(self.path, error) from error

    def _check_key(self) -> None:
        """A key that is there from now on leaves old items as they are; one that is missing is no way to go on."""
        counts = dict(self._database.execute("SELECT sealed, COUNT(*) FROM items GROUP BY sealed"))
        if 1 in counts:
            next(_items(self._database, self._seal, where="WHERE sealed = 1 LIMIT 1"))
        if self._seal and counts.get(0):
            items = counted(counts[0], "item")
            self.warnings.append(f"not encrypted, since older than the key: {items} in {self.path}")


def items_of(content: bytes, seal: Seal | None, *, where: str) -> list[Item]:
    """Every item of a store's file that was copied whole, in order; `where` names it in an error.

    Raises EdgemlError where it is no such file, is damaged, or needs a key.
    """
    hint = "copy it again, while the endpoint stands still or by `edgeml feedback pull --host`"
    if not content:
        raise EdgemlError(f"{where} is empty", hint=hint)
    database = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database.deserialize(content)
        _check(where, database)
        return list(_items(database, seal))
    except sqlite3.Error as error:
        raise EdgemlError(f"{where} is damaged, or no feedback: {error}", hint=hint) from error
    finally:
        database.close()


def _items(database: sqlite3.Connection, seal: Seal | None, where: str = "ORDER BY sequence") -> Iterator[Item]:
    rows = database.execute(f"SELECT sequence, id, kind, sealed, item FROM items {where}")  # noqa: S608 - ours
    for sequence, id, kind, sealed, blob in rows:
        content = _plain(blob, seal, _name(sequence, id, kind)) if sealed else blob
        try:
            yield msgspec.json.decode(content, type=Item)
        except _UNREADABLE as error:  # its text could repeat a key of the input
            raise EdgemlError(f"item {id} is not as it was written", hint="somebody changed the file") from error


def _plain(blob: bytes, seal: Seal | None, name: str) -> bytes:
    if seal is None:
        hint = "name its key: --key FILE, or on its device key_file"
        raise EdgemlError("the feedback is encrypted, and no key is given", hint=hint)
    return seal.open(blob, name)


def _name(sequence: int, id: str, kind: str) -> str:
    return f"{sequence} {id} {kind}"


def _possible(settings: FeedbackSettings) -> FeedbackSettings:
    if settings.max_bytes < _LEAST_BYTES or not 0 < settings.item_bytes <= settings.max_bytes // 4:
        hint = f"feedback.max_bytes from {_LEAST_BYTES}, and feedback.item_bytes at most a quarter of it"
        raise EdgemlError(f"feedback of {settings.max_bytes} bytes holds no items of {settings.item_bytes}", hint=hint)
    if settings.low_confidence is not None and not 0 < settings.low_confidence <= 1:
        hint = "edgeml feedback threshold proposes one"
        raise EdgemlError("feedback.low_confidence is a probability, above 0 and at most 1", hint=hint)
    return settings


def _open(path: Path) -> sqlite3.Connection:
    """The database, made where there is none, checked where there is. Nobody but its owner may read it."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise EdgemlError(f"cannot write {path}: {error.strerror}", hint="check feedback.file") from error
    database = sqlite3.connect(path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("synchronous = EXTRA", "secure_delete = ON", "trusted_schema = OFF"):
            database.execute(f"PRAGMA {pragma}")
        _make(database)
        _check(str(path), database)
        database.execute("PRAGMA journal_mode = DELETE")  # stays in the file, so not before it is known to be ours
    except BaseException:
        database.close()
        raise
    _sync_folder(path.parent)  # else a new file's name could be lost with the power
    return database


def _make(database: sqlite3.Connection) -> None:
    """Make the tables in a new file, at once or not at all."""
    database.execute("BEGIN IMMEDIATE")
    try:
        if database.execute("SELECT COUNT(*) FROM sqlite_schema").fetchone() == (0,):
            for statement in _SCHEMA:
                database.execute(statement)
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")


def _check(where: str, database: sqlite3.Connection) -> None:
    try:
        found = database.execute("PRAGMA integrity_check(1)").fetchone()[0]
    except UnicodeDecodeError as broken:  # what SQLite says of it repeats a part
        found = str(broken)
    if found != "ok":
        error = sqlite3.DatabaseError(found)
        error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
        raise error
    if database.execute("PRAGMA application_id").fetchone() != (_APPLICATION,):
        raise EdgemlError(f"{where} is another program's database", hint="give feedback a file of its own")
    version = database.execute("PRAGMA user_version").fetchone()[0]
    if version != VERSION:
        raise EdgemlError(f"{where} has version {version}, and this edgeml reads {VERSION}", hint="use its own edgeml")
    # A view in the table's place could compute for ever, and a trigger would undo what is written.
    stated = database.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%'")
    if {sql for (sql,) in stated} != {statement for statement in _SCHEMA if statement.startswith("CREATE")}:
        raise EdgemlError(f"{where} has other tables than edgeml makes", hint="somebody changed the file")


def _set_aside(path: Path) -> Path:
    """Give a damaged file another name, and its journal, which must never be taken for a new file's."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    journal = path.with_name(f"{path.name}-journal")
    if journal.exists():
        os.replace(journal, aside.with_name(f"{aside.name}-journal"))
    os.replace(path, aside)
    return aside


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary code."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _refusal(path: Path, error: sqlite3.Error) -> EdgemlError:
    said: Any = getattr(error, "sqlite_errorname", None) or type(error).__name__
    if _code(error) in _FULL:
        return FullError(f"no room for {path}: the disk is full", hint="make room on the device: df -h")
    if _code(error) in _DAMAGED:
        return EdgemlError(f"{path} is damaged", hint="start again: it is set aside then")
    return EdgemlError(f"cannot write {path}: {said}", hint="check the disk, and who may write there")
