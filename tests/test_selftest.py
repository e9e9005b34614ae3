"""The self-test: what passes on another machine, and what must not."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from edgeml_runtime import selftest
from edgeml_runtime.bundle import Bundle, check_files, checksums
from edgeml_runtime.records import describe, describe_file, write_record
from edgeml_runtime.selftest import DECODER_TOKENS, SYNTHETIC, compare, record
from edgeml_runtime.session import Generation
from edgeml_runtime.tolerances import of_cosine
from tiny.refusals import refusal
from tiny.variants import onnx_variant


@pytest.fixture
def variant(tmp_path):
    return onnx_variant(tmp_path / "variant")


class LetterDecoder:
    """A decoder whose next letter follows from the last one; `noise` is another processor's."""

    def __init__(self, manifest, *, noise=0.0, wrong=0.0, mute=False):
        self.manifest = msgspec.structs.replace(manifest, task="text-generation", scheme="gguf:q8_0")
        self._noise, self._wrong, self._mute = noise, wrong, mute

    def prompt(self, instruction, text):
        return self.tokenize(text)

    def tokenize(self, text):
        return [ord(letter) % 64 for letter in text]

    def logits(self, tokens):
        assert 0 < len(tokens) <= DECODER_TOKENS
        made = np.zeros((len(tokens), 64), dtype=np.float32)
        if not self._mute:
            made[range(len(tokens)), [(token * 7 + 3) % 64 for token in tokens]] = 1.0
        random = np.random.default_rng(1)
        wrong = random.random(len(tokens)) < self._wrong
        made[wrong] = np.roll(made[wrong], 1, axis=1)
        return made + self._noise * random.standard_normal(made.shape).astype(np.float32)

    def generate(self, tokens, options):
        return Generation(
            text="a" * options.max_new_tokens, tokens=(1,), prompt_tokens=1, finish_reason="stop", token_times_s=(0.1,)
        )

    def close(self):
        pass


def opens(monkeypatch, session):
    monkeypatch.setattr(selftest, "open_session", lambda folder, **terms: session)


def test_an_encoder_agrees_with_its_own_goldens(variant):
    goldens = record(variant.path)
    assert goldens.synthetic
    assert compare(variant.path, goldens) == pytest.approx(1.0, abs=1e-6)


def test_one_golden_is_longer_than_the_model_reads(variant):
    goldens = record(variant.path)
    assert max(goldens.token_counts) > variant.manifest.max_tokens
    assert len(goldens.texts) == len(SYNTHETIC) + 1


def test_a_limit_of_many_tokens_gets_no_golden_beyond_it(tmp_path):
    variant = onnx_variant(tmp_path / "long", max_tokens=8192)
    assert record(variant.path).texts == SYNTHETIC


def test_goldens_may_be_the_users_own(variant):
    goldens = record(variant.path, ["first", "second"])
    assert goldens.texts == ("first", "second")
    assert not goldens.synthetic


@pytest.mark.parametrize("texts", [["one"], ["same", "same"], ["one", " "]])
def test_goldens_that_cannot_tell_a_broken_model_are_refused(variant, texts):
    assert "two different texts" in refusal(record, variant.path, texts)


def test_an_encoder_with_other_weights_fails(variant, tmp_path):
    other = onnx_variant(tmp_path / "other", seed=1)
    assert "answers differently here" in refusal(compare, other.path, record(variant.path))


def test_a_vector_turned_by_more_than_the_tolerance_fails_and_by_less_passes(variant):
    goldens = record(variant.path)

    def turned(angle):
        first = np.array(goldens.vectors[0])
        aside = np.zeros_like(first)
        aside[0] = 1.0
        aside -= first * (aside @ first)
        moved = np.cos(angle) * first + np.sin(angle) * aside / np.linalg.norm(aside)
        return msgspec.structs.replace(goldens, vectors=(tuple(moved.tolist()), *goldens.vectors[1:]))

    assert compare(variant.path, turned(0.007)) > goldens.minimum  # cos 0.99998
    assert "0.999" in refusal(compare, variant.path, turned(0.03))  # cos 0.99955


def test_a_tokenizer_that_splits_differently_fails_and_names_the_text(variant):
    goldens = record(variant.path)
    counts = (goldens.token_counts[0] + 1, *goldens.token_counts[1:])
    changed = msgspec.structs.replace(goldens, token_counts=counts)
    assert SYNTHETIC[0][:20] in refusal(compare, variant.path, changed)


