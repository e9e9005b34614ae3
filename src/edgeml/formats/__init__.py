"""File formats. Each turns a verified source into one weight file and audits what that file really holds."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeml.progress import Progress
from edgeml.types import Model, Profile, Scheme, Traits
from edgeml_runtime.types import Audit, Record


class Converted(Record, frozen=True, kw_only=True):
    """What a format wrote into its folder: the weight file's name, its interface, and the audit of its bytes."""

    weights: str
    audit: Audit
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    built_for: str | None = None
    tools: dict[str, str] = {}


class Request(Record, frozen=True, kw_only=True):
    """One conversion: a verified model, what its files say, the scheme, and the profile it is made for."""

    model: Model
    traits: Traits
    scheme: Scheme
    profile: Profile


class Format(Protocol):
    """One module a format."""

    def convert(self, request: Request, folder: Path, *, progress: Progress) -> Converted:
        """Write the variant's files (weights, tokenizer where it is not inside) into `folder`, which is empty."""


def format_of(scheme: Scheme) -> Format:
    """The module that writes this scheme, imported only now."""
    return cast("Format", import_module(f"edgeml.formats.{scheme.format}"))
