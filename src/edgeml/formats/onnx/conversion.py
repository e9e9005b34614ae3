"""ONNX: from a safetensors folder or another ONNX file to one graph of the wanted scheme, and its audit.

The work is Transformers' exporter and ONNX Runtime's quantizer, in a child process (`child`); this module decides
what is asked of it and reads back what was written. It knows nothing about how variants are named or kept.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.formats import CONVOLUTIONAL, UNSUITED, Converted, Request, shared_folder
from edgeml.formats.child import run_module
from edgeml.formats.onnx.audit import audit, check_interface, interface
from edgeml.formats.onnx.chat import Kept, keep_template
from edgeml.formats.onnx.child import WEIGHTS
from edgeml.formats.onnx.order import Answer, Order, require_two
from edgeml.formats.onnx.seq2seq import GRAPHS, PAIRS
from edgeml.formats.room import full_bytes, need_disk, need_memory
from edgeml.formats.view import data_view
from edgeml.progress import Progress
from edgeml.targets.recognition import is_here
from edgeml_runtime.records import decode, write_record
from edgeml_runtime.session import Kind, kind_of
from edgeml_runtime.types import Refusal

# The Transformers classes whose export is tested, by what becomes of them: encoders that give hidden states (many are
# kept with the head that they were trained with, which is left out), heads that give logits, classifiers of pictures,
# decoders with a cache, and pairs of an encoder and a decoder.
_FAMILIES = (
    *("Albert", "Bert", "Camembert", "DebertaV2", "DistilBert", "Electra", "ModernBert", "MPNet"),
    *("Roberta", "XLMRoberta"),
)
_DECODERS = (
    *("Bloom", "Ernie4_5", "GPTJ", "GPTNeo", "GPTNeoX", "Gemma", "Gemma2", "Gemma3", "Granite", "Llama", "Mistral"),
    *("OPT", "Olmo2", "Phi", "Phi3", "Qwen2", "Qwen3", "SmolLM3", "StableLm", "Starcoder2"),
)
CLASSES: dict[Kind, tuple[str, ...]] = {
    "encoder": tuple(f"{family}{ending}" for family in _FAMILIES for ending in ("Model", "ForMaskedLM")),
    "classifier": tuple(f"{family}ForSequenceClassification" for family in _FAMILIES),
    "tagger": tuple(f"{family}ForTokenClassification" for family in _FAMILIES),
    "image": (*(f"{family}ForImageClassification" for family in ("DeiT", "Dinov2", "Swin", "ViT")), *CONVOLUTIONAL),
    "decoder": (*(f"{family}ForCausalLM" for family in _DECODERS), "GPT2LMHeadModel"),
    "seq2seq": tuple(f"{family}ForConditionalGeneration" for family in ("Bart", "MT5", "T5")),
    "speech": ("WhisperForConditionalGeneration",),
}
_TOOLS = ("torch", "transformers", "onnx", "onnxscript", "onnxruntime")
_NEEDED = 4.5  # graphs in fp32 that lie side by side for a while: the export, clean, fused, with shapes, and the last
# How often memory holds the weights in fp32 at most, beside the libraries: the exporter, and the quantizers. Measured
# with a Llama of 645 million parameters: 4.7 GB for fp32, 7.9 GB for int8.
_HELD = {"fp32": 1.5}
_HELD_ELSE = 3.0
_LIBRARIES_BYTES = 900_000_000
_LARGE_BYTES = 500_000_000  # of weights in fp32: below, a second process costs more time than its memory is worth
_NOT_EXPORTED = "the exporter does not take this model as it is: try a gguf: scheme"


def convert(request: Request, folder: Path, *, progress: Progress) -> Converted:
    """Write the graph, or the graphs, and `tokenizer.json` into `folder` and read back what they hold."""
    source = _source(request)
    _require_inputs(request)
    large = _require_room(request, folder)
    with shared_folder(request, folder) as shared, data_view(request.model) as view:
        order = _order(request, view / source, folder, shared)
        if (large or request.calibration) and not source.name:  # the exporter's memory ends with its own process
            _run_child(request, replace(order, only_export=True), progress)
        answer = _run_child(request, order, progress)
        chat = keep_template(view / source, folder) if kind_of(request.traits.task) == "decoder" else Kept()
    graphs = GRAPHS if kind_of(request.traits.task) in PAIRS else {}
    files = [folder / name for name in graphs.values() or (WEIGHTS,)]
    inputs, outputs = interface(files[-1])
    return Converted(
        weights=files[-1].name,
        graphs=graphs,
        audit=audit(files, request.scheme.name),
        inputs=inputs,
        outputs=outputs,
        built_for=None if request.scheme.name in ("fp32", "fp16") else request.profile.integer_kernels,
        tools={name: version(name) for name in _TOOLS},
        settings=answer.settings,
        chat_template=chat.became,
        notes=chat.notes,
        calibrated=answer.calibrated,
    )


def _source(request: Request) -> Path:
    """What the child reads, within the model's folder: all of it, or a graph that the runtime will be able to feed."""
    model, traits, kind = request.model, request.traits, kind_of(request.traits.task)
    if model.format == "gguf":
        raise EdgemlError(f"{model.name} is a GGUF model, which cannot become ONNX", hint="use a gguf: scheme")
    if traits.quantized:
        hint = "start from its full-precision model"
        raise EdgemlError(f"{model.name} is quantized already ({traits.quantized}) and cannot become ONNX", hint=hint)
    if model.format == "onnx" and kind in ("image", *PAIRS):
        problem = f"{model.name} is an ONNX model for {traits.task}, which edgeml exports itself"
        raise EdgemlError(problem, hint="start from its safetensors folder")
    if model.format == "onnx":
        graph = next(file.path for file in model.files if file.path.endswith(".onnx"))
        check_interface(Path(model.path, graph), kind=kind, labels=len(traits.labels))
        return Path(graph)
    if traits.architecture not in CLASSES[kind]:
        message = f"{model.name} is a {traits.architecture}, which edgeml cannot make into ONNX for {traits.task}"
        raise EdgemlError(message, hint=f"supported: {', '.join(CLASSES[kind])}")
    return Path()


