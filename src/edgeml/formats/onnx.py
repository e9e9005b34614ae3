"""ONNX: from a safetensors folder or another ONNX file to one graph of the wanted scheme, and its audit.

The work is Transformers' exporter and ONNX Runtime's quantizer, in a child process (`onnx_child`); this module decides
what is asked of it and reads back what was written. It knows nothing about how variants are named or kept.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats import Converted, Request
from edgeml.formats.child import run_module
from edgeml.formats.onnx_audit import audit, interface
from edgeml.progress import Progress

WEIGHTS = "model.onnx"
# The Transformers classes whose export is tested: encoders that give hidden states, decoders that carry a cache.
ENCODERS = ("BertModel", "DistilBertModel", "MPNetModel", "RobertaModel", "XLMRobertaModel")
DECODERS = ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_NEEDED = 2.2  # the graph in fp32 and what is made of it lie side by side for a while
_NOT_EXPORTED = "the exporter does not take this model as it is: try a gguf: scheme"


def convert(request: Request, folder: Path, *, progress: Progress) -> Converted:
    """Write `model.onnx` and `tokenizer.json` into `folder` and read back what they hold."""
    source = _source(request)
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < request.model.size_bytes * _NEEDED:
        need = f"{request.model.size_bytes * _NEEDED / 1e6:.1f} MB needed, {free_bytes / 1e6:.1f} MB free"
        raise EdgemlError(
            f"not enough space in {folder.parent}: {need}", hint="free some, or use --artifacts elsewhere"
        )
    _run_child(request, source, folder, progress)
    inputs, outputs = interface(folder / WEIGHTS)
    quantized = request.scheme.name != "fp32"
    return Converted(
        weights=WEIGHTS,
        audit=audit(folder / WEIGHTS, request.scheme.name, source_quantized=request.traits.quantized),
        inputs=inputs,
        outputs=outputs,
        built_for=request.profile.integer_kernels if quantized else None,
        tools={name: version(name) for name in _TOOLS},
    )


def _source(request: Request) -> Path:
    model, traits = request.model, request.traits
    if model.format == "onnx":
        return Path(model.path) / next(file.path for file in model.files if file.path.endswith(".onnx"))
    if model.format == "gguf":
        raise EdgemlError(f"{model.name} is a GGUF model, which cannot become ONNX", hint="use a gguf: scheme")
    if traits.quantized:
        hint = "start from its full-precision model"
        raise EdgemlError(f"{model.name} is quantized already ({traits.quantized}) and cannot become ONNX", hint=hint)
    if traits.architecture not in ENCODERS + DECODERS:
        known = ", ".join(ENCODERS + DECODERS)
        message = f"{model.name} is a {traits.architecture}, which edgeml cannot make into ONNX"
        raise EdgemlError(message, hint=f"supported: {known}")
    return Path(model.path)


def _run_child(request: Request, source: Path, folder: Path, progress: Progress) -> None:
    def follow(line: str) -> None:
        if line.startswith("@"):
            step, _, count = line[1:].strip().partition(" ")
            done, _, total = step.partition("/")
            progress(count, int(done), int(total))

    kind = "encoder" if request.traits.is_encoder else "decoder"
    arguments = [str(source), str(folder), kind, request.scheme.name, request.profile.integer_kernels]
    what = f"making {request.scheme} of {request.model.name}"
    run_module("edgeml.formats.onnx_child", arguments, what=what, hint=_NOT_EXPORTED, follow=follow)
