"""A model that reads one text and writes another: two graphs, one variant, the tokens of PyTorch."""

import json
from itertools import takewhile

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeml.dataset import dataset_for
from edgeml.errors import EdgemlError
from edgeml.formats.onnx import conversion as onnx_format
from edgeml.formats.onnx.audit import audit
from edgeml.formats.onnx.graph import COPIED
from edgeml.formats.onnx.seq2seq import mark_copies
from edgeml.package import bundle_path, package
from edgeml.quantize import quantize, recommended
from edgeml.scores import scores
from edgeml.store import Store, load_variant
from edgeml.targets import profile
from edgeml.traits import read_traits
from edgeml.types import Model, Scheme
from edgeml_runtime.__main__ import main
from edgeml_runtime.records import describe, read_record
from edgeml_runtime.session import open_session
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Generate, Job, VariantManifest
from edgeml_runtime.worker import run
from tiny.alone import alone
from tiny.seq2seq import BART_FIRST, BART_START, END, START, bart_folder, seq2seq_variant, t5_folder

TASK = "text2text-generation"
PROMPTS = [(None, "a line of 25 letters, or so"), ("translate:", "x"), ("summarize:", "another; longer, line (with 3)")]


def model_of(folder, *, format="safetensors"):
    files = describe(folder)
    return Model(name="tiny", ref=str(folder), path=str(folder), files=files, format=format, downloaded="2026-01-01")


def opened(folder, **fields):
    return open_session(seq2seq_variant(folder, **fields), threads=1)


def test_the_answer_begins_with_the_start_token_and_follows_the_text(tmp_path):
    session, other = opened(tmp_path / "one"), opened(tmp_path / "other", start_token=7)
    prompt = session.prompt(None, "rent for may")

    made = session.generate(prompt, Generate(max_new_tokens=6))

    assert (len(made.tokens), made.finish_reason, made.prompt_tokens) == (6, "length", len(prompt))
    assert made.tokens != session.generate(session.prompt(None, "fuel"), Generate(max_new_tokens=6)).tokens
    assert made.tokens != other.generate(prompt, Generate(max_new_tokens=6)).tokens
    assert list(made.token_times_s) == sorted(made.token_times_s)
    assert len(made.text_ends) == 6


def test_the_answer_ends_at_an_end_token_or_runs_past_it_where_that_is_asked(tmp_path):
    first, second, third, *_ = opened(tmp_path / "one").generate([2, 9, 3], Generate(max_new_tokens=6)).tokens
    session = opened(tmp_path / "other", end_tokens=(third,))
    before = list(takewhile(lambda token: token != third, (first, second, third)))

    made = session.generate([2, 9, 3], Generate(max_new_tokens=6))

    assert (list(made.tokens), made.finish_reason) == (before, "stop")
    assert len(session.generate([2, 9, 3], Generate(max_new_tokens=6, past_end=True)).tokens) == 6


def test_the_instruction_stands_before_the_text_and_special_tokens_around_both(tmp_path):
    session = opened(tmp_path / "one")

    assert session.prompt("sum up:", "a b") == [2, *session.tokenize("sum up: a b"), 3]
    assert session.prompt(None, "a b") == [2, *session.tokenize("a b"), 3]


def test_a_first_token_that_is_forced_follows_the_start_token_and_is_no_part_of_the_answer(tmp_path):
    session = opened(tmp_path / "one", first_token=7)
    plain, other = (opened(tmp_path / name, start_token=start) for name, start in (("plain", 0), ("other", 7)))
    asked = Generate(max_new_tokens=6)
    prompt = session.prompt(None, "rent for may")

    made = session.generate(prompt, asked)

    assert len(made.tokens) == 6
    assert made.tokens not in (plain.generate(prompt, asked).tokens, other.generate(prompt, asked).tokens)
    logits = session._step([0, 7], session._empty, session._read_once(prompt))[0][0, -1]
    assert made.tokens[0] == logits.argmax()


