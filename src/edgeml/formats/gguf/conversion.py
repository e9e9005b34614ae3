"""GGUF: from a safetensors folder or another GGUF file to one file of the wanted scheme, and its audit.

The work is llama.cpp's own, in child processes (`process`); this module decides what is asked of it and whether
the result is what was asked. It knows nothing about how variants are named or kept.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.formats import Converted, Request, shared_folder
from edgeml.formats.gguf.audit import audit, largest_bytes, most_used, share_quantized
from edgeml.formats.gguf.child import QuantizeJob
from edgeml.formats.gguf.header import Header, read_header
from edgeml.formats.gguf.mixtures import MIXTURES
from edgeml.formats.gguf.parts import read_model
from edgeml.formats.gguf.process import CONVERTER, QUANTIZER, convert_folder, quantize_file, tool_version
from edgeml.formats.gguf.settle import Settled, check_wishes, settle
from edgeml.progress import Progress
from edgeml.types import Model, Traits
from edgeml_runtime.types import Audit, Pooling

WEIGHTS = "model.gguf"

# llama.cpp's name of a family, and the Transformers classes that become one.
ARCHITECTURES = {
    "bert": ("BertModel", "BertForMaskedLM", "DistilBertModel", "RobertaModel", "XLMRobertaModel"),
    "nomic-bert": ("NomicBertModel",),
    "llama": ("LlamaForCausalLM", "MistralForCausalLM"),
    "qwen2": ("Qwen2ForCausalLM",),
    "qwen3": ("Qwen3ForCausalLM",),
    "gemma": ("GemmaForCausalLM",),
    "gemma2": ("Gemma2ForCausalLM",),
    "gemma3": ("Gemma3ForCausalLM",),
    "phi3": ("Phi3ForCausalLM",),
    "smollm3": ("SmolLM3ForCausalLM",),
    "gpt2": ("GPT2LMHeadModel",),
    "gptneox": ("GPTNeoXForCausalLM",),
    "bloom": ("BloomForCausalLM",),
    "ernie4_5": ("Ernie4_5ForCausalLM",),
    "granite": ("GraniteForCausalLM",),
    "olmo2": ("Olmo2ForCausalLM",),
    "phi2": ("PhiForCausalLM",),
    "stablelm": ("StableLmForCausalLM",),
    "starcoder2": ("Starcoder2ForCausalLM",),
}
# Families that llama.cpp has nothing for, by the beginnings of their classes' names.
_MISSING = {
    "Albert": "ALBERT",
    "Bart": "BART",
    "Deberta": "DeBERTa",
    "Electra": "ELECTRA",
    "GPTJ": "GPT-J",
    "GPTNeoFor": "GPT-Neo",
    "MPNet": "MPNet",
    "OPT": "OPT",
    "ResNet": "ResNet",
    "ViT": "ViT",
    "Whisper": "Whisper",
}
_ENCODERS = ("bert", "nomic-bert")
_POOLING: dict[int, Pooling] = {1: "mean", 2: "cls", 3: "last"}  # `llama_pooling_type` in llama.h; 0 is none
_RANKS = 4
_WIDER = {"f16": 1, "bf16": 1, "f32": 2}  # a file as wide as that is at most so often its source's size
_WITH_COPY = 1.55  # an F16 file is at most as large as its source; beside it, a copy has at most 8.5 of its 16 bits


def convert(request: Request, folder: Path, *, progress: Progress) -> Converted:
    """Write `model.gguf` into `folder` and read back what it holds."""
    if request.model.format == "gguf":
        return _from_gguf(request, folder, progress)
    if request.model.format in ("safetensors", "pickle"):
        return _from_folder(request, folder, progress)
    message = f"{request.model.name} is an {request.model.format.upper()} model, which cannot become GGUF"
    raise EdgemlError(message, hint="start from its safetensors folder or a GGUF file")


def traits(path: Path) -> Traits:
    """What a GGUF file says of itself. A file with a pooling type turns text into vectors, whatever its family.

    GGUF does not record whether vectors are normalised; llama.cpp's own tools do it, so that is assumed.
    """
    header = read_model(path)
    architecture = _known_architecture(header, path)
    if header.own("pooling_type") == _RANKS:
        raise EdgemlError(f"{path} holds a reranker, which edgeml cannot run", hint="use a model that makes embeddings")
    pooling = _POOLING.get(header.own("pooling_type") or 0)
    context = header.own("context_length")
    if not context:
        raise EdgemlError(f"{path} states no context length", hint="make the GGUF file again from its source")
    embeds = pooling is not None or architecture in _ENCODERS
    tags = header.metadata.get("general.tags", [])
    embedding_task = "sentence-similarity" if pooling or "sentence-similarity" in tags else "feature-extraction"
    return Traits(
        architecture=architecture,
        task=embedding_task if embeds else "text-generation",
        max_tokens=int(context),
        pooling=pooling,
        normalize=embeds,
        end_tokens=() if embeds else _end_tokens(header),
        licence=header.metadata.get("general.license"),
        quantized=_quantized(header),
    )


def source_type(path: Path) -> str | None:
    """The ggml type, such as `Q4_1`, that most of a file's parameters are quantized in; None for a full one."""
    return _quantized(read_model(path))


def _quantized(header: Header) -> str | None:
    return most_used(header.tensors) if header.tensors and share_quantized(header) > 0.5 else None


