"""Every family of the README's table: made small, scored against itself, packed, and run where torch cannot be loaded.

The models are tiny, of the family's own class and with random weights: that the graph, the scheme and the runtime fit
together is shown here, not what a scheme costs a trained model.
"""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import NamedTuple

import pytest

from edgeml.formats.onnx import child, conversion
from edgeml.formats.onnx.order import Answer, Order
from tiny import gguf_families, pictures
from tiny.alone import alone
from tiny.commands import Done, inside
from tiny.families import family_folder
from tiny.seq2seq import bart_folder, t5_folder
from tiny.speech import sound_folder, whisper_folder

README = Path(__file__).parent.parent / "README.md"
SHARES_NOTHING = True  # many minutes for one process
_QUICK = ("--threads", "1", "--warmups", "1", "--repeats", "2", "--check", "none")


class Cell(NamedTuple):
    """One mark of the table; `least` is how near the small scheme's answers come to the full one's, by `metric`."""

    family: str
    task: str
    full: str
    small: str
    architecture: str
    metric: str = "fidelity.agreement"
    least: float = 0.8

    @property
    def format(self) -> str:
        """The column that the mark stands in."""
        return self.small.partition(":")[0]

    @property
    def mark(self) -> tuple[str, str, str]:
        """Where the mark stands."""
        return self.family, self.task, self.format


_ENCODERS = {
    "BERT, MiniLM": "Bert",
    "DistilBERT": "DistilBert",
    "RoBERTa": "Roberta",
    "MPNet": "MPNet",
    "XLM-R": "XLMRoberta",
    "ALBERT": "Albert",
    "CamemBERT": "Camembert",
    "DeBERTa v2, v3": "DebertaV2",
    "ELECTRA": "Electra",
    "ModernBERT": "ModernBert",
}
_HEADS = {"text-classification": "ForSequenceClassification", "token-classification": "ForTokenClassification"}
_SHAPES = {
    "ViT": "ViT",
    "DeiT": "DeiT",
    "DINOv2": "Dinov2",
    "Swin": "Swin",
    "ResNet": "ResNet",
    "RegNet": "RegNet",
    "MobileNet V1": "MobileNetV1",
    "MobileNet V2": "MobileNetV2",
    "ConvNeXt": "ConvNext",
    "ConvNeXt V2": "ConvNextV2",
}
_DECODERS = {
    "Llama, SmolLM": "LlamaForCausalLM",
    "Mistral": "MistralForCausalLM",
    "Qwen2": "Qwen2ForCausalLM",
    "Qwen3": "Qwen3ForCausalLM",
    "Gemma": "GemmaForCausalLM",
    "Gemma 2": "Gemma2ForCausalLM",
    "Gemma 3": "Gemma3ForCausalLM",
    "Phi-1, Phi-2": "PhiForCausalLM",
    "Phi-3": "Phi3ForCausalLM",
    "SmolLM3": "SmolLM3ForCausalLM",
    "ERNIE 4.5": "Ernie4_5ForCausalLM",
    "Granite 3": "GraniteForCausalLM",
    "OLMo 2": "Olmo2ForCausalLM",
    "StableLM": "StableLmForCausalLM",
    "StarCoder2": "Starcoder2ForCausalLM",
    "BLOOM": "BloomForCausalLM",
    "OPT": "OPTForCausalLM",
    "GPT-2": "GPT2LMHeadModel",
    "GPT-J": "GPTJForCausalLM",
    "GPT-Neo": "GPTNeoForCausalLM",
    "GPT-NeoX, Pythia": "GPTNeoXForCausalLM",
}
_INT8 = ("onnx:fp32", "onnx:int8")

CELLS = [
    *(
        Cell(family, "sentence-similarity", *_INT8, f"{name}Model", "fidelity.cosine", 0.95)
        for family, name in _ENCODERS.items()
    ),
    *(
        Cell(family, task, *_INT8, f"{name}{head}", least=0.5)  # every word's tag must be the same
        for family, name in _ENCODERS.items()
        for task, head in _HEADS.items()
    ),
    *(
        Cell(family, "text-generation", *_INT8, architecture, "same_top", 0.7)
        for family, architecture in _DECODERS.items()
    ),
    *(
        Cell(family, "text-generation", "gguf:f16", "gguf:q8_0", architecture, "same_top", 0.7)
        for family, architecture in _DECODERS.items()
        if architecture in gguf_families.DECODERS
    ),
    *(
        Cell(family, "sentence-similarity", "gguf:f16", "gguf:q8_0", f"{name}Model", "fidelity.cosine", 0.95)
        for family, name in _ENCODERS.items()
        if f"{name}Model" in gguf_families.ENCODERS
    ),
    # Of random weights most answers are near to others: far above chance is all that can be asked.
    *(
        Cell(family, "text2text-generation", *_INT8, f"{family.upper()}ForConditionalGeneration", least=0.1)
        for family in ("T5", "mT5")
    ),
    Cell("BART", "text2text-generation", *_INT8, "BartForConditionalGeneration", least=0.5),
    *(
        Cell(family, "image-classification", *_INT8, f"{name}ForImageClassification")
        for family, name in _SHAPES.items()
    ),
    Cell("Whisper", "automatic-speech-recognition", *_INT8, "WhisperForConditionalGeneration", least=0.5),
]