def test_a_text_that_is_too_long_is_refused_with_its_length(tmp_path):
    session = opened(tmp_path / "one", max_tokens=4)

    with pytest.raises(EdgemlError, match="the text has 7 tokens with its instruction, and at most 4 are read"):
        session.generate(session.prompt(None, "a b c d e"), Generate())


def test_an_answer_that_is_longer_than_a_bart_has_places_for_is_refused_with_both_counts(tmp_path):
    session = opened(tmp_path / "one", architecture="BartForConditionalGeneration", max_tokens=8)

    assert len(session.generate([2, 9, 3], Generate(max_new_tokens=7, past_end=True)).tokens) == 7
    with pytest.raises(EdgemlError, match="8 tokens was asked for, and the model writes at most 7") as refused:
        session.generate([2, 9, 3], Generate(max_new_tokens=8))
    assert refused.value.hint == "--max-new-tokens 7"


def test_a_schema_is_refused(tmp_path):
    with pytest.raises(EdgemlError, match="cannot be held to a schema"):
        opened(tmp_path / "one").generate([2, 3], Generate(schema={"type": "object"}))


@pytest.mark.parametrize(
    ("fields", "message"), [({"graphs": {}}, "names no graph encoder"), ({"start_token": None}, "names no start token")]
)
def test_a_variant_that_lacks_what_it_needs_is_refused(tmp_path, fields, message):
    with pytest.raises(EdgemlError, match=message):
        opened(tmp_path / "one", **fields)


def test_a_missing_graph_is_named(tmp_path):
    folder = seq2seq_variant(tmp_path / "one")
    (folder / "encoder.onnx").unlink()

    with pytest.raises(EdgemlError, match=r"cannot load encoder\.onnx"):
        open_session(folder, threads=1)


def test_it_is_measured_as_generation_is(tmp_path):
    rows = ({"text": "rent"}, {"text": "fuel"})
    job = Job(
        variant=str(seq2seq_variant(tmp_path / "one")),
        task=TASK,
        target="laptop",
        threads=1,
        warmups=1,
        repeats=0,
        seed=0,
        rows=rows,
        generate=Generate(max_new_tokens=5, instruction="say:"),
    )

    outcome = run(job)

    assert [answer["tokens"] for answer in outcome.answers] == [5, 5]
    metrics = {sample.metric for sample in outcome.samples}
    assert {"latency", "latency_first_token", "prefill_rate", "decode_rate", "generated"} <= metrics
    assert not any("chat template" in text for text in outcome.warnings)
    session = open_session(tmp_path / "one", threads=1)
    answer = task_of(TASK).predict(session, rows[0], job.generate)
    assert answer == outcome.answers[0]["text"]


def test_data_has_texts_and_perhaps_what_is_expected(tmp_path):
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "expected": "b"}\n')

    assert dataset_for(TASK, tmp_path / "rows.jsonl", {}, limit=None).rows == ({"text": "a", "expected": "b"},)
    assert len(dataset_for(TASK, None, {}, limit=3).rows) == 3


def test_answers_are_scored_whole_and_by_their_letters():
    from sacrebleu import sentence_chrf

    answers = [{"text": " das Haus "}, {"text": "ein Hut"}]

    found = {one.metric: one for one in scores(TASK, answers, ("das Haus", "ein Hund"), Generate())}

    assert found["exact_match"].columns == ((1.0, 0.0),)
    assert found["chrf"].columns[0] == (1.0, pytest.approx(sentence_chrf("ein Hut", ["ein Hund"]).score / 100))
    assert scores(TASK, answers, (), Generate()) == []


def packed(tmp_path):
    store = Store(tmp_path / "artifacts")
    variant = load_variant(seq2seq_variant(store.variant_folder("tiny", "onnx-fp32")))
    return bundle_path(store, package(variant, store=store, profile=profile(None), kind="dir", wheels=False))