def _end_tokens(header: Header) -> tuple[int, ...]:
    stated = (header.metadata.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot"))
    return tuple(sorted({int(token) for token in stated if token is not None}))


def _from_gguf(request: Request, folder: Path, progress: Progress) -> Converted:
    path = _gguf_of(request.model)
    header = read_model(path)
    _known_architecture(header, path)
    if not header.tensors:
        raise EdgemlError(f"{path} holds no weights", hint="fetch or copy the whole model")
    with shared_folder(request, folder) as shared:
        wishes = settle(request, path, header, shared, progress)
        _need_space(folder, largest_bytes(header, request.scheme.name, wishes.types))
        requantize = most_used(header.tensors) is not None
        quantize_file(_job(request, path, folder / WEIGHTS, wishes, requantize=requantize), progress=progress)
    written = _written(folder / WEIGHTS, request)
    found = audit(written, request.scheme.name, source=header, wished=wishes.types)
    return _made(found, wishes, {QUANTIZER: tool_version(QUANTIZER)})


def _from_folder(request: Request, folder: Path, progress: Progress) -> Converted:
    model, scheme, target = request.model, request.scheme.name, folder / WEIGHTS
    mixture, settled = MIXTURES[scheme], Settled()
    _convertible(request.traits, model.name)
    check_wishes(request)
    outtype = "f16" if mixture.quantized else scheme
    tools = {CONVERTER: tool_version(CONVERTER)}
    with shared_folder(request, folder) as shared:
        full = shared / f"{outtype}.gguf"
        there = _WIDER[outtype] if full.exists() else 0  # another scheme of the same command made it
        _need_space(folder, int(model.size_bytes * ((_WITH_COPY if mixture.quantized else _WIDER[scheme]) - there)))
        if not full.exists():
            convert_folder(model, full.with_suffix(".part"), outtype=outtype, progress=progress)
            full.with_suffix(".part").rename(full)
        if mixture.quantized:
            tools[QUANTIZER] = tool_version(QUANTIZER)
            settled = settle(request, full, read_header(full), shared, progress)
            quantize_file(_job(request, full, target, settled), progress=progress)
        else:
            os.link(full, target)
    found = audit(_written(target, request), scheme, quantized=request.traits.quantized, wished=settled.types)
    return _made(found, settled, tools)


def _job(request: Request, source: Path, target: Path, settled: Settled, *, requantize: bool = False) -> QuantizeJob:
    return QuantizeJob(
        source=str(source),
        target=str(target),
        ftype=MIXTURES[request.scheme.name].ftype,
        requantize=requantize,
        matrix=str(settled.matrix) if settled.matrix else None,
        types=settled.types,
    )


def _made(found: Audit, settled: Settled, tools: dict[str, str]) -> Converted:
    return Converted(
        weights=WEIGHTS, audit=found, tools=tools, settings=settled.settings, calibrated=settled.calibrated
    )


def _gguf_of(model: Model) -> Path:
    found = sorted(file.path for file in model.files if file.path.endswith(".gguf"))
    if not found:
        raise EdgemlError(f"{model.name} has no .gguf file", hint="download it again")
    return Path(model.path) / found[0]


def _need_space(folder: Path, need_bytes: int) -> None:
    free_bytes = shutil.disk_usage(folder).free
    if need_bytes > free_bytes:
        message = f"not enough space in {folder.parent}: {_mb(need_bytes)} needed, {_mb(free_bytes)} free"
        raise EdgemlError(message, hint="free some space, or write elsewhere with --artifacts")


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _known_architecture(header: Header, path: Path) -> str:
    name = header.architecture
    if name not in ARCHITECTURES:
        raise _unsupported(f"{path} holds the architecture {name}", ARCHITECTURES)
    return name


def _convertible(traits: Traits, model: str) -> None:
    known = [name for names in ARCHITECTURES.values() for name in names]
    architecture = traits.architecture
    if traits.labels:  # the runtime reads vectors of a GGUF encoder, never its head
        message = f"{model} is a {architecture}, whose labels edgeml cannot keep in GGUF"
        raise EdgemlError(message, hint="use an onnx: scheme, such as onnx:int8")
    for beginning, family in _MISSING.items():
        if architecture.startswith(beginning):
            message = f"{model} is a {architecture}, and llama.cpp has no {family}"
            raise EdgemlError(message, hint="use an onnx: scheme, such as onnx:int8")
    if architecture not in known:
        raise _unsupported(f"{model} is a {architecture}", known)


def _unsupported(what: str, known: Iterable[str]) -> EdgemlError:
    return EdgemlError(f"{what}, which edgeml cannot make into GGUF", hint=f"supported: {', '.join(sorted(known))}")


def _written(path: Path, request: Request) -> Header:
    """The header of the new file, after checking that it says the same of the model as the manifest will."""
    header = read_header(path)
    pooling = _POOLING.get(header.own("pooling_type") or 0)
    if pooling != request.traits.pooling and header.own("pooling_type") is not None:
        message = f"the GGUF file pools by {pooling}, the model by {request.traits.pooling}"
        raise EdgemlError(message, hint="check 1_Pooling/config.json")
    context = header.own("context_length") or 0
    if context < request.traits.max_tokens:
        message = f"the GGUF file holds {context} tokens, the model {request.traits.max_tokens}"
        raise EdgemlError(message, hint="check max_seq_length in sentence_bert_config.json")
    return header
