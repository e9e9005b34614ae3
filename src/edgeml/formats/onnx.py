"""ONNX: from a safetensors folder or another ONNX file to one graph of the wanted scheme, and its audit.

The work is Transformers' exporter and ONNX Runtime's quantizer, in a child process (`onnx_child`); this module decides
what is asked of it and reads back what was written. It knows nothing about how variants are named or kept.
"""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats import CONVOLUTIONAL, UNSUITED, Converted, Request, shared_folder
from edgeml.formats.child import run_module
from edgeml.formats.onnx_audit import audit, check_interface, interface
from edgeml.formats.onnx_child import WEIGHTS
from edgeml.formats.onnx_seq2seq import GRAPHS
from edgeml.formats.view import data_view
from edgeml.progress import Progress
from edgeml_runtime.records import decode
from edgeml_runtime.session import Kind, kind_of
from edgeml_runtime.types import Refusal

# The Transformers classes whose export is tested, by what becomes of them: encoders that give hidden states (many are
# kept with the head that they were trained with, which is left out), heads that give logits, classifiers of pictures,
# decoders with a cache, and pairs of an encoder and a decoder.
_FAMILIES = ("Bert", "DistilBert", "MPNet", "Roberta", "XLMRoberta")
CLASSES: dict[Kind, tuple[str, ...]] = {
    "encoder": tuple(f"{family}{ending}" for family in _FAMILIES for ending in ("Model", "ForMaskedLM")),
    "classifier": tuple(f"{family}ForSequenceClassification" for family in _FAMILIES),
    "tagger": tuple(f"{family}ForTokenClassification" for family in _FAMILIES),
    "image": ("ViTForImageClassification", *CONVOLUTIONAL),
    "decoder": ("LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"),
    "seq2seq": ("T5ForConditionalGeneration",),
}
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_NEEDED = 4.5  # graphs in fp32 that lie side by side for a while: the export, clean, fused, with shapes, and the last
_NOT_EXPORTED = "the exporter does not take this model as it is: try a gguf: scheme"


def convert(request: Request, folder: Path, *, progress: Progress) -> Converted:
    """Write the graph, or the graphs, and `tokenizer.json` into `folder` and read back what they hold."""
    source = _source(request)
    _need_space(folder, request.model.size_bytes * _NEEDED)
    with shared_folder(request, folder) as shared, data_view(request.model) as view:
        _run_child(request, view / source, folder, shared, progress)
    graphs = GRAPHS if kind_of(request.traits.task) == "seq2seq" else {}
    files = [folder / name for name in graphs.values() or (WEIGHTS,)]
    inputs, outputs = interface(files[-1])
    return Converted(
        weights=files[-1].name,
        graphs=graphs,
        audit=audit(files, request.scheme.name),
        inputs=inputs,
        outputs=outputs,
        built_for=None if request.scheme.name == "fp32" else request.profile.integer_kernels,
        tools={name: version(name) for name in _TOOLS},
    )


def _source(request: Request) -> Path:
    """What the child reads, within the model's folder: all of it, or a graph that the runtime will be able to feed."""
    model, traits, kind = request.model, request.traits, kind_of(request.traits.task)
    if model.format == "gguf":
        raise EdgemlError(f"{model.name} is a GGUF model, which cannot become ONNX", hint="use a gguf: scheme")
    if traits.quantized:
        hint = "start from its full-precision model"
        raise EdgemlError(f"{model.name} is quantized already ({traits.quantized}) and cannot become ONNX", hint=hint)
    if model.format == "onnx" and kind in ("image", "seq2seq"):
        problem = f"{model.name} is an ONNX model for {traits.task}, which edgeml exports itself"
        raise EdgemlError(problem, hint="start from its safetensors folder")
    if model.format == "onnx":
        graph = next(file.path for file in model.files if file.path.endswith(".onnx"))
        check_interface(Path(model.path, graph), kind=kind, labels=len(traits.labels))
        return Path(graph)
    if traits.architecture not in CLASSES[kind]:
        message = f"{model.name} is a {traits.architecture}, which edgeml cannot make into ONNX for {traits.task}"
        supported = [name for names in CLASSES.values() for name in names]
        raise EdgemlError(message, hint=f"supported: {', '.join(supported)}")
    if traits.architecture in UNSUITED.get(str(request.scheme), ()):
        message = f"{request.scheme} of {model.name}, a convolutional net, needs calibration images"
        raise EdgemlError(message, hint="edgeml takes none yet: use onnx:fp32")
    return Path()


def _need_space(folder: Path, need_bytes: float) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        message = (
            f"not enough space in {folder.parent}: {need_bytes / 1e6:.1f} MB needed, {free_bytes / 1e6:.1f} MB free"
        )
        raise EdgemlError(message, hint="free some space, or write elsewhere with --artifacts")


def _run_child(request: Request, source: Path, folder: Path, shared: Path, progress: Progress) -> None:
    refusals: list[Refusal] = []

    def follow(line: str) -> None:
        if line.startswith("@"):
            count, _, step = line[1:].strip().partition(" ")
            done, _, total = count.partition("/")
            progress(step, int(done), int(total))
        elif line.startswith("!"):
            refusals.append(decode(line[1:], Refusal, where="the exporter's answer"))

    folders = [str(source), str(folder), str(shared)]
    arguments = [*folders, kind_of(request.traits.task), request.scheme.name, request.profile.integer_kernels]
    what = f"making {request.scheme} of {request.model.name}"
    try:
        run_module("edgeml.formats.onnx_child", arguments, what=what, hint=_NOT_EXPORTED, follow=follow)
    except EdgemlError as error:
        if refusals:
            raise EdgemlError(refusals[0].message, hint=refusals[0].hint) from error
        raise
