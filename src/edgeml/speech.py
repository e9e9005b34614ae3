"""How a model's own files say that it hears and begins to write: Transformers' files for Whisper as a `Speech`.

Runs no code. What the runtime could not follow is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from edgeml.errors import EdgemlError
from edgeml_runtime.records import parse_json
from edgeml_runtime.types import Sound, Speech

CONFIG = "preprocessor_config.json"
_LANGUAGE, _TASK = "en", "transcribe"  # of a model that knows several, where its files name none
_PROCESSORS = ("WhisperFeatureExtractor",)
_Token = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 20)]


class _Heard(msgspec.Struct, frozen=True):
    """What is read of `preprocessor_config.json`, with the defaults of Transformers' class."""

    feature_extractor_type: str = ""
    feature_size: _Positive = 80
    sampling_rate: _Positive = 16_000
    hop_length: _Positive = 160
    chunk_length: _Positive = 30
    n_fft: _Positive = 400
    dither: float = 0.0
    do_normalize: bool = False


class _Written(msgspec.Struct, frozen=True):
    """What is read of `generation_config.json`, or of `config.json` where that is not there."""

    decoder_start_token_id: _Token | None = None
    forced_decoder_ids: tuple[tuple[int, _Token | None], ...] | None = None
    lang_to_id: dict[str, _Token] = {}
    task_to_id: dict[str, _Token] = {}
    language: str | None = None
    task: str | None = None
    no_timestamps_token_id: _Token | None = None
    suppress_tokens: tuple[int, ...] | None = None
    begin_suppress_tokens: tuple[int, ...] | None = None


def read_speech(folder: Path) -> Speech:
    """How the model in a folder hears and begins; raises EdgemlError for files that are missing or cannot be followed.

    Language and task are those that its generation settings name; else, where it knows several, English is transcribed.
    """
    heard = _read(folder, CONFIG, _Heard)
    generation = folder / "generation_config.json"
    written = _read(folder, generation.name if generation.is_file() else "config.json", _Written)
    if written.decoder_start_token_id is None:
        problem = f"{folder.name} does not say with which token an answer begins"
        raise EdgemlError(problem, hint="put the model's generation_config.json beside its weights")
    language = _language(written, folder.name)
    times = written.no_timestamps_token_id
    return Speech(
        sound=_sound(heard, folder.name),
        start_tokens=_start(written, written.decoder_start_token_id, language),
        language=language,
        never=tuple(token for token in written.suppress_tokens or () if token >= 0),
        not_first=tuple(token for token in written.begin_suppress_tokens or () if token >= 0),
        first_timestamp=None if times is None else times + 1,  # they follow it in every vocabulary of Whisper
    )


def notes_on(speech: Speech | None) -> tuple[str, ...]:
    """What a user must know of how a model hears: none of one that does not, or that knows one language alone."""
    if speech is None or speech.language is None:
        return ()
    change = "another one is set as language in its generation_config.json"
    return (f"every sound is taken to be in the language {speech.language}: {change}",)


def _sound(heard: _Heard, name: str) -> Sound:
    if heard.feature_extractor_type not in _PROCESSORS or heard.do_normalize or heard.dither:
        kind = heard.feature_extractor_type or "processor of no name"
        more = " with do_normalize or dither" if heard.feature_extractor_type in _PROCESSORS else ""
        hint = f"supported: {', '.join(_PROCESSORS)} as it is by default"
        raise EdgemlError(f"{name} hears by a {kind}{more}, which edgeml cannot follow", hint=hint)
    return Sound(
        sampling_hz=heard.sampling_rate,
        fft_size=heard.n_fft,
        hop=heard.hop_length,
        mel_bins=heard.feature_size,
        window_s=heard.chunk_length,
    )


def _language(written: _Written, name: str) -> str | None:
    """The code of the language that an answer is in; None where the model knows one alone."""
    if not written.lang_to_id:
        return None
    asked = written.language or _forced(written, written.lang_to_id) or _LANGUAGE
    code = asked.strip("<|>").lower()
    if f"<|{code}|>" not in written.lang_to_id:
        from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

        code = TO_LANGUAGE_CODE.get(code, code)  # `german`, as fine-tuned models have it
    if f"<|{code}|>" not in written.lang_to_id:
        known = ", ".join(key.strip("<|>") for key in written.lang_to_id)
        problem = f"{name} has no language {asked!r}"
        raise EdgemlError(problem, hint=f"set language in generation_config.json to one of {known}")
    return code


def _start(written: _Written, first: int, language: str | None) -> tuple[int, ...]:
    """The tokens before an answer, as Transformers puts them: begin, language, task, no times."""
    named = [first]
    if language is not None:
        named.append(written.lang_to_id[f"<|{language}|>"])
        task = written.task or _forced(written, written.task_to_id) or _TASK
        named += [written.task_to_id[task]] if task in written.task_to_id else []
    else:
        named += [token for _, token in written.forced_decoder_ids or () if token is not None]
    times = written.no_timestamps_token_id
    if times is not None and times not in named:
        named.append(times)
    return tuple(named)


def _forced(written: _Written, known: dict[str, int]) -> str | None:
    """Which of the names the older settings force, where newer ones name neither language nor task."""
    if written.language or written.task:
        return None
    forced = {token for _, token in written.forced_decoder_ids or ()}
    return next((name for name, token in known.items() if token in forced), None)


def _read(folder: Path, name: str, kind: Any) -> Any:
    path = folder / name
    try:
        return msgspec.convert(parse_json(path.read_bytes()), kind)
    except OSError as error:
        hint = f"put the model's {name} beside its weights"
        raise EdgemlError(f"{folder.name} has no {name} that can be read", hint=hint) from error
    except ValueError as error:
        raise EdgemlError(f"cannot read {path}: {error}", hint="download the model again") from error
