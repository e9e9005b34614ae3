"""File formats. Each turns a verified source into one weight file and audits what that file really holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, Protocol, cast

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets.types import Profile
from edgeml.types import Model, Scheme, Traits
from edgeml_runtime.records import sha256
from edgeml_runtime.types import Audit, Record

_ONNX = "in a clone of edgeml: make onnx"
_GGUF = "install a C++ compiler (Debian: sudo apt install g++; macOS: xcode-select --install), then: make gguf"
_LIBRARIES = {
    "onnx": (("torch", _ONNX), ("transformers", _ONNX), ("onnx", _ONNX), ("onnxruntime", _ONNX)),
    "gguf": (("llama_cpp", _GGUF), ("conversion", "in a clone of edgeml: make gguf")),
}

CONVOLUTIONAL = tuple(
    f"{family}ForImageClassification"
    for family in ("ConvNext", "ConvNextV2", "MobileNetV1", "MobileNetV2", "RegNet", "ResNet")
)
# Schemes that nobody should be offered for some Transformers classes. Integers without calibration make convolutions
# several times slower in ONNX Runtime, and it has no convolution with weights of 4 bits.
UNSUITED: dict[str, tuple[str, ...]] = dict.fromkeys(("onnx:int8", "onnx:int8-dynamic", "onnx:int4"), CONVOLUTIONAL)


CalibrationMethod = Literal["minmax", "entropy", "percentile"]


class Converted(Record, frozen=True, kw_only=True):
    """What a format wrote into its folder: the weight file's name, its interface, and the audit of its bytes.

    `graphs` are all weight files by what they do, where there are several; `weights` is the one that answers.
    `settings` are what the format chose and measured on the way, and `calibrated` says whether it looked at the
    calibration inputs.
    """

    weights: str
    audit: Audit
    graphs: dict[str, str] = {}
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    built_for: str | None = None
    tools: dict[str, str] = {}
    settings: dict[str, Any] = {}
    chat_template: Literal["none", "kept", "left out"] | None = None
    notes: tuple[str, ...] = ()
    calibrated: bool = False


class Calibration(Record, frozen=True, kw_only=True):
    """The user's own inputs, which a scheme may look at: never a label of theirs.

    One of the three is there: `texts`, `words` where a model reads words one by one, `images`, the paths of pictures,
    absolute. `sha256` is the digest of the file they came from, or of the pictures.
    """

    name: str
    sha256: str
    texts: tuple[str, ...] = ()
    words: tuple[tuple[str, ...], ...] = ()
    images: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.texts or self.words or self.images)


class Wishes(Record, frozen=True, kw_only=True):
    """What the user decides of a conversion; what is left out, the scheme decides.

    ONNX: `calibration_method` finds the range of activations, using at most `memory_bytes`; nodes whose name fits one
    of the patterns `exclude` stay in floating point; with `min_agreement`, so do the most harmful ones until the
    outputs agree with fp32's (cosine, the mean over calibration rows that set no range) at least so well; `block_size`
    is the number of int4 weights with one scale. GGUF: `imatrix` is a file of llama.cpp's own that holds an importance
    matrix, and `tensor_types` are `PATTERN=TYPE`, the ggml type of the tensors whose name fits. Patterns are regular
    expressions that may fit anywhere in a name.
    """

    calibration_method: CalibrationMethod | None = None
    memory_bytes: int | None = None
    exclude: tuple[str, ...] = ()
    min_agreement: float | None = None
    block_size: int | None = None
    imatrix: str | None = None
    tensor_types: tuple[str, ...] = ()


_NODES = ("exclude", "min_agreement")
_RANGES = ("calibration_method", "memory_bytes")
_USED: dict[str, tuple[str, ...]] = {
    "onnx:int8": (*_RANGES, *_NODES),
    "onnx:int8-dynamic": _NODES,
    "onnx:int8-static": (*_RANGES, *_NODES),
    "onnx:int4": ("block_size", *_NODES),
    **dict.fromkeys(("gguf:f32", "gguf:f16", "gguf:bf16"), ()),  # written by the converter, which takes no wishes
}
_USED_BY_FORMAT = {"gguf": ("imatrix", "tensor_types")}
_OPTIONS = {"memory_bytes": "--memory", "tensor_types": "--tensor-type"}


def wishes_for(scheme: Scheme, wishes: Wishes) -> Wishes:
    """Those of the wishes that this scheme has a use for."""
    used = {name: getattr(wishes, name) for name in _used(scheme)}
    return Wishes(**used)


def unused_wish(wishes: Wishes, schemes: Sequence[Scheme]) -> EdgemlError | None:
    """The refusal of a wish that none of the schemes has a use for; None where each has."""
    for name, default in zip(Wishes.__struct_fields__, Wishes.__struct_defaults__, strict=True):
        if getattr(wishes, name) != default and not any(name in _used(scheme) for scheme in schemes):
            option = _OPTIONS.get(name, f"--{name.replace('_', '-')}")
            of = [*(known for known, names in _USED.items() if name in names)]
            of += [f"quantized {format}: schemes" for format, names in _USED_BY_FORMAT.items() if name in names]
            message = f"{option} says nothing to {', '.join(map(str, schemes))}"
            return EdgemlError(message, hint=f"it is for {', '.join(of)}")
    return None


def looks_at_inputs(scheme: Scheme, wishes: Wishes) -> bool:
    """Whether this scheme is made otherwise with calibration inputs than without, whatever the model."""
    if scheme.format == "gguf":
        from edgeml.formats.gguf.mixtures import MIXTURES

        return MIXTURES[scheme.name].uses_matrix and wishes.imatrix is None
    return str(scheme) in _USED


def _used(scheme: Scheme) -> tuple[str, ...]:
    return _USED.get(str(scheme), _USED_BY_FORMAT.get(scheme.format, ()))


class Request(Record, frozen=True, kw_only=True):
    """One conversion: a verified model, what its files say, the scheme, and the profile it is made for.

    `shared` is a folder that outlives the conversion: what several schemes of a model need is made there once. `kept`
    outlives the command: what was computed on calibration inputs, and would take as long the next time, stays there.
    `settled` are the settings of an earlier conversion, which is to be repeated: nothing is chosen or timed anew.
    """

    model: Model
    traits: Traits
    scheme: Scheme
    profile: Profile
    shared: Path | None = None
    kept: Path | None = None
    calibration: Calibration | None = None
    wishes: Wishes = Wishes()
    settled: dict[str, Any] = {}


class Format(Protocol):
    """One module a format."""

    def convert(self, request: Request, folder: Path, *, progress: Progress) -> Converted:
        """Write the variant's files (weights, tokenizer where it is not inside) into `folder`, which is empty."""


def matrix_digest(path: Path) -> str:
    """How a manifest names an importance matrix: by its digest, for a path is nobody else's business."""
    try:
        return f"sha256:{sha256(path)}"
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint="check the path") from error


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
    return cast("Format", import_module(f"edgeml.formats.{scheme.format}.conversion"))
