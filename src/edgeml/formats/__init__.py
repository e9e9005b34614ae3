"""File formats. Each turns a verified source into one weight file and audits what that file really holds."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, cast

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets.types import Profile
from edgeml.types import Model, Scheme, Traits
from edgeml_runtime.types import Audit, Record

_ONNX = "in a clone of edgeml: make onnx"
_GGUF = "install a C++ compiler (Debian: sudo apt install g++; macOS: xcode-select --install), then: make gguf"
_LIBRARIES = {
    "onnx": (("torch", _ONNX), ("transformers", _ONNX), ("onnx", _ONNX), ("onnxruntime", _ONNX)),
    "gguf": (("llama_cpp", _GGUF), ("conversion", "in a clone of edgeml: make gguf")),
}

CONVOLUTIONAL = ("ResNetForImageClassification", "MobileNetV2ForImageClassification")
# Schemes that nobody should be offered for some Transformers classes. Integers without calibration make convolutions
# several times slower in ONNX Runtime.
UNSUITED: dict[str, tuple[str, ...]] = {"onnx:int8": CONVOLUTIONAL}


class Converted(Record, frozen=True, kw_only=True):
    """What a format wrote into its folder: the weight file's name, its interface, and the audit of its bytes.

    `graphs` are all weight files by what they do, where there are several; `weights` is the one that answers.
    """

    weights: str
    audit: Audit
    graphs: dict[str, str] = {}
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    built_for: str | None = None
    tools: dict[str, str] = {}


class Request(Record, frozen=True, kw_only=True):
    """One conversion: a verified model, what its files say, the scheme, and the profile it is made for.

    `shared` is a folder that outlives the conversion: what several schemes of a model need is made there once.
    """

    model: Model
    traits: Traits
    scheme: Scheme
    profile: Profile
    shared: Path | None = None


class Format(Protocol):
    """One module a format."""

    def convert(self, request: Request, folder: Path, *, progress: Progress) -> Converted:
        """Write the variant's files (weights, tokenizer where it is not inside) into `folder`, which is empty."""


@contextmanager
def shared_folder(request: Request, folder: Path) -> Iterator[Path]:
    """The request's shared folder, or one inside `folder` that ends with this conversion."""
    if request.shared:
        yield request.shared
    else:
        with TemporaryDirectory(dir=folder, prefix="shared-") as scratch:
            yield Path(scratch)


def missing_library(scheme: Scheme) -> EdgemlError | None:
    """Why this scheme cannot be made here, or None when it can."""
    for module, hint in _LIBRARIES[scheme.format]:
        if find_spec(module) is None:
            return EdgemlError(f"the Python module {module}, which {scheme.format} needs, is missing", hint=hint)
    return None


def format_of(scheme: Scheme) -> Format:
    """The module that writes this scheme, imported only now."""
    return cast("Format", import_module(f"edgeml.formats.{scheme.format}"))