# The first of each task is exported by a process of its own, as always; the others here, where PyTorch is loaded once.
IN_CHILDREN = {cell.task: cell.mark for cell in reversed(CELLS) if cell.format == "onnx"}


@pytest.mark.real
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: "-".join(cell.mark))
def test_a_family_is_made_small_scored_packed_and_run_without_torch(cell, tmp_path, monkeypatch, smollm_file):
    monkeypatch.chdir(tmp_path)
    if cell.mark != IN_CHILDREN[cell.task]:
        monkeypatch.setattr(conversion, "_run_child", lambda request, order, progress: _exported(order))
    _make(cell, tmp_path / "source", smollm_file)
    made, asked, row = _inputs(cell, tmp_path)
    _do("download", "./source", "--name", "tiny")
    _do("quantize", "tiny", "--to", cell.full, "--to", cell.small, *made)
    full, small = (f"tiny/{scheme.replace(':', '-', 1)}" for scheme in (cell.full, cell.small))
    lines = _do("bench", small, "--baseline", full, *asked, *_QUICK, "--json").out.splitlines()
    found = {line["metric"]: line for line in map(json.loads, lines) if line["schema"] == "edgeml.measurement/1"}
    assert found[cell.metric]["value"] >= cell.least
    assert {line["how"] for line in found.values()} == {"measured"}
    _do("package", small, "--target", "laptop", "--as", "dir")
    (bundle,) = (path.parent for path in (tmp_path / "artifacts" / "bundles").glob("*/bundle.json"))
    assert "self-test passed" in alone(bundle, "selftest", ".")
    (tmp_path / "in.jsonl").write_text(json.dumps(row), encoding="utf-8")
    short = ("--max-new-tokens", "8") if cell.task.endswith("generation") else ()
    assert alone(bundle, "predict", ".", "--input", str(tmp_path / "in.jsonl"), *short)


def test_the_readme_marks_what_is_shown_here_and_nothing_else():
    lines = README.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("| family |"))
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:] if line.startswith("|")]
    head, _, *rows = rows[: 2 + len({cell.family for cell in CELLS})]
    tasks = {cell.task for cell in CELLS}
    assert set(head[1:]) == tasks
    told = {
        (row[0], task, format.strip().lower())
        for row in rows
        for task, marks in zip(head[1:], row[1:], strict=True)
        for format in marks.split(",")
        if format.strip()
    }
    assert told == {cell.mark for cell in CELLS}


def _make(cell: Cell, folder: Path, merges: Path) -> None:
    if cell.format == "gguf":
        encodes = cell.task == "sentence-similarity"
        make = gguf_families.encoder_folder if encodes else gguf_families.decoder_folder
        make(folder, cell.architecture, merges)
    elif cell.task == "image-classification":
        pictures.save_image_model(pictures.image_model(cell.architecture), folder)
    elif cell.task == "automatic-speech-recognition":
        whisper_folder(folder)
    elif cell.task == "text2text-generation":
        bart_folder(folder) if cell.family == "BART" else t5_folder(
            folder, family=cell.family.upper(), initializer_factor=4.0
        )
    else:
        family_folder(folder, cell.architecture)


def _inputs(cell: Cell, folder: Path) -> tuple[list[object], list[object], dict[str, str]]:
    """Options of `quantize` and of `bench`, and a row to answer."""
    if cell.task == "image-classification":
        shown = pictures.picture_folder(folder / "pictures", 8)
        return ["--calibration", shown], ["--data", shown], {"file": str(next(shown.rglob("*.png")))}
    if cell.task == "automatic-speech-recognition":
        sounds = sound_folder(folder / "sounds")
        return [], ["--data", sounds, "--max-new-tokens", "2"], {"file": str(sounds / "0.wav")}
    if cell.task == "text-generation":
        text = folder / "text.txt"
        text.write_text("rent of the office, paid late; two chairs and fuel for the van. " * 20, encoding="utf-8")
        return [], ["--task", "perplexity", "--data", text, "--context", "32", "--limit", "8"], {"text": "rent 4 B"}
    if cell.task == "text2text-generation":
        rows = folder / "rows.txt"
        rows.write_text("".join(f"rent of house {number}\n" for number in range(24)), encoding="utf-8")
        return [], ["--data", rows, "--max-new-tokens", "2"], {"text": "rent 4 B"}
    return [], [], {"text": "rent 4 B"}


def _exported(order: Order) -> Answer:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        logging.disable()  # else pytest keeps every step of the tracer
        try:
            return child.convert(order)
        finally:
            logging.disable(logging.NOTSET)


def _do(*arguments: object) -> Done:
    done = inside(*arguments)
    assert done.code == 0, done.err
    return done
