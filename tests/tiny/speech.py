"""Makers of tiny models that hear: a Whisper by Transformers, a variant without PyTorch, and sounds in files."""

from __future__ import annotations

import io
import json
import wave
from pathlib import Path
from typing import Any

import numpy as np

from edgeml_runtime.records import describe, read_record, write_record
from edgeml_runtime.tones import SOUNDS, tone
from edgeml_runtime.types import Sound, Speech, VariantManifest
from tiny.graphs import graph_model
from tiny.seq2seq import seq2seq_variant
from tiny.variants import WIDTH

TASK = "automatic-speech-recognition"
SOUND = Sound(sampling_hz=16_000, fft_size=400, hop=160, mel_bins=8, window_s=1)
SPECIAL = ("<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>")
SPECIAL = (*SPECIAL, "<|notimestamps|>")
_LETTERS, _TIMES, _ANSWER = 200, 50, 48


def wav(samples: Any, *, hz: int = 16_000, width: int = 2) -> bytes:
    """A WAV file of samples from -1 to 1, `(count,)` or `(count, channels)`."""
    columns = np.atleast_2d(np.asarray(samples, np.float64).T).T
    high = np.round(columns * (2 ** (8 * width - 1) - 1)).astype(np.int64) + (128 if width == 1 else 0)
    written = io.BytesIO()
    with wave.open(written, "wb") as file:
        file.setnchannels(columns.shape[1])
        file.setsampwidth(width)
        file.setframerate(hz)
        file.writeframes(high.astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width].tobytes())
    return written.getvalue()


def sound_folder(folder: Path, count: int = len(SOUNDS)) -> Path:
    """Made sounds with what is said in them, in pairs of files."""
    folder.mkdir(parents=True)
    for number, name in enumerate(SOUNDS[:count]):
        (folder / f"{number}.wav").write_bytes(tone(name))
        (folder / f"{number}.txt").write_text(name)
    return folder


def speech_variant(folder: Path, **fields: Any) -> Path:
    """A variant whose next token follows from the last one, from all so far and from the sound."""
    from onnx import helper, save_model

    seq2seq_variant(folder)
    mix = np.random.default_rng(2).standard_normal((SOUND.mel_bins, WIDTH)).astype(np.float32)
    values = "past_key_values.cross_attention_cache.layers.0.values"
    hears = [
        helper.make_node("Transpose", ["input_features"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["frames", "mix"], ["x"]),
        helper.make_node("Unsqueeze", ["x", "axis"], [values]),
    ]
    inputs = {"input_features": [1, SOUND.mel_bins, SOUND.frames]}
    outputs = {values: [1, 1, SOUND.frames, WIDTH]}
    save_model(graph_model(hears, inputs, outputs, {"mix": mix, "axis": np.array([1])}), folder / "encoder.onnx")
    manifest = read_record(folder / "variant.json", VariantManifest)
    (folder / "variant.json").unlink()
    own = {
        "task": TASK,
        "files": describe(folder),
        "start_token": None,
        "speech": Speech(sound=SOUND, start_tokens=(0, 1)),
    }
    before = {name: getattr(manifest, name) for name in manifest.__struct_fields__}
    write_record(folder / "variant.json", VariantManifest(**before | own | fields))
    return folder


def whisper_folder(path: Path, **more: Any) -> Path:
    """A Whisper with random weights that hears one second, and knows two languages; its vocabulary is of bytes.

    Like Whisper's own it never writes some tokens, and some not first. Times are among the former, since Transformers
    would cut a sound where random weights write them.
    """
    import torch
    import transformers

    torch.manual_seed(0)
    path.mkdir(parents=True)
    ids = _vocabulary(path)
    end, begin = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    sizes = {"encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4, "decoder_attention_heads": 4}
    sizes |= {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "num_mel_bins": 80, "init_std": 0.3}
    sizes |= {"max_source_positions": _TIMES, "max_target_positions": _ANSWER, "vocab_size": len(ids)}
    special = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": begin}
    config = transformers.WhisperConfig(**sizes | special | more)
    model = transformers.WhisperForConditionalGeneration(config)
    model.generation_config = transformers.GenerationConfig(
        **special,
        lang_to_id={"<|en|>": ids["<|en|>"], "<|de|>": ids["<|de|>"]},
        task_to_id={"translate": ids["<|translate|>"], "transcribe": ids["<|transcribe|>"]},
        no_timestamps_token_id=ids["<|notimestamps|>"],
        is_multilingual=True,
        suppress_tokens=[5, 6, 7, *range(begin, len(ids))],
        begin_suppress_tokens=[end, 8],
        max_length=_ANSWER,
        return_timestamps=False,
    )
    model.save_pretrained(path)
    transformers.WhisperFeatureExtractor(chunk_length=1).save_pretrained(path)
    return path


def _vocabulary(path: Path) -> dict[str, int]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())[:_LETTERS]
    tokenizer = Tokenizer(models.BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken(f"<|{place * 0.02:.2f}|>") for place in range(_TIMES + 1)])
    tokenizer.save(str(path / "tokenizer.json"))
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    found: dict[str, int] = tokenizer.get_vocab()
    return found
