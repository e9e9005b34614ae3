"""What the owner of a device decides about feedback: the table `[feedback]` of the configuration."""

from __future__ import annotations

from edgeml_runtime.types import Record

BUILT_IN = ("card", "email", "iban", "phone")


class FeedbackSettings(Record, frozen=True, kw_only=True):
    """Feedback is kept in `file`, an SQLite database of at most `max_bytes`; without these settings, none is.

    One item has at most `item_bytes` as JSON. `redact` names the rules of `redaction.RULES` that blot out parts of
    texts before they are written, and `patterns` has more, a regular expression under each name. `key_file` holds the
    key that items are encrypted with. Answers whose confidence is below `low_confidence` are kept, too; left out, none
    are: `edgeml feedback threshold` proposes a value from a bench.
    """

    file: str
    max_bytes: int = 64_000_000
    item_bytes: int = 65_536
    redact: tuple[str, ...] = BUILT_IN
    patterns: dict[str, str] = {}
    key_file: str | None = None
    low_confidence: float | None = None