def test_an_encoder_whose_answer_does_not_depend_on_its_input_is_broken(tmp_path, variant):
    constant = onnx_variant(tmp_path / "constant", constant=True)
    assert "broken" in refusal(record, constant.path)
    assert "broken" in refusal(compare, constant.path, record(variant.path))


def test_quantized_schemes_allow_for_another_processors_rounding(tmp_path):
    minimum = {}
    for scheme in ("onnx-fp32", "onnx-int8", "gguf-q4_k_m"):
        manifest = onnx_variant(tmp_path / scheme, name=f"tiny/{scheme}").manifest
        minimum[scheme] = of_cosine(manifest.scheme).bound
    assert 1 > minimum["onnx-fp32"] > minimum["gguf-q4_k_m"] > minimum["onnx-int8"]
    assert minimum["onnx-int8"] < 0.9908  # the worst of 397 texts on a Pi 4's kernels, where nothing is broken
    assert minimum["onnx-int8"] > 0.97


def test_a_decoder_agrees_despite_small_differences_of_its_logits(variant, monkeypatch):
    opens(monkeypatch, LetterDecoder(variant.manifest))
    goldens = record(variant.path)
    assert not goldens.vectors
    assert goldens.greedy
    opens(monkeypatch, LetterDecoder(variant.manifest, noise=0.05))
    assert compare(variant.path, goldens) == 1.0


def test_a_decoder_may_miss_a_few_near_ties_but_not_many(variant, monkeypatch):
    opens(monkeypatch, LetterDecoder(variant.manifest))
    goldens = record(variant.path)
    opens(monkeypatch, LetterDecoder(variant.manifest, wrong=0.03))
    assert 0.9 < compare(variant.path, goldens) < 1.0
    opens(monkeypatch, LetterDecoder(variant.manifest, wrong=0.3))
    assert "share of tokens" in refusal(compare, variant.path, goldens)


def test_a_decoder_whose_answer_does_not_depend_on_its_input_is_broken(variant, monkeypatch):
    opens(monkeypatch, LetterDecoder(variant.manifest, mute=True))
    assert "broken" in refusal(record, variant.path)


@pytest.fixture
def folder(variant, tmp_path):
    """The files of a bundle, without those that are not looked at."""
    (tmp_path / "run.sh").write_text("exit 0\n")
    write_record(tmp_path / "goldens.json", record(variant.path))
    bundle = Bundle(
        name="tiny-onnx-fp32-laptop",
        variant=variant.name,
        model=variant.manifest.model,
        target="laptop",
        kind="dir",
        runtime="1.0",
        files=describe(tmp_path),
        machine="x86_64",
        python=("3.11",),
    )
    write_record(tmp_path / "bundle.json", bundle)
    everything = (*bundle.files, describe_file(tmp_path / "bundle.json", "bundle.json"))
    (tmp_path / "SHA256SUMS").write_text(checksums(everything))
    return tmp_path


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_an_intact_bundle_passes_and_counts_what_it_checked(folder):
    passed = selftest.selftest(folder)
    assert passed.files == 6
    assert passed.agreement >= passed.minimum


@pytest.mark.parametrize("name", ["variant/model.onnx", "variant/tokenizer.json", "goldens.json", "run.sh"])
def test_one_flipped_byte_fails_and_names_the_file(folder, name):
    flip(folder / name)
    assert name in refusal(selftest.selftest, folder)


def test_a_missing_file_fails_and_is_named(folder):
    (folder / "variant" / "model.onnx").unlink()
    assert "model.onnx" in refusal(selftest.selftest, folder)


def test_checksums_changed_together_with_a_file_do_not_hide_it(folder):
    flip(folder / "run.sh")
    changed = describe_file(folder / "run.sh", "run.sh").sha256
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    (folder / "SHA256SUMS").write_text(
        "".join(f"{changed}  run.sh\n" if line.endswith("run.sh") else f"{line}\n" for line in lines)
    )
    assert "run.sh" in refusal(check_files, folder)


def test_a_file_left_out_of_the_checksums_is_named(folder):
    lines = (folder / "SHA256SUMS").read_text().splitlines(keepends=True)
    (folder / "SHA256SUMS").write_text("".join(line for line in lines if "model.onnx" not in line))
    assert "model.onnx" in refusal(check_files, folder)


def test_files_that_came_later_do_not_matter(folder):
    (folder / "rows.csv").write_text("text\nhello\n")
    assert selftest.selftest(folder).files == 6


def test_a_folder_that_is_no_bundle_is_refused(tmp_path):
    assert "no bundle" in refusal(selftest.selftest, tmp_path)
