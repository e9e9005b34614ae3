"""A model's chat template as an ONNX variant carries it: found, tried, and left out with its reason where it fails."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from edgeml.errors import EdgemlError
from edgeml_runtime.records import parse_json, write_record
from edgeml_runtime.session import Said
from edgeml_runtime.types import Record

_TURNS = [Said("user", "a"), Said("assistant", "b"), Said("user", "c")]


class Kept(Record, frozen=True, kw_only=True):
    """What became of a chat template, absent where none was looked for, and what the user must know of that."""

    became: Literal["none", "kept", "left out"] | None = None
    notes: tuple[str, ...] = ()


def keep_template(source: Path, folder: Path) -> Kept:
    """Write the template of the model at `source` as `chat.json` into `folder`, where it writes turns within bounds.

    It is `chat_template.jinja`, or stands in `tokenizer_config.json`; of several the one that is called default.
    """
    from edgeml_runtime.backends.onnx_chat import FILE
    from edgeml_runtime.chat_template import ChatTemplate, Writer

    files = source if source.is_dir() else source.parent
    try:
        settings = _settings(files / "tokenizer_config.json")
        template = _template(files / "chat_template.jinja", settings.get("chat_template"))
        if template is None:
            return Kept(became="none")
        words = {name: _word(settings.get(name)) for name in ("bos_token", "eos_token")}
        chat = ChatTemplate(template=template, **words)
        Writer(chat).write(_TURNS)
    except EdgemlError as error:
        return Kept(became="left out", notes=(f"prompts are plain: {error.message}",))
    write_record(folder / FILE, chat)
    return Kept(became="kept")


def _settings(path: Path) -> dict[str, Any]:
    try:
        found = parse_json(path.read_bytes()) if path.is_file() else {}
    except ValueError as error:
        raise EdgemlError(f"{path.name} cannot be read", hint="download the model again") from error
    return found if isinstance(found, dict) else {}


def _template(file: Path, stated: Any) -> str | None:
    if file.is_file():
        return file.read_text(encoding="utf-8", errors="replace")
    if isinstance(stated, list):
        named = {one.get("name"): one.get("template") for one in stated if isinstance(one, dict)}
        stated = named.get("default")
    return stated if isinstance(stated, str) else None


def _word(token: Any) -> str | None:
    """A token's word, which stands there alone or with how it is read."""
    word = token.get("content") if isinstance(token, dict) else token
    return word if isinstance(word, str) else None
