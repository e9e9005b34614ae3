"""The rows of /v1/predict: what each task reads of them, and its answers, as the command `predict` gives them."""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.server.batching import counted
from edgeml_runtime.server.generation import Answered, Asked, write
from edgeml_runtime.server.refusals import wrong
from edgeml_runtime.server.schemas import check_schema
from edgeml_runtime.server.work import Ask, GivenUpError
from edgeml_runtime.session import Decoder, Session, is_encoder, kind_of, writes_text
from edgeml_runtime.sound import read_wave
from edgeml_runtime.tasks import ready, task_of
from edgeml_runtime.tasks.text_classification import likeliest
from edgeml_runtime.types import Generate, Record, Row, VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import ImageClassifier, Transcriber

LARGEST_PIXELS = 50_000_000  # decoded to RGB, 150 MB
LONGEST_SIDE = 20  # times the shorter one: resized by its shorter side, a longer picture would need far more memory
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "WEBP")  # others would start programs, or are rarely read at all


class Predict(Record, frozen=True, kw_only=True):
    """The body of /v1/predict; the last three are for a model that writes text."""

    rows: tuple[dict[str, Any], ...]
    model: str | None = None
    task: str | None = None
    instruction: str | None = None
    schema: dict[str, Any] | None = None
    max_new_tokens: int | None = None


def checked(asked: Predict, manifest: VariantManifest) -> tuple[str, list[Row]]:
    """The task and the rows as it reads them; raises the refusal of rows that it cannot read."""
    task = _task(asked, manifest)
    if kind_of(manifest.task) == "image":
        return task, [{"image": _picture(row.get("image"), place)} for place, row in enumerate(asked.rows)]
    if manifest.speech:
        most_s = manifest.speech.sound.window_s
        return task, [{"audio": _sound(row.get("audio"), place, most_s)} for place, row in enumerate(asked.rows)]
    try:
        return task, ready(task, asked.rows, "the request")
    except EdgemlError as error:
        raise wrong(error.message, "rows") from error


def answers(session: Session, asked: Predict, task: str, rows: Sequence[Row], ask: Ask[Any], **room: int) -> list[Any]:
    """One answer a row, and the tokens read and written for it."""
    found = []
    for row in rows:
        found.append(_answer(session, asked, task, row, ask, **room))
        _require_wanted(ask)
    return found


def _require_wanted(ask: Ask[Any]) -> None:
    if ask.given_up.is_set():
        raise GivenUpError


def _answer(session: Session, asked: Predict, task: str, row: Row, ask: Ask[Any], **room: int) -> tuple[Any, int, int]:
    if writes_text(session.manifest.task):
        answered = _written(cast("Decoder", session), asked, row, ask, **room)
        return answered.text, answered.prompt_tokens, answered.tokens
    if kind_of(session.manifest.task) == "image":
        logits = cast("ImageClassifier", session).classify_images([row["image"]])[0]
        return likeliest(logits, session.manifest.labels), 0, 0
    if session.manifest.speech:
        options = Generate(max_new_tokens=asked.max_new_tokens or room["max_new_tokens"])
        made = cast("Transcriber", session).transcribe(row["audio"], options, partial(_require_wanted, ask))
        return made.text, made.prompt_tokens, len(made.tokens)
    columns = task_of(task).COLUMNS
    tokens = sum(counted(cast("Any", session), [row[column] for column in columns]))
    return task_of(task).predict(session, {column: row[column] for column in columns}, Generate()), tokens, 0


def _written(
    session: Decoder, asked: Predict, row: Row, ask: Ask[Any], *, context_tokens: int, max_new_tokens: int
) -> Answered:
    wanted = Asked(
        prompt=lambda model: model.prompt(asked.instruction, row["text"]),
        characters=len(asked.instruction or "") + len(row["text"]),
        options=Generate(max_new_tokens=max_new_tokens, schema=asked.schema),
        max_tokens=asked.max_new_tokens,
    )
    return write(session, wanted, ask, context_tokens)


def _task(asked: Predict, manifest: VariantManifest) -> str:
    """The model's task; an encoder compares pairs where the rows have them, and else gives vectors."""
    if asked.max_new_tokens is not None and asked.max_new_tokens < 1:
        raise wrong("max_new_tokens must be 1 or more", "max_new_tokens")
    if asked.schema is not None:
        check_schema(asked.schema, "schema")
    if not asked.rows:
        raise wrong("there are no rows", "rows")
    possible = ("feature-extraction", "sentence-similarity") if is_encoder(manifest) else (manifest.task,)
    if asked.task is not None and asked.task not in possible:
        raise wrong(f"{manifest.name} does {' and '.join(possible)} alone", "task")
    if asked.task is not None or len(possible) == 1:
        return asked.task or possible[0]
    return "sentence-similarity" if "sentence1" in asked.rows[0] else "feature-extraction"


def _picture(value: Any, place: int) -> bytes:
    """A picture's file; only its head is read here."""
    from PIL import Image

    name = f"rows[{place}].image"
    try:
        content = base64.b64decode(value, validate=True)
        width, height = Image.open(io.BytesIO(content), formats=_FORMATS).size
    except (TypeError, binascii.Error) as error:
        raise wrong("image must be a picture's file in base64", name) from error
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise wrong(f"image is no picture that is read here: {', '.join(_FORMATS)}", name) from error
    if width * height > LARGEST_PIXELS or max(width, height) > LONGEST_SIDE * min(width, height):
        limits = f"at most {LARGEST_PIXELS} pixels and {LONGEST_SIDE} times as long as wide"
        raise wrong(f"the picture has {width} by {height} pixels, and may have {limits}", name)
    return content


def _sound(value: Any, place: int, most_s: float) -> bytes:
    """A sound's file, no longer than the model hears."""
    name = f"rows[{place}].audio"
    try:
        content = base64.b64decode(value, validate=True)
        read_wave(content, most_s=most_s)
    except (TypeError, binascii.Error) as error:
        raise wrong("audio must be a WAV file in base64", name) from error
    except EdgemlError as error:
        raise wrong(f"audio: {error.message}", name) from error
    return content
