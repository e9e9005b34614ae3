"""The families that llama.cpp knows, each converted, quantized and run beside PyTorch on the same weights."""

import json

import numpy as np
import pytest

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.conversion import ARCHITECTURES
from edgeml_runtime.session import open_session
from edgeml_runtime.types import Generate
from test_gguf import converted
from tiny.gguf_families import DECODERS, ENCODERS, decoder_folder, encoder_folder
from tiny.safetensors import llama_folder
from tiny.variants import gguf_variant

TEXTS = ("the house of the north street", "a flat for the city and it is on", "to post")
NEW = 12  # tokens


def in_torch(folder, architecture):
    import transformers

    kind = getattr(transformers, architecture)
    config = kind.config_class.from_pretrained(folder / "native")
    return kind.from_pretrained(folder, config=config, dtype="float32").eval()


def logits_by_torch(model, tokens):
    import torch

    with torch.no_grad():
        return model(input_ids=torch.tensor([list(tokens)])).logits[0].numpy()


def written_by_torch(model, tokens):
    """Greedily, whatever the tokens are."""
    import torch

    ids = list(tokens)
    with torch.no_grad():
        for _ in range(NEW):
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(tokens) :])


def vectors_by_torch(model, folder):
    import torch
    from transformers import AutoTokenizer

    tokenizer, found = AutoTokenizer.from_pretrained(folder), []
    for text in TEXTS:
        ids = torch.tensor([tokenizer(text)["input_ids"]])
        with torch.no_grad():
            mean = model(input_ids=ids).last_hidden_state[0].mean(dim=0).numpy()
        found.append(mean / np.linalg.norm(mean))
    return np.stack(found)


@pytest.mark.real
@pytest.mark.parametrize("architecture", DECODERS)
def test_a_decoder_computes_and_writes_what_pytorch_does(tmp_path, architecture, smollm_file):
    folder = decoder_folder(tmp_path / "model", architecture, smollm_file)
    model = in_torch(folder, architecture)
    for scheme, tolerance in (("f32", 2e-3), ("q8_0", 0.1)):
        made = converted(folder, f"gguf:{scheme}", tmp_path / scheme)
        session = open_session(gguf_variant(tmp_path / f"{scheme}-v", tmp_path / scheme / "model.gguf"), threads=1)
        tokens = session.tokenize(TEXTS[0])
        with_torch = logits_by_torch(model, tokens)
        found = session.logits(tokens)
        session.close()

        assert made.audit.earned, made.audit.shortfalls
        spread = with_torch.std()
        assert np.abs(found - with_torch[: len(found)]).max() / spread < tolerance * 10
        assert np.abs(found - with_torch[: len(found)]).mean() / spread < tolerance
        if scheme == "f32":
            session = open_session(gguf_variant(tmp_path / "again", tmp_path / "f32/model.gguf"), threads=1)
            answer = session.generate(tokens, Generate(max_new_tokens=NEW))
            assert answer.tokens == written_by_torch(model, tokens)[: len(answer.tokens)]
            session.close()


@pytest.mark.real
@pytest.mark.parametrize("architecture", ENCODERS)
def test_an_encoder_gives_the_vectors_that_pytorch_does(tmp_path, architecture, smollm_file):
    folder = encoder_folder(tmp_path / "model", architecture, smollm_file)
    expected = vectors_by_torch(in_torch(folder, architecture), folder)
    fields = {"task": "sentence-similarity", "pooling": "mean", "normalize": True, "max_tokens": 128}
    for scheme, loss in (("f32", 1e-5), ("q8_0", 2e-3)):
        made = converted(folder, f"gguf:{scheme}", tmp_path / scheme)
        variant = gguf_variant(tmp_path / f"{scheme}-v", tmp_path / scheme / "model.gguf", **fields)
        session = open_session(variant, threads=1)
        found = session.embed(TEXTS)
        session.close()

        assert made.audit.earned, made.audit.shortfalls
        assert (1 - (found * expected).sum(axis=1)).max() < loss


@pytest.mark.parametrize(
    ("architecture", "family"),
    [
        *(("GPTJForCausalLM", "GPT-J"), ("GPTNeoForCausalLM", "GPT-Neo"), ("OPTForCausalLM", "OPT")),
        *(("MPNetModel", "MPNet"), ("BartModel", "BART"), ("DebertaV2Model", "DeBERTa"), ("ElectraModel", "ELECTRA")),
    ],
)
def test_a_family_that_llama_cpp_has_not_is_refused_by_name_before_any_work(tmp_path, architecture, family):
    folder = llama_folder(tmp_path / "model", width=64, layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": [architecture]}))

    with pytest.raises(EdgemlError, match=f"is a {architecture}, and llama.cpp has no {family}") as error:
        converted(folder, "gguf:q8_0", tmp_path / "out")
    assert "onnx:" in error.value.hint
    assert not list((tmp_path / "out").iterdir())


def test_every_family_that_is_offered_is_shown_here():
    offered = {name for names in ARCHITECTURES.values() for name in names}

    assert offered - {"BertForMaskedLM"} == {*DECODERS, *ENCODERS}


@pytest.mark.real
def test_merges_that_llama_cpp_does_not_know_are_refused_with_a_sentence(tmp_path, smollm_file):
    folder = decoder_folder(tmp_path / "model", "Qwen3ForCausalLM", smollm_file)
    plain = json.loads((folder / "tokenizer.json").read_text())
    plain["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
    (folder / "tokenizer.json").write_text(json.dumps(plain))

    with pytest.raises(EdgemlError, match=r"llama\.cpp does not know how tiny cuts text into words") as error:
        converted(folder, "gguf:f16", tmp_path / "out")
    assert "onnx:" in error.value.hint


@pytest.mark.real
def test_a_missing_tokenizer_file_is_named(tmp_path):
    folder = llama_folder(tmp_path / "model", width=64, layers=1)
    (folder / "tokenizer.model").unlink()
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["GemmaForCausalLM"], "head_dim": 64}))

    with pytest.raises(EdgemlError, match=r"converter needs tokenizer\.model, which is not among the files of"):
        converted(folder, "gguf:f16", tmp_path / "out")