def test_a_bundle_passes_its_self_test_and_predicts(tmp_path, capsys):
    bundle = packed(tmp_path)
    (tmp_path / "lines.txt").write_text("rent\nfuel\n")
    capsys.readouterr()

    assert main(["selftest", str(bundle)]) == 0
    assert "agreement 1.000000" in capsys.readouterr().out
    options = ["--input", str(tmp_path / "lines.txt"), "--instruction", "say:", "--max-new-tokens", "4"]
    assert main(["predict", str(bundle), *options]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    session = open_session(bundle / "variant", threads=1)
    expected = session.generate(session.prompt("say:", "rent"), Generate(max_new_tokens=4)).text
    assert answers[0] == expected
    assert len(answers) == 2
    assert main(["info", str(bundle)]) == 0
    assert "64 tokens a text with its instruction; what is longer is refused" in capsys.readouterr().out
    assert "refuses what is longer" in (bundle / "MODEL_CARD.md").read_text()


def test_a_bundle_whose_encoder_was_changed_fails_its_self_test(tmp_path, capsys):
    bundle = packed(tmp_path)
    path = bundle / "variant" / "encoder.onnx"
    path.write_bytes(path.read_bytes().replace(b"table", b"tabel"))

    assert main(["selftest", str(bundle)]) == 3
    assert "encoder.onnx" in capsys.readouterr().err


def test_it_has_no_perplexity(tmp_path):
    job = Job(
        variant=str(seq2seq_variant(tmp_path / "one")),
        task="perplexity",
        target="laptop",
        threads=1,
        warmups=0,
        repeats=1,
        seed=0,
        text="a text of some words",
    )

    with pytest.raises(EdgemlError, match="reads one text and writes another, so a text alone has no perplexity"):
        run(job)


def test_the_digest_of_a_variant_follows_each_of_its_graphs(tmp_path):
    folder = seq2seq_variant(tmp_path / "one")
    manifest = read_record(folder / "variant.json", VariantManifest)
    digests = {manifest.weights_sha256}
    for name in ("encoder.onnx", "decoder.onnx"):
        (folder / name).write_bytes((folder / name).read_bytes() + b"\0")
        changed = seq2seq_files(folder)
        digests.add(VariantManifest(**{**fields_of(manifest), "files": changed}).weights_sha256)

    assert len(digests) == 3


def test_the_digest_of_a_large_graph_follows_its_weights_beside_it(tmp_path):
    folder = seq2seq_variant(tmp_path / "one", graphs={}, weights="encoder.onnx")
    manifest = read_record(folder / "variant.json", VariantManifest)
    (plain,) = [file.sha256 for file in manifest.files if file.path == "encoder.onnx"]
    digests = {manifest.weights_sha256}
    for content in (b"one", b"another"):
        (folder / "encoder.onnx.data").write_bytes(content)
        digests.add(VariantManifest(**{**fields_of(manifest), "files": seq2seq_files(folder)}).weights_sha256)

    assert manifest.weights_sha256 == plain
    assert len(digests) == 3


def seq2seq_files(folder):
    return tuple(file for file in describe(folder) if file.path != "variant.json")


def fields_of(manifest):
    return {name: getattr(manifest, name) for name in manifest.__struct_fields__}


def stored_model(**tensors):
    node = helper.make_node("Sum", list(tensors), ["y"])
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)
    initializers = [numpy_helper.from_array(array, name) for name, array in tensors.items()]
    return helper.make_model(helper.make_graph([node], "tiny", [], [output], initializers))


def test_a_matrix_that_two_graphs_share_counts_once_and_its_bits_each_time(tmp_path):
    shared = np.arange(12, dtype=np.float32).reshape(3, 4)
    first = stored_model(table=shared)
    second = stored_model(table=shared + 1, again=shared, turned=np.ascontiguousarray(shared.T))
    mark_copies(first, second)
    paths = [tmp_path / "first.onnx", tmp_path / "second.onnx"]
    for model, path in zip((first, second), paths, strict=True):
        onnx.save_model(model, path)

    found = audit(paths, "fp32")

    assert found.parameters == 24
    assert found.bits_per_weight == 32 * 48 / 24
    assert [name.partition(COPIED)[0] for name in second.graph.node[0].input] == ["table", "table", "table"]


