"""What is a model among some files: which of them to take, in which format, and what is refused.

Shared by every source. Knows nothing of where the files come from, and reads no weights beyond their headers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from edgeml.errors import EdgemlError
from edgeml.sources import Consent
from edgeml.types import WeightFormat
from edgeml.yaml_files import parse_yaml
from edgeml_runtime.records import parse_json
from edgeml_runtime.types import Record

CONFIG = "config.json"
README = "README.md"
SHARD_INDEX = ".index.json"
INDEX = "model.safetensors.index.json"
ALLOW_PICKLE = "--allow-pickle"
ALLOW_CODE = "--allow-code"
# Written out so that a repository's images, training logs and second formats stay where they are.
SIDE_FILES = (
    CONFIG,
    "config_*.json",
    "generation_config.json",
    "preprocessor_config.json",
    "tokenizer*.json",
    "*.model",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.*",
    "modules.json",
    "sentence_*_config.json",
    README,
    "LICEN[CS]E*",
    "NOTICE*",
    "USE_POLICY*",
)
_SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
_PART = re.compile(r"-\d{5}-of-\d{5}(?=\.gguf$)")
_MODULE_FILE = re.compile(r"\d+_\w+/(config\.json|model\.safetensors)")
_MODULE_PICKLE = re.compile(r"(\d+_\w+)/pytorch_model\.bin")
_PICKLE = re.compile(r"pytorch_model(-\d{5}-of-\d{5})?\.bin(\.index\.json)?")
_PICKLE_ENDINGS = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
WEIGHT_ENDINGS = (".safetensors", ".gguf", ".onnx", *_PICKLE_ENDINGS)
# Full precision, then 8 bits; a guess among coarser ones would decide a model's quality for its user.
_GGUF_TYPES = ("f16", "bf16", "f32", "q8_0")
_MOST_NAMES, _LONGEST_NAME = 10, 200  # of what a card says that is shown; longer ones name nothing
# A model's own task, most telling first: cards list several tags, and `feature-extraction` fits every encoder.
TASK_TAGS = (
    "sentence-similarity",
    "text-classification",
    "token-classification",
    "text2text-generation",
    "text-generation",
    "image-classification",
    "automatic-speech-recognition",
    "feature-extraction",
)


class Choice(Record, frozen=True, kw_only=True):
    """The files of a model: `sides` are small and read first, `weights` are large."""

    format: WeightFormat
    weights: tuple[str, ...]
    sides: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """Every file's path, relative to the model's folder."""
        return self.sides + self.weights


class Card(Record, frozen=True, kw_only=True):
    """What a model's README declares in its front matter."""

    licence: str | None = None
    task: str | None = None


def choose(names: Iterable[str], *, consent: Consent, where: str) -> Choice:
    """The files that a conversion needs, of all that are there.

    `names` are relative, with forward slashes; `where` names the model in errors. Safetensors come before GGUF, GGUF
    before ONNX, and pickles only with consent. Raises EdgemlError when nothing is left or several could be meant.
    """
    present = sorted(set(names))
    if outside := next((name for name in present if not is_inside(name)), None):
        raise EdgemlError(f"{where} names a file outside its own folder: {outside}", hint="do not use this model")
    sides = [name for name in present if any(fnmatchcase(name, side) for side in SIDE_FILES) and "/" not in name]
    if consent.remote_code:
        sides += [name for name in present if name.endswith(".py") and "/" not in name]
    if tensors := _safetensors(present):
        return _with_modules(present, tensors, sides, consent=consent, where=where)
    if gguf := _gguf(present, where):
        return Choice(format="gguf", weights=gguf, sides=tuple(sides))
    if onnx := _onnx(present, where):
        return Choice(format="onnx", weights=onnx, sides=tuple(sides))
    return _pickles(present, sides, consent=consent, where=where)


def is_inside(name: str) -> bool:
    """Whether a name that somebody else wrote stays below the folder that it is put into, on every system."""
    return not (name.startswith("/") or ".." in name.split("/") or "\\" in name or ":" in name or "\0" in name)


