"""Feedback that came home: which pool an item is in, for ever, and where it lies until somebody erases it."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Literal, get_args

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.store import PART, Store, alone
from edgeml_runtime.feedback.content import content_hash
from edgeml_runtime.feedback.types import Item
from edgeml_runtime.records import decode, encode
from edgeml_runtime.types import Record

Pool = Literal["calibration", "evaluation", "training"]
POOLS: tuple[Pool, ...] = get_args(Pool)
SHARES = {"calibration": 0.2, "evaluation": 0.4, "training": 0.4}
_SALT = b"edgeml: pools of feedback\0"  # never to change, and nobody chooses it: else an item could change its pool
_MODEL = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")  # comes from a device, and becomes a folder's name


class Pulled(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.feedback/1"):
    """One item that was brought home from `device`, at a time in UTC that this machine's clock told."""

    item: Item
    pool: Pool
    device: str
    pulled: str

    @property
    def model(self) -> str:
        """The model whose variant answered."""
        return self.item.model.partition("/")[0]


class Pull(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.feedback_pull/1"):
    """What one pull brought: of `items` in `file` of `device`, `new` were not here before, in so many by pool.

    `removed` are those that the device then forgot.
    """

    device: str
    file: str
    items: int
    new: int
    pools: dict[str, int]
    removed: int = 0


class Tally(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.feedback_count/1"):
    """How many items at home are alike in all of this. `label` is the right one, where the task has labels."""

    model: str
    task: str
    pool: Pool
    kind: str
    device: str
    count: int
    label: str | None = None


class Export(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.feedback_export/1"):
    """A file of rows for one purpose, and how many inputs of its pool were left out, by the reason."""

    model: str
    task: str
    pool: Pool
    file: str
    rows: int
    left_out: dict[str, int] = {}
    conflicting: tuple[str, ...] = ()


def pool_of(content: str) -> Pool:
    """The pool of an input by its `content_hash` alone: the same for ever, whatever the device, the time or the model.

    SHARES of all inputs are in each, since a sha256 is as good as a draw.
    """
    draw = int.from_bytes(hashlib.sha256(_SALT + content.encode()).digest()[:8]) / 2**64
    for pool in POOLS[:-1]:
        if draw < SHARES[pool]:
            return pool
        draw -= SHARES[pool]
    return POOLS[-1]


def brought_home(item: Item, *, device: str, pulled: str) -> Pulled:
    """An item in its pool. What the device says of its content is found out anew."""
    if not _MODEL.fullmatch(item.model):
        raise EdgemlError(f"item {item.id} names no model", hint="was it written by edgeml?")
    content = content_hash(item.input)
    return Pulled(item=replace(item, content=content), pool=pool_of(content), device=device, pulled=pulled)


def read_pulled(store: Store, models: Iterable[str]) -> list[Pulled]:
    """All that came home for those models, each item once, in the order of pulling and of the devices."""
    found: dict[str, Pulled] = {}
    for model in models:
        for path in sorted(_folder(store, model).glob("*.jsonl")):
            for one in _read(path):
                found.setdefault(one.item.id, one)
    return list(found.values())


def models_of(store: Store) -> list[str]:
    """The models that there is feedback for."""
    return sorted({path.parent.parent.name for path in store.root.glob("*/feedback/*.jsonl")})


def keep(store: Store, found: Sequence[Pulled], *, stamp: str) -> list[Pulled]:
    """Write what is not here yet, a file a pull and model; what was new, once it is on the disk."""
    new: list[Pulled] = []
    with _alone(store):
        for model in sorted({one.model for one in found}):
            known = {one.item.id for one in read_pulled(store, [model])}
            fresh = [one for one in found if one.model == model and one.item.id not in known]
            if fresh:
                _write(_folder(store, model) / f"{stamp}-{secrets.token_hex(3)}.jsonl", fresh)
            new += fresh
    return new


def erase(store: Store, ids: Collection[str]) -> list[str]:
    """Remove items from all that came home; the ids that were there."""
    gone: list[str] = []
    with _alone(store):
        for path in sorted(store.root.glob("*/feedback/*.jsonl")):
            found = _read(path)
            left = [one for one in found if one.item.id not in ids]
            gone += [one.item.id for one in found if one.item.id in ids]
            if not left:
                path.unlink()
            elif len(left) < len(found):
                _write(path, left)
    return list(dict.fromkeys(gone))


def _alone(store: Store) -> AbstractContextManager[None]:
    """What one process does at a time: another that rewrites a file would bring back what this one erases."""
    return alone(store.root / "feedback", silent, doing="keeping or erasing feedback")


def _folder(store: Store, model: str) -> Path:
    return store.root / model / "feedback"


def _read(path: Path) -> list[Pulled]:
    lines = path.read_bytes().split(b"\n")
    return [decode(line, Pulled, where=f"line {place} of {path}") for place, line in enumerate(lines, 1) if line]


def _write(path: Path, found: Sequence[Pulled]) -> None:
    """All or nothing, and on the disk: what the device forgets afterwards must be here. For its owner's eyes alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + PART)
    try:
        with open(part, "w", encoding="utf-8", newline="\n", opener=_private) as file:
            file.writelines(f"{encode(one)}\n" for one in found)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    if os.name != "nt":  # which opens no folders
        handle = os.open(path.parent, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
