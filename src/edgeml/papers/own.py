"""What only the user can say: of the model in `card.yaml` beside it, of data in a YAML file beside the data."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from edgeml.yaml_files import read_yaml
from edgeml_runtime.records import build
from edgeml_runtime.types import Record

CARD = "card.yaml"
T = TypeVar("T", bound=Record)


class CardNotes(Record, frozen=True, kw_only=True):
    """`card.yaml` beside a model's `model.json`; what is left out, the card names as not stated."""

    intended_use: str | None = None
    out_of_scope: str | None = None
    users: str | None = None
    risks: str | None = None
    languages: tuple[str, ...] = ()
    contact: str | None = None


class DataNotes(Record, frozen=True, kw_only=True):
    """`<data>.yaml` beside a data file, such as `dev.yaml` beside `dev.tsv`, or `data.yaml` for all in a folder."""

    about: str | None = None
    origin: str | None = None
    licence: str | None = None
    collected: str | None = None
    split: str | None = None
    languages: tuple[str, ...] = ()
    personal_data: str | None = None


def card_notes(folder: Path) -> CardNotes:
    """What `card.yaml` in a model's folder says; nothing where there is none."""
    return _read(folder / CARD, CardNotes) if (folder / CARD).is_file() else CardNotes()


def data_notes(path: Path | None) -> DataNotes:
    """What the file beside a data file says; nothing where there is none."""
    beside = [path.with_suffix(".yaml"), path.with_name("data.yaml")] if path else []
    found = next((one for one in beside if one.is_file()), None)
    return _read(found, DataNotes) if found else DataNotes()


def _read(path: Path, kind: type[T]) -> T:
    keys = ", ".join(kind.__struct_fields__)
    return build(read_yaml(path, missing="check the path", hint=f"keys: {keys}") or {}, kind, where=str(path))