def t5_config(folder):
    folder.mkdir()
    config = {"architectures": ["T5ForConditionalGeneration"], "n_positions": 512, "decoder_start_token_id": 0}
    (folder / "config.json").write_text(json.dumps(config))
    return model_of(folder)


def test_the_schemes_that_suit_it_are_those_that_can_be_made(tmp_path):
    assert {one.format for one in recommended(t5_config(tmp_path / "model"), profile("pi5"))} == {"onnx"}


def test_a_model_that_does_not_say_how_answers_begin_is_refused(tmp_path):
    model = t5_config(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    path.write_text(path.read_text().replace("decoder_start_token_id", "other"))

    with pytest.raises(EdgemlError, match="model does not say with which token an answer begins"):
        read_traits(model)
    (tmp_path / "model" / "generation_config.json").write_text('{"decoder_start_token_id": 5}')
    assert read_traits(model).start_token == 5


def test_it_is_refused_for_gguf_by_name(tmp_path):
    model = t5_config(tmp_path / "model")

    with pytest.raises(EdgemlError, match="T5ForConditionalGeneration"):
        quantize(model, [Scheme.parse("gguf:q8_0")], profile=profile("laptop"), store=Store(tmp_path / "artifacts"))


def test_another_class_is_refused_by_name(tmp_path):
    model = t5_config(tmp_path / "model")
    config = (tmp_path / "model" / "config.json").read_text()
    (tmp_path / "model" / "config.json").write_text(config.replace("T5", "Pegasus"))

    with pytest.raises(
        EdgemlError, match="PegasusForConditionalGeneration, which edgeml cannot make into ONNX"
    ) as caught:
        quantize(
            model_of(tmp_path / "model"),
            [Scheme.parse("onnx:fp32")],
            profile=profile("laptop"),
            store=Store(tmp_path / "artifacts"),
        )
    assert "T5ForConditionalGeneration" in caught.value.hint
    assert model.format == "safetensors"


def made_of(folder, root, *schemes):
    """The variants of a model and, beside, that in PyTorch."""
    import transformers

    wanted, store = [Scheme.parse(scheme) for scheme in schemes], Store(root / "artifacts")
    variants = quantize(model_of(folder), wanted, profile=profile("laptop"), store=store)
    return transformers.AutoModelForSeq2SeqLM.from_pretrained(folder).eval(), variants


def logits_in_pytorch(model, prompt):
    import torch

    torch.set_num_threads(1)
    with torch.no_grad():
        return model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([prompt])).logits[0].numpy()


@pytest.mark.real
@pytest.mark.parametrize("family", ["T5", "MT5"])
def test_a_t5_writes_the_tokens_of_pytorch(tmp_path, family):
    import torch

    source = t5_folder(tmp_path / "t5", family=family, initializer_factor=4.0)
    model, (whole,) = made_of(source, tmp_path, "onnx:fp32")
    session, different = open_session(whole.path, threads=1), set()
    torch.set_num_threads(1)  # such small products only wait for each other

    for instruction, text in PROMPTS:
        prompt = session.prompt(instruction, text)
        with torch.no_grad():
            made = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, num_beams=1)
        expected = tuple(takewhile(lambda token: token != END, made[0, 1:].tolist()))
        assert session.generate(prompt, Generate(max_new_tokens=24)).tokens == expected
        different |= set(expected)
    assert len(different) > 5


