"""What tells a complete download from half of one: a record written last, whose digests are checked before use."""

from __future__ import annotations

from pathlib import Path

from edgeml.progress import Progress
from edgeml.sources import Fetched
from edgeml.types import ModelRef, WeightFormat
from edgeml_runtime.records import read_record, verify, write_record
from edgeml_runtime.types import File, Record


class Receipt(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.receipt/1"):
    """A `Fetched` as JSON."""

    ref: str
    path: str
    files: tuple[File, ...]
    format: WeightFormat
    licence: str | None = None
    task: str | None = None
    source_sha256: str | None = None


class Tally:
    """Adds up the bytes of many files and reports them as one step."""

    def __init__(self, progress: Progress, step: str, total: int) -> None:
        self._report = progress
        self._step = step
        self._total = total
        self._done = 0
        progress(step, 0, total)

    def add(self, count: int) -> None:
        """Note `count` more bytes; a restarted file may count twice, but no more than all is ever shown."""
        self._done = min(self._done + count, self._total)
        self._report(self._step, self._done, self._total)


def keep(path: Path, fetched: Fetched) -> None:
    """Write the receipt of a download that is complete and verified."""
    receipt = Receipt(
        ref=str(fetched.ref),
        path=str(fetched.path),
        files=fetched.files,
        format=fetched.format,
        licence=fetched.licence,
        task=fetched.task,
        source_sha256=fetched.source_sha256,
    )
    write_record(path, receipt)


def recall(path: Path, *, progress: Progress) -> Fetched | None:
    """The download that a receipt describes, its files read and found unchanged; None without a receipt.

    Raises EdgemlError when a file is missing or differs.
    """
    if not path.is_file():
        return None
    receipt = read_record(path, Receipt)
    tally = Tally(progress, "verify", sum(file.size_bytes for file in receipt.files))
    verify(Path(receipt.path), receipt.files, tick=tally.add)
    return Fetched(
        ref=ModelRef.parse(receipt.ref),
        path=Path(receipt.path),
        files=receipt.files,
        format=receipt.format,
        licence=receipt.licence,
        task=receipt.task,
        source_sha256=receipt.source_sha256,
    )
