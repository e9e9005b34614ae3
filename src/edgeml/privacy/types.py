"""What was tried to make a bundle leave an input somewhere, where it was searched, and what was found."""

from __future__ import annotations

from typing import Literal

from edgeml_runtime.types import Record

Class = Literal["file", "words", "accents", "number", "address", "tokens", "answer", "digest"]


class Canary(Record, frozen=True, kw_only=True):
    """The marks of one thing that is tried. Each begins with what all of its class in a run have in common.

    `text` holds them all, as somebody might write them; it begins with `words`, and ends with their beginning, `stem`.
    """

    step: str
    stem: str
    words: str
    accents: str
    phone: str
    iban: str
    card: str
    address: str

    @property
    def text(self) -> str:
        """The input."""
        parts = (self.words, "calls", self.phone, "pays", self.iban, "by", self.card, self.accents, self.address)
        return " ".join((*parts, self.stem))

    @property
    def tokens(self) -> list[str]:
        """The same, in words."""
        return self.text.split(" ")


class Plan(Record, frozen=True, kw_only=True):
    """What the process without a network is to do. Paths are absolute; `home` is where the runtime is imported from.

    `places` are folders that a program may write in without being told, with what stands for each. `own` says that the
    bundle runs as on a device, by its script; else edgeml's own runtime runs its model.
    """

    folder: str
    space: str
    home: str
    own: bool
    places: dict[str, str]
    canaries: dict[str, Canary]


class Tried(Record, frozen=True, kw_only=True):
    """One thing that was tried: how it ended, and how often something wanted to connect meanwhile.

    `unrouted` are packets or connections that found no route. `local` are connections and datagrams to this machine
    itself, beyond those of the check.
    """

    what: str
    end: str
    unrouted: int = 0
    local: int = 0


class Seen(Record, frozen=True, kw_only=True):
    """What the process without a network did and got. `answers` are texts that stand for an answer, by step."""

    tried: tuple[Tried, ...]
    read_only: bool
    answers: dict[str, tuple[str, ...]] = {}


class Trace(Record, frozen=True, kw_only=True):
    """A mark that was found; never what stands around it. `expected` says why it may be there, where it may."""

    place: str
    what: Class
    form: str
    step: str
    expected: str | None = None


class Privacy(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.privacy/1"):
    """What was tried, searched and found. Only a bundle without an unexpected trace has such a record.

    `places` were searched whole or for what changed; `forms` are the spellings that were looked for. `limits` say what
    this run could not see.
    """

    runtime: str
    tried: tuple[Tried, ...]
    places: tuple[str, ...]
    files: int
    bytes: int
    forms: tuple[str, ...]
    found: tuple[Trace, ...]
    limits: tuple[str, ...]