def _require_inputs(request: Request) -> None:
    """Raise EdgemlError where the scheme, or a wish, needs calibration inputs, and where none would help."""
    name, scheme, wishes = request.model.name, request.scheme, request.wishes
    hint = "give inputs like those it will get: --calibration FILE, or a folder of pictures"
    if request.traits.architecture in UNSUITED.get(str(scheme), ()):
        if scheme.name != "int8":
            message = f"{scheme} of {name}, a convolutional net, would be slower or no smaller than fp32"
            raise EdgemlError(message, hint="use onnx:int8-static with --calibration FOLDER of pictures")
        if request.calibration is None:
            message = f"{scheme} of {name}, a convolutional net, needs calibration images"
            raise EdgemlError(message, hint="give some: --calibration FOLDER of pictures, or use onnx:fp32")
    if request.calibration is not None:
        if scheme.name != "fp32":
            require_two(len(request.calibration))
        return
    if scheme.name == "int8-static" and request.traits.speech:
        raise EdgemlError(f"{scheme} is not made of models that hear", hint="use onnx:int8")
    if scheme.name == "int8-static":
        raise EdgemlError(f"{scheme} needs calibration inputs, which show the range of activations", hint=hint)
    for option, asked in (
        ("calibration-method", wishes.calibration_method),
        ("memory", wishes.memory_bytes),
        ("min-agreement", wishes.min_agreement),
    ):
        if asked is not None:
            raise EdgemlError(f"--{option} says nothing without calibration inputs", hint=hint)


def _require_room(request: Request, folder: Path) -> bool:
    """Refuse what neither disk nor memory has room for; whether the model is large."""
    weights = full_bytes(request.model)
    need_disk(folder, weights * _NEEDED)
    what, hint = f"making {request.scheme} of {request.model.name}", "close other programs, or use a gguf: scheme"
    need_bytes = _LIBRARIES_BYTES + weights * _HELD.get(request.scheme.name, _HELD_ELSE)
    need_memory(need_bytes, what=what, hint=f"{hint}: its memory grows with the largest tensor alone")
    return weights > _LARGE_BYTES


def _order(request: Request, source: Path, folder: Path, shared: Path) -> Order:
    traits = request.traits
    return Order(
        source=str(source),
        folder=str(folder),
        shared=str(shared),
        kind=kind_of(traits.task),
        scheme=request.scheme.name,
        kernels=request.profile.integer_kernels,
        here=is_here(request.profile),
        max_tokens=traits.max_tokens,
        pixels=traits.pixels,
        speech=traits.speech,
        start_token=traits.start_token,
        calibration=None if request.scheme.name == "fp32" else request.calibration,
        wishes=request.wishes,
        settled=request.settled,
    )


def _run_child(request: Request, order: Order, progress: Progress) -> Answer:
    refusals: list[Refusal] = []
    answers = [Answer()]

    def follow(line: str) -> None:
        if line.startswith("@"):
            count, _, step = line[1:].strip().partition(" ")
            done, _, total = count.partition("/")
            progress(step, int(done), int(total))
        elif line.startswith("!"):
            refusals.append(decode(line[1:], Refusal, where="the exporter's answer"))
        elif line.startswith("={"):
            answers.append(decode(line[1:], Answer, where="the exporter's answer"))

    what = f"making {request.scheme} of {request.model.name}"
    with TemporaryDirectory(dir=order.folder, prefix="order-") as place:
        path = Path(place) / "order.json"
        write_record(path, order)
        try:
            said = {"what": what, "hint": _NOT_EXPORTED}
            run_module("edgeml.formats.onnx.child", [str(path)], **said, follow=follow, scratch=path.parent)
        except EdgemlError as error:
            if refusals:
                raise EdgemlError(refusals[0].message, hint=refusals[0].hint) from error
            raise
    return answers[-1]
