"""What a model folder's own configuration files say of it, decided once and equal in every format.

Knows the file layouts of Transformers and of Sentence Transformers; runs no code. Only what a GGUF or ONNX file says of
itself is asked of the format's own module.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec.structs import replace

from edgeml.errors import EdgemlError, why
from edgeml.preprocessing import read_pixels
from edgeml.speech import notes_on, read_speech
from edgeml.types import Model, Traits
from edgeml_runtime.records import parse_json
from edgeml_runtime.types import Pooling

# Position ids of these families start behind the padding id, so two of the table's rows are never used
# (transformers, `create_position_ids_from_input_ids`).
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet"}
_UNLIMITED = 1_000_000  # Transformers writes 1e30 as `model_max_length` where a tokenizer knows no limit
_TASKS = {
    "WhisperForConditionalGeneration": "automatic-speech-recognition",  # before the ending that it shares
    "ForCausalLM": "text-generation",
    "LMHeadModel": "text-generation",
    "ForConditionalGeneration": "text2text-generation",
    "ForSequenceClassification": "text-classification",
    "ForTokenClassification": "token-classification",
    "ForImageClassification": "image-classification",
}
# What a model's settings of generation may ask for that the runtime does not do, with what asks for nothing.
_USUAL = (
    *(("num_beams", 1), ("no_repeat_ngram_size", 0), ("encoder_no_repeat_ngram_size", 0), ("repetition_penalty", 1)),
    *(("min_length", 0), ("min_new_tokens", 0)),
)
_MODULES = ("Transformer", "Pooling", "Normalize")
_POOLING: dict[str, Pooling] = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}


_Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 31)]
_Limit = Annotated[float, msgspec.Meta(ge=0)]
_Label = Annotated[str, msgspec.Meta(pattern=r"^\d{1,9}$")]


class _Read(msgspec.Struct, frozen=True):
    """The types of all that is read of a model's files; what else stands there may be anything."""

    architectures: tuple[str, ...] | None = None
    model_type: str = ""
    quantization_config: dict[str, Any] | None = None
    max_position_embeddings: _Count | None = None
    n_positions: _Count | None = None
    max_seq_length: _Limit | None = None
    model_max_length: _Limit | None = None
    max_length: _Limit | None = None
    max_target_positions: _Count | None = None
    eos_token_id: _Count | tuple[_Count, ...] | None = None
    decoder_start_token_id: _Count | None = None
    forced_bos_token_id: _Count | None = None
    num_labels: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)] = 2
    id2label: dict[_Label, Any] | None = None
    truncation: _Read | None = None
    type: str = ""


def read_traits(model: Model) -> Traits:
    """The traits of a downloaded model, whichever format it came in."""
    folder = Path(model.path)
    if model.format == "gguf":
        from edgeml.formats.gguf.conversion import traits as gguf_traits

        return gguf_traits(folder / next(file.path for file in model.files if file.path.endswith(".gguf")))
    if model.format != "onnx":
        return folder_traits(folder, licence=model.licence)
    if not (folder / "config.json").is_file():
        raise EdgemlError(f"{model.name} has no config.json", hint="put the model's config.json beside its .onnx file")
    from edgeml.formats.onnx.audit import source_type

    graph = next(file.path for file in model.files if file.path.endswith(".onnx"))
    return replace(folder_traits(folder, licence=model.licence), quantized=source_type(folder / graph))


def folder_traits(folder: Path, *, licence: str | None = None) -> Traits:
    """The traits of a Transformers folder, Sentence Transformers' files included."""
    config = _json(folder / "config.json")
    architecture = (config.get("architectures") or [config.get("model_type", "unknown")])[0]
    modules = _modules(folder)
    quantization = config.get("quantization_config")
    task = "sentence-similarity" if modules else _task(architecture)
    image = task == "image-classification"
    speech = read_speech(folder) if task == "automatic-speech-recognition" else None
    return Traits(
        architecture=architecture,
        task=task,
        max_tokens=0 if image else _most_written(folder, config) if speech else _max_tokens(folder, config),
        start_token=_start_token(folder, config) if task == "text2text-generation" else None,
        first_token=_stated(folder, config, "forced_bos_token_id") if task == "text2text-generation" else None,
        pixels=read_pixels(folder) if image else None,
        speech=speech,
        pooling=_pooling(folder) if task in ("sentence-similarity", "feature-extraction") else None,
        normalize="Normalize" in modules,
        labels=_labels(config, folder.name) if task.endswith("-classification") else (),
        end_tokens=_end_tokens(folder, config),
        notes=(*(_notes(folder) if speech or "generation" in task else ()), *notes_on(speech)),
        licence=licence,
        quantized=str(quantization.get("quant_method", "unknown")) if quantization else None,
    )