def roots(names: Iterable[str]) -> tuple[str, ...]:
    """The folders (`""` is the top) that hold a model of their own; one inside another's folder is a part of it."""
    paths = [PurePosixPath(name) for name in names]
    configured = {path.parent for path in paths if path.name == CONFIG}
    found = {path.parent for path in paths if path.suffix in (".gguf", ".onnx")}
    endings = (".safetensors", *_PICKLE_ENDINGS)
    found |= {path.parent for path in paths if path.suffix in endings and path.parent in configured}
    outer = [folder for folder in found if not any(parent in found for parent in folder.parents)]
    return tuple(sorted("" if str(folder) == "." else str(folder) for folder in outer))


def check_sides(folder: Path, choice: Choice, *, consent: Consent, where: str) -> None:
    """Refuse, from the small files alone, what would fail after the large ones came.

    That is code that came with the model (without consent), and an index that names a shard that is not there.
    """
    code = _own_code(folder)
    if code and not consent.remote_code:
        message = f"{where} runs code of its own ({code}), which edgeml does not do unasked"
        raise EdgemlError(message, hint=f"read that code; if you trust it, add {ALLOW_CODE}")
    for index in (name for name in choice.sides if name.endswith(SHARD_INDEX)):
        shards = _json(folder / index).get("weight_map", {})
        if not isinstance(shards, dict):
            raise EdgemlError(f"{folder / index} has no weight_map that names files", hint="fetch it again")
        missing = sorted(set(map(str, shards.values())) - set(choice.weights))
        if missing:
            raise EdgemlError(f"{where} lacks {missing[0]}, which {index} names", hint="fetch or copy it in full")


def read_card(folder: Path) -> Card:
    """Licence and task from `README.md`; both absent where it has no front matter."""
    path = folder / README
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    front = re.match(r"\ufeff?---\s*\n(.*?)\n---\s*(\n|$)", text, re.DOTALL)
    try:
        plain = parse_yaml(front[1], yaml.SafeLoader) if front else None
    except yaml.YAMLError:
        plain = None
    if not isinstance(plain, dict):
        return Card()
    return Card(licence=_licence(plain), task=_task(plain))


def _safetensors(names: Sequence[str]) -> tuple[str, ...]:
    at_top = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if "model.safetensors" in at_top:
        return ("model.safetensors",)
    if INDEX in names:
        return tuple(name for name in at_top if _SHARD.fullmatch(name))
    return ()


def _with_modules(
    names: Sequence[str], tensors: tuple[str, ...], sides: list[str], *, consent: Consent, where: str
) -> Choice:
    if CONFIG not in sides:
        raise EdgemlError(f"{where} has weights but no {CONFIG}", hint="a safetensors model needs its config.json")
    parts = [name for name in names if _MODULE_FILE.fullmatch(name)]
    found = (_MODULE_PICKLE.fullmatch(name) for name in names)
    pickles = [match[0] for match in found if match and f"{match[1]}/model.safetensors" not in parts]
    if pickles and not consent.pickle:
        raise _pickle_refused(where, pickles[0])
    index = [name for name in names if name == INDEX and "model.safetensors" not in tensors]
    small = [name for name in parts if name.endswith(".json")]
    large = [name for name in parts if not name.endswith(".json")]
    return Choice(format="safetensors", weights=(*tensors, *large, *pickles), sides=(*sides, *index, *small))


def gguf_parts(name: str, beside: Iterable[str]) -> list[str]:
    """A GGUF file and, where it is one of several, the other parts of its model among the names `beside` it."""
    whole = _PART.sub("", name)
    return sorted({name, *(other for other in beside if _PART.search(other) and _PART.sub("", other) == whole)})


def _gguf(names: Sequence[str], where: str) -> tuple[str, ...]:
    models = [name for name in names if name.endswith(".gguf") and "mmproj" not in name.lower()]
    groups: dict[str, list[str]] = {}
    for name in models:
        groups.setdefault(_PART.sub("", name), []).append(name)
    if len(groups) <= 1:
        return tuple(models)
    for wanted in _GGUF_TYPES:
        of_type = [key for key in groups if re.search(rf"(^|[-_./]){wanted}\.gguf$", key.lower())]
        if len(of_type) == 1:
            return tuple(groups[of_type[0]])
    raise EdgemlError(
        f"{where} holds {len(groups)} GGUF models: {', '.join(groups)}",
        hint="fetch the one you want and give edgeml its path",
    )


