"""Where models come from. A source resolves a reference to a pinned one and fetches its files."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from edgeml.progress import Progress
from edgeml.types import ModelRef, WeightFormat
from edgeml_runtime.types import File, Record


class Consent(Record, frozen=True, kw_only=True):
    """What the user allowed for this one call: weights that are pickles, and code that came with a model."""

    pickle: bool = False
    remote_code: bool = False


class Fetched(Record, frozen=True, kw_only=True):
    """Files of a pinned reference, complete and verified, below `path`.

    `source_sha256` is the digest of the one archive (a wheel) that the files came in.
    """

    ref: ModelRef
    path: Path
    files: tuple[File, ...]
    format: WeightFormat
    licence: str | None = None
    task: str | None = None
    source_sha256: str | None = None


class Source(Protocol):
    """One module a source; each has this one function."""

    def fetch(self, ref: ModelRef, *, consent: Consent, progress: Progress) -> Fetched:
        """Resolve, fetch and verify; raises EdgemlError and leaves nothing that looks complete."""


_MODULES = {"hf": "hub", "pypi": "pypi", "local": "local"}


def source_of(ref: ModelRef) -> Source:
    """The module that fetches this reference, imported only now."""
    return cast("Source", import_module(f"edgeml.sources.{_MODULES[ref.source]}"))
