"""What feedback is: as it is posted, and as it is kept. Errors here never repeat what was posted."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Literal

import msgspec

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.types import Record

Kind = Literal["correction", "low-confidence"]
_NO_TEXTS = {"image-classification": "pictures", "automatic-speech-recognition": "sounds"}


class Posted(Record, frozen=True, kw_only=True):
    """The body of `POST /v1/feedback`: what was asked, what the model answered, and what would have been right.

    `input` is the task's row, such as `{"text": ...}`. `task` is the served one's unless given.
    """

    input: dict[str, Any]
    answer: Any
    correction: Any
    task: str | None = None


class Entry(Record, frozen=True, kw_only=True):
    """What is to be kept. `model` and `variant_sha256` say which model answered: its variant's name and its digest.

    `confidence` is from 0 to 1, absent where the task has none.
    """

    kind: Kind
    task: str
    input: dict[str, Any]
    answer: Any
    model: str
    variant_sha256: str
    correction: Any = None
    confidence: float | None = None


class Item(Entry, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.feedback_item/1"):
    """What was kept. Parts that a rule blotted out read as its name, such as `<email>`.

    `time` is the device's own, in UTC, which is wrong where its clock is; `sequence` counts what the store took, and
    its order is right whatever the clock says. `content` is `content.content_hash` of the input.
    """

    id: str
    sequence: int
    time: str
    content: str


class FullError(EdgemlError):
    """No room for an item: the store has its most bytes, or the disk is full. HTTP calls it 507."""


def read_posted(body: bytes, *, most_bytes: int) -> Posted:
    """The body of a request. Raises EdgemlError where it is no such thing, without repeating any of it."""
    if len(body) > most_bytes:
        hint = f"send less, or allow more: feedback.item_bytes (now {most_bytes})"
        raise EdgemlError(f"the feedback has {len(body)} bytes, more than {most_bytes}", hint=hint)
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise EdgemlError("the feedback is not valid JSON", hint="send a JSON object in UTF-8") from error
    return _checked(plain)


def _checked(plain: Any) -> Posted:
    known = Posted.__struct_fields__
    if not isinstance(plain, dict):
        raise EdgemlError("the feedback is no JSON object", hint=f"its keys: {', '.join(known)}")
    if strange := [key for key in plain if key not in known]:
        raise EdgemlError("the feedback has a key that is not known", hint=_near(strange, known))
    try:
        posted = msgspec.convert(plain, Posted)
    except msgspec.ValidationError as error:  # names a key of ours and types, no values
        raise EdgemlError(f"the feedback does not fit: {error}", hint=f"its keys: {', '.join(known)}") from error
    if posted.correction is None:
        raise EdgemlError("the feedback has no correction", hint="say in `correction` what would have been right")
    if not posted.input:
        raise EdgemlError("the feedback has an empty input", hint='give the row that was asked, such as {"text": ...}')
    if what := _NO_TEXTS.get(posted.task or ""):
        raise EdgemlError(f"feedback keeps texts, and this task reads {what}", hint=f"keep the {what} yourself")
    return posted


def _near(strange: Iterable[str], known: Iterable[str]) -> str:
    """The nearest known key; the strange one is not repeated, since it may be part of an input."""
    near = next((found[0] for key in strange if (found := get_close_matches(key, known, n=1, cutoff=0.6))), None)
    return f"did you mean {near!r}?" if near else f"known keys: {', '.join(known)}"
