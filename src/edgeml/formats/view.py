"""A model's folder as converters may see it: the recorded data files, and no code nor word of where to find any.

What lies beside them (a second format's weights, a module) was neither checked nor allowed, and libraries that are
given a folder choose for themselves what to open in it. Knows nothing of any converter.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.types import Model
from edgeml_runtime.records import parse_json

_DATA_SUFFIXES = {".json", ".txt", ".md", ".model", ".jinja", ".safetensors", ".onnx"}


@contextmanager
def data_view(model: Model) -> Iterator[Path]:
    """A folder of that model's name with links to its recorded data files; it ends with the block."""
    with tempfile.TemporaryDirectory(prefix="edgeml-") as scratch:
        view = Path(scratch) / model.name
        link_data(model, view)
        yield view


def link_data(model: Model, view: Path) -> None:
    """Fill the folder `view`; a pickle is linked only where the model is one, which the user allowed.

    llama.cpp's converter loads tokenizers with `trust_remote_code=True`: an `auto_map` in a configuration would be run.
    """
    suffixes = _DATA_SUFFIXES | ({".bin"} if model.format == "pickle" else set())
    for file in model.files:
        source, link = Path(model.path, file.path).resolve(), view / file.path
        if not suffixes & {source.suffix, link.suffix}:
            continue
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.suffix == ".json" and b"auto_map" in source.read_bytes():
            link.write_text(_without_code(source), encoding="utf-8")
        else:
            link.symlink_to(source)


def _without_code(path: Path) -> str:
    def plain(pairs: list[tuple[str, object]]) -> dict[str, object]:
        return {key: value for key, value in pairs if key != "auto_map"}

    try:
        return json.dumps(parse_json(path.read_bytes(), object_pairs_hook=plain))
    except ValueError as error:
        raise EdgemlError(f"{path.name} is not valid JSON: {error}", hint="download the model again") from error