def _modules(folder: Path) -> list[str]:
    """The steps of a Sentence Transformers model; one that edgeml would leave out is refused."""
    found = [str(module.get("type")).rpartition(".")[2] for module in _json(folder / "modules.json", [], list[_Read])]
    unknown = [name for name in found if name not in _MODULES]
    if unknown:
        raise EdgemlError(
            f"{folder.name} has a {unknown[0]} module, which edgeml cannot run",
            hint=f"supported: {', '.join(_MODULES)}",
        )
    return found


def _task(architecture: str) -> str:
    found = [task for ending, task in _TASKS.items() if architecture.endswith(ending)]
    return found[0] if found else "feature-extraction"


def _pooling(folder: Path) -> Pooling:
    # Without a pooling file the mean is Sentence Transformers' own default.
    config = _json(folder / "1_Pooling" / "config.json", {"pooling_mode_mean_tokens": True})
    modes = [key for key, value in config.items() if key.startswith("pooling_mode_") and value is True]
    if len(modes) != 1 or modes[0] not in _POOLING:
        raise EdgemlError(
            f"{folder.name} pools by {', '.join(modes) or 'nothing'}, which edgeml cannot do",
            hint=f"supported: {', '.join(sorted(_POOLING))}",
        )
    return _POOLING[modes[0]]


def _max_tokens(folder: Path, config: dict[str, Any]) -> int:
    tokenizer = _json(folder / "tokenizer_config.json", {})
    truncation = _json(folder / "tokenizer.json", {}).get("truncation") or {}
    positions = config.get("max_position_embeddings") or config.get("n_positions")
    if positions and config.get("model_type") in _OFFSET_POSITIONS:
        positions -= 2
    stated = (
        _json(folder / "sentence_bert_config.json", {}).get("max_seq_length"),
        tokenizer.get("model_max_length"),
        truncation.get("max_length"),
        positions,
    )
    usable = [int(limit) for limit in stated if limit and limit < _UNLIMITED]
    if not usable:
        raise EdgemlError(
            f"{folder.name} states no sequence limit", hint="set model_max_length in tokenizer_config.json"
        )
    return min(usable[0], positions or usable[0])


def _most_written(folder: Path, config: dict[str, Any]) -> int:
    """How many tokens a model that hears can write, start tokens included."""
    found = config.get("max_target_positions")
    if not found:
        problem = f"{folder.name} does not say how much it writes"
        raise EdgemlError(problem, hint="set max_target_positions in config.json")
    return int(found)


def _end_tokens(folder: Path, config: dict[str, Any]) -> tuple[int, ...]:
    found = _json(folder / "generation_config.json", {}).get("eos_token_id", config.get("eos_token_id"))
    if found is None:
        return ()
    return tuple(found) if isinstance(found, list) else (int(found),)


def _start_token(folder: Path, config: dict[str, Any]) -> int:
    """The token that an answer begins with."""
    found = _stated(folder, config, "decoder_start_token_id")
    if found is None:
        problem = f"{folder.name} does not say with which token an answer begins"
        raise EdgemlError(problem, hint="set decoder_start_token_id in config.json")
    return found


def _stated(folder: Path, config: dict[str, Any], key: str) -> int | None:
    """A token that the files name: those of generation before those of the model."""
    stated = (_json(folder / "generation_config.json", {}).get(key), config.get(key))
    return next((int(token) for token in stated if token is not None), None)


def _notes(folder: Path) -> tuple[str, ...]:
    """How the model's own settings would have it write otherwise than it does here."""
    stated = _json(folder / "generation_config.json", {})
    found = [(key, stated.get(key), usual) for key, usual in _USUAL]
    asked = [f"{key} {value}" for key, value, usual in found if isinstance(value, int | float) and value != usual]
    return (f"answers are greedy: {', '.join(asked)} of its generation_config.json is not done",) if asked else ()


def _labels(config: dict[str, Any], name: str) -> tuple[str, ...]:
    """The names of a classifier's answers, of which one is right; any other kind of classifier is refused."""
    count = config.get("num_labels", 2)  # a configuration with Transformers' default says nothing of its labels
    names = config.get("id2label") or {str(place): f"LABEL_{place}" for place in range(count)}
    if config.get("problem_type") == "multi_label_classification":
        message = f"{name} gives a text any number of labels (multi_label_classification), which edgeml cannot do yet"
        raise EdgemlError(message, hint="supported: models that give one label out of several")
    if len(names) < 2:
        message = f"{name} gives a number rather than one label out of several, which edgeml cannot do yet"
        raise EdgemlError(message, hint="supported: models with two labels or more in their config.json")
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _json(path: Path, default: Any = None, kind: Any = _Read) -> Any:
    """What a file holds, as it is written; what is read of it has the types that are read."""
    if default is not None and not path.is_file():
        return default
    try:
        plain = parse_json(path.read_bytes())
        if kind is _Read and not isinstance(plain, dict):
            raise EdgemlError(f"{path} holds no settings", hint="download the model again")
        msgspec.convert(plain, kind)
    except (OSError, ValueError) as error:
        raise EdgemlError(f"cannot read {path}: {why(error)}", hint="download the model again") from error
    return plain
