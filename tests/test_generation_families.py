"""Every family of language models: its graph writes PyTorch's tokens, small and packed as well, without PyTorch."""

import json
import logging
import warnings
from itertools import takewhile
from typing import NamedTuple

import numpy as np
import pytest

from edgeml.formats.onnx import child as onnx_child
from edgeml.formats.onnx import conversion as onnx_format
from edgeml.package import bundle_path, package
from edgeml.quantize import quantize
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.types import Model, Scheme, Variant
from edgeml_runtime.records import describe
from edgeml_runtime.session import Said, open_session
from edgeml_runtime.types import Generate, Job
from edgeml_runtime.worker import run
from tiny.alone import alone
from tiny.chats import TEMPLATES
from tiny.families import DECODERS, family_folder

pytestmark = pytest.mark.real

NEW = 24
TEXT = "a line of 25 letters, or so"
CHATS = {"LlamaForCausalLM": "chatml", "Phi3ForCausalLM": "phi3", "Gemma3ForCausalLM": "gemma"}
LONG = " ".join(f"{place} lines of text, and {place * 7} more;" for place in range(12))


class Made(NamedTuple):
    """A family's folder, and its variants in fp32 and int8."""

    source: str
    whole: Variant
    small: Variant


class Families:
    """Each family's variants, made once, in this process: PyTorch takes long to load."""

    def __init__(self, root):
        self.store = Store(root / "artifacts")
        self._root = root
        self._made = {}

    def __getitem__(self, architecture):
        if architecture not in self._made:
            more = {"max_position_embeddings": 256} if architecture in CHATS else {}
            folder = family_folder(self._root / architecture, architecture, **more)
            if architecture in CHATS:
                (folder / "chat_template.jinja").write_text(TEMPLATES[CHATS[architecture]])
                (folder / "tokenizer_config.json").write_text('{"model_max_length": 256}')
            model = Model(
                name=architecture.lower(), ref=str(folder), path=str(folder), files=describe(folder),
                format="safetensors", downloaded="2026-01-01",
            )  # fmt: skip
            schemes = [Scheme.parse(f"onnx:{name}") for name in ("fp32", "int8")]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the exporter's own
                logging.disable()  # else pytest keeps every step of the tracer
                self._made[architecture] = Made(
                    folder, *quantize(model, schemes, profile=profile("laptop"), store=self.store)
                )
                logging.disable(logging.NOTSET)
        return self._made[architecture]


@pytest.fixture(scope="module")
def families(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnx_format, "_run_child", lambda request, order, progress: onnx_child.convert(order))
        yield Families(tmp_path_factory.mktemp("families"))


def in_pytorch(folder):
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)  # such small products only wait for each other
    return torch, AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("architecture", DECODERS)
def test_a_decoder_writes_the_tokens_of_pytorch_from_one_copy_of_its_weights(families, architecture):
    made = families[architecture]
    torch, model = in_pytorch(made.source)
    session = open_session(made.whole.path, threads=1)
    prompt = [*session.prompt(None, TEXT)][:20]
    with torch.no_grad():
        ids = torch.tensor([prompt])
        expected = model(ids).logits[0].numpy()
        greedy = {"max_new_tokens": NEW, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
        tokens = model.generate(ids, attention_mask=torch.ones_like(ids), **greedy)

    np.testing.assert_allclose(session.logits(prompt), expected, atol=1e-4 * np.abs(expected).max())
    expected_tokens = tokens[0, len(prompt) :].tolist()
    found = session.generate(prompt, Generate(max_new_tokens=NEW, past_end=True))
    assert list(found.tokens) == expected_tokens
    ended = tuple(takewhile(lambda token: token != 2, expected_tokens))
    assert session.generate(prompt, Generate(max_new_tokens=NEW)).tokens == ended
    assert len(set(expected_tokens)) > 4
    check_weights(model, made)


def check_weights(model, made):
    whole, small = made.whole.manifest.audit, made.small.manifest.audit
    assert whole.earned
    assert small.earned
    assert small.parameters == whole.parameters
    # PyTorch counts a head that is the embedding once; a second copy of it here would be a tenth more. Vectors that are
    # all zeros or ones, as only untrained models have them, are stored once here.
    assert whole.parameters == pytest.approx(sum(one.numel() for one in model.parameters()), rel=0.02)
    assert whole.bits_per_weight == pytest.approx(32, rel=0.015)  # the table of GPT-J's positions is all that is more
    assert small.share_quantized > 0.9


@pytest.mark.parametrize("architecture", DECODERS)
def test_its_int8_comes_near_its_fp32_by_the_measures_of_bench(families, architecture):
    made = families[architecture]
    job = Job(
        variant=str(made.small.path), task="perplexity", target="laptop", threads=1, warmups=0, repeats=1, seed=0,
        text=LONG, reference=str(made.whole.path), context_tokens=32,
    )  # fmt: skip

    found = {one.metric: float(np.mean(one.values)) for one in run(job).samples}

    assert found["kl_divergence"] < 0.1
    assert found["same_top"] > 0.8


@pytest.mark.parametrize("architecture", DECODERS)
def test_its_bundle_proves_itself_and_writes_where_pytorch_cannot_be_loaded(families, architecture, tmp_path):
    made = families[architecture]
    done = package(made.small, store=families.store, profile=profile(None), kind="dir", wheels=False)
    bundle = bundle_path(families.store, done)
    (tmp_path / "rows.txt").write_text(f"{TEXT}\n")

    assert "self-test passed" in alone(bundle, "selftest", ".")
    options = ["--input", str(tmp_path / "rows.txt"), "--max-new-tokens", "8"]
    greedy, drawn, again = (
        json.loads(alone(bundle, "predict", ".", *options, *more))
        for more in ([], *[["--temperature", "1.5", "--seed", "3", "--top-k", "40"]] * 2)
    )

    session = open_session(made.small.path, threads=1)
    assert greedy == session.generate(session.prompt(None, TEXT), Generate(max_new_tokens=8)).text
    assert drawn == again
    requirements = (bundle / "requirements.txt").read_text()
    assert ("jinja2" in requirements) == (architecture in CHATS)


@pytest.mark.parametrize("architecture", CHATS)
def test_its_chat_template_goes_with_it(families, architecture):
    made = families[architecture]
    session = open_session(made.whole.path, threads=1)

    assert made.whole.manifest.chat_template == "kept"
    assert not session.omits_chat_template
    prompt = session.prompt(None, TEXT)
    assert prompt == session.said([Said("user", TEXT)]) != session.tokenize(TEXT)
    assert session.generate(prompt, Generate(max_new_tokens=4)).tokens


def test_a_long_text_slides_out_of_the_window_as_in_pytorch(families):
    made = families["Gemma3ForCausalLM"]
    torch, model = in_pytorch(made.source)
    session = open_session(made.whole.path, threads=1)
    tokens = session.tokenize(LONG)[:50]

    with torch.no_grad():
        expected = model(torch.tensor([tokens])).logits[0].numpy()

    assert model.config.sliding_window < len(tokens) / 2
    np.testing.assert_allclose(session.logits(tokens), expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.parametrize("architecture", DECODERS)
def test_every_family_that_is_tested_is_supported(architecture):
    assert architecture in onnx_format.CLASSES["decoder"]