def _onnx(names: Sequence[str], where: str) -> tuple[str, ...]:
    graphs = [name for name in names if name.endswith(".onnx")]
    plain = [name for name in graphs if name in ("model.onnx", "onnx/model.onnx")]
    chosen = plain[:1] or graphs
    if len(chosen) > 1:
        hint = "give edgeml the path of the one you want"
        raise EdgemlError(f"{where} holds {len(graphs)} ONNX models: {', '.join(graphs)}", hint=hint)
    return tuple(name for name in names if chosen and name.startswith(chosen[0]))  # with its external data


def _pickles(names: Sequence[str], sides: list[str], *, consent: Consent, where: str) -> Choice:
    found = [name for name in names if name.endswith(_PICKLE_ENDINGS) and "/" not in name]
    if not (found and consent.pickle):
        _refuse_misnamed(names, where)
    if not found:
        raise EdgemlError(
            f"{where} holds no weights", hint="edgeml reads safetensors with config.json, GGUF and ONNX; check the path"
        )
    if not consent.pickle:
        raise _pickle_refused(where, found[0])
    usable = [name for name in names if _PICKLE.fullmatch(name)]
    if not usable or CONFIG not in sides:
        raise EdgemlError(f"{where} has no config.json with pytorch_model.bin", hint="convert it to safetensors first")
    large = [name for name in usable if not name.endswith(SHARD_INDEX)]
    index = [name for name in usable if name.endswith(SHARD_INDEX)]
    return Choice(format="pickle", weights=tuple(large), sides=(*sides, *index))


def _refuse_misnamed(names: Sequence[str], where: str) -> None:
    """Safetensors of a name that no library looks for; an adapter is no model, `consolidated` is a second copy."""
    at_top = [name for name in names if name.endswith(".safetensors") and "/" not in name]
    if shards := [name for name in at_top if _SHARD.fullmatch(name)]:
        raise EdgemlError(f"{where} has {shards[0]} but no {INDEX}", hint="fetch or copy it in full")
    if others := [name for name in at_top if not name.startswith(("adapter_", "consolidated"))]:
        message = f"{where} keeps its weights in {others[0]}, where model.safetensors is expected"
        raise EdgemlError(message, hint="if it is the whole model, rename it: model.safetensors")


def _pickle_refused(where: str, name: str) -> EdgemlError:
    return EdgemlError(
        f"{where} keeps weights in {name}, a pickle, which runs code when it is opened",
        hint=f"look for a safetensors version; if you trust its maker, add {ALLOW_PICKLE}",
    )


def _own_code(folder: Path) -> str | None:
    """The first class that the model's files ask for and no library of ours has."""
    for name in (CONFIG, "tokenizer_config.json"):
        asked = _json(folder / name).get("auto_map")
        if asked:
            return f"{name}: {next(iter(asked.values())) if isinstance(asked, dict) else asked}"
    kinds = [str(module.get("type")) for module in _json(folder / "modules.json", list) if isinstance(module, dict)]
    foreign = [kind for kind in kinds if not kind.startswith("sentence_transformers.")]
    return f"modules.json: {foreign[0]}" if foreign else None


def _json(path: Path, kind: type[Any] = dict) -> Any:
    if not path.is_file():
        return kind()
    try:
        plain = parse_json(path.read_bytes())
    except ValueError as error:
        raise EdgemlError(f"{path} is not valid JSON: {error}", hint="fetch it again, or repair it") from error
    if not isinstance(plain, kind):
        raise EdgemlError(f"{path} holds a JSON {type(plain).__name__}, not a {kind.__name__}", hint="fetch it again")
    return plain


def _licence(card: dict[str, Any]) -> str | None:
    stated = card.get("license")
    if stated == "other":
        stated = card.get("license_name") or stated
    names = [one for one in stated if isinstance(one, str)] if isinstance(stated, list) else [stated]
    text = " AND ".join(one for one in names[:_MOST_NAMES] if isinstance(one, str))
    return text if text.isprintable() and 0 < len(text) <= _LONGEST_NAME else None


def _task(card: dict[str, Any]) -> str | None:
    stated, tags = card.get("pipeline_tag"), card.get("tags")
    if isinstance(stated, str) and stated.isprintable() and 0 < len(stated) <= _LONGEST_NAME:
        return stated
    return next((task for task in TASK_TAGS if task in tags), None) if isinstance(tags, list) else None