@pytest.mark.real
def test_a_t5_with_a_head_of_its_own_keeps_its_logits_also_in_integers(tmp_path):
    folder = t5_folder(tmp_path / "t5", own_head=True, num_decoder_layers=1)
    model, (whole, small) = made_of(folder, tmp_path, "onnx:fp32", "onnx:int8")
    sessions = [open_session(one.path, threads=1) for one in (whole, small)]

    for instruction, text in PROMPTS:
        prompt = sessions[0].prompt(instruction, text)
        expected = logits_in_pytorch(model, prompt)
        full, integers = (session.logits(prompt) for session in sessions)
        np.testing.assert_allclose(full, expected, atol=1e-4)
        sizes = np.linalg.norm(integers, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((integers * expected).sum(1) / sizes).min() > 0.99
    check_manifests(model, whole.manifest, small.manifest)


def check_manifests(model, whole, small):
    assert (whole.start_token, whole.end_tokens) == (START, (END,))
    assert set(whole.graphs.values()) <= {file.path for file in whole.files}
    assert whole.audit.parameters == pytest.approx(sum(one.numel() for one in model.parameters()), rel=0.01)
    assert small.audit.parameters == whole.audit.parameters
    assert small.audit.earned
    assert small.audit.share_quantized > 0.99
    assert small.size_bytes < 0.5 * whole.size_bytes


@pytest.mark.real
def test_a_bart_writes_the_tokens_of_pytorch_after_the_one_that_is_forced(tmp_path):
    import torch

    model, (whole, small) = made_of(bart_folder(tmp_path / "bart"), tmp_path, "onnx:fp32", "onnx:int8")
    sessions = [open_session(one.path, threads=1) for one in (whole, small)]
    torch.set_num_threads(1)

    different = set()
    for instruction, text in PROMPTS:
        prompt = sessions[0].prompt(instruction, text)
        with torch.no_grad():
            made = model.generate(torch.tensor([prompt]), max_new_tokens=25, do_sample=False, num_beams=1)[0].tolist()
            expected = model(torch.tensor([prompt]), decoder_input_ids=torch.tensor([made])).logits[0].numpy()
        assert made[:2] == [BART_START, BART_FIRST]
        found = sessions[0].generate(prompt, Generate(max_new_tokens=24))
        ended = made.index(BART_START, 1)  # at the latest where Transformers forces an end upon a text that is cut
        assert list(found.tokens)[: ended - 2] == made[2:ended]
        assert len(found.tokens) == (24 if ended == 25 else ended - 2)
        whole_logits, integers = (one._step(made, one._empty, one._read_once(prompt))[0][0] for one in sessions)
        np.testing.assert_allclose(whole_logits, expected, atol=1e-4 * np.abs(expected).max())
        sizes = np.linalg.norm(integers, axis=1) * np.linalg.norm(expected, axis=1)
        assert ((integers * expected).sum(1) / sizes).mean() > 0.96
        different |= set(found.tokens)
    assert len(different) > 5
    assert small.manifest.audit.earned
    # Vectors that are all zeros or ones, as only untrained models have them, are stored once.
    assert whole.manifest.audit.parameters == pytest.approx(sum(one.numel() for one in model.parameters()), rel=0.02)
    table = model.get_input_embeddings().weight.numel()  # in each graph once, and counted once
    assert whole.manifest.audit.bits_per_weight == pytest.approx(32 + 32 * table / whole.manifest.audit.parameters)
    assert (whole.manifest.start_token, whole.manifest.first_token) == (BART_START, BART_FIRST)
    store = Store(tmp_path / "artifacts")
    bundle = bundle_path(store, package(small, store=store, profile=profile(None), kind="dir", wheels=False))
    (tmp_path / "rows.txt").write_text(f"{PROMPTS[0][1]}\n")
    assert "self-test passed" in alone(bundle, "selftest", ".")
    said = alone(bundle, "predict", ".", "--input", str(tmp_path / "rows.txt"), "--max-new-tokens", "8")
    expected = sessions[1].generate(sessions[1].prompt(*PROMPTS[0]), Generate(max_new_tokens=8)).text
    assert json.loads(said) == expected
    assert whole.manifest.notes == ("answers are greedy: num_beams 4 of its generation_config.json is not done",)


def test_the_classes_that_are_tested_are_supported():
    tested = {f"{family}ForConditionalGeneration" for family in ("Bart", "MT5", "T5")}
    assert set(onnx_format.CLASSES["seq2seq"]) == tested
