"""Stop words: the text ends before the first of them, whole or as a stream, wherever its tokens break."""

import json
from functools import partial

import pytest
from msgspec.structs import replace

from edgeml_runtime.__main__ import main
from edgeml_runtime.errors import UnfitError
from edgeml_runtime.reasoning import THINK, spans
from edgeml_runtime.server.generation import Shown
from edgeml_runtime.session import Thinking, Written, open_session
from edgeml_runtime.stops import place_of, undecided, until
from edgeml_runtime.types import Generate
from tiny.chats import chat_tokenizer
from tiny.gguf import llama_gguf
from tiny.graphs import decoder_variant
from tiny.seq2seq import seq2seq_variant
from tiny.variants import gguf_variant

LONG = Generate(max_new_tokens=24)


@pytest.fixture(params=["onnx", "gguf", "seq2seq"], scope="module")
def writer(request, tmp_path_factory):
    root = tmp_path_factory.mktemp(request.param)
    make = {"onnx": decoder_variant, "seq2seq": seq2seq_variant}.get(request.param)
    folder = (
        make(root / "model", max_tokens=64)
        if make
        else gguf_variant(root / "model", llama_gguf(root / "tiny.gguf", width=64))
    )
    session = open_session(folder, threads=1)
    yield session
    session.close()


def streamed(text, stops, sizes, hidden=lambda _: ()):
    """What is given away of a text in pieces of those sizes, piece by piece."""
    pieces, start = [], 0
    for size in sizes:
        pieces.append(Written(text[start : start + size], start))
        start += size
    return [step.text for step in until(iter(pieces), stops, hidden)]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 40])
@pytest.mark.parametrize(
    ("stops", "expected"),
    [
        (("stop",), "one two st"),
        (("stop", "two"), "one "),
        (("three", "wo st"), "one t"),
        (("absent",), "one two ststop three"),
        (("one",), ""),
        (("three!",), "one two ststop three"),
        ((), "one two ststop three"),
    ],
)
def test_a_text_ends_before_the_first_word_and_gives_no_part_of_it_away(size, stops, expected):
    given = streamed("one two ststop three", stops, [size] * 20)

    assert "".join(given) == expected
    for count in range(len(given)):
        assert expected.startswith("".join(given[:count]))


def test_no_word_ends_a_text_where_the_model_thinks_aloud():
    text = "<think>a stop here</think>and a stop there"
    hidden = spans

    assert place_of(text, ("stop",), spans(text)) == text.rindex("stop")
    assert "".join(streamed(text, ("stop",), [3] * 20, hidden)) == text[: text.rindex("stop")]


def test_words_in_long_reasoning_are_passed_over_at_once():
    looks = []

    class Spans(tuple):
        def __iter__(self):
            looks.append(self)
            return super().__iter__()

    text = "<think>" + "a\n" * 1000 + "</think>b\n<think>\n\n</think>"

    assert place_of(text, ("\n",), Spans(spans(text))) == text.index("b\n") + 1
    assert place_of(text[:-20], ("\n\n",), Spans(spans(text))) is None
    assert len(looks) == 2


@pytest.mark.parametrize("stop", ["\ufffd", "z\ufffd"])
@pytest.mark.parametrize("kind", ["onnx", "gguf"])
def test_a_stop_word_may_be_a_character_that_is_never_complete(tmp_path, kind, stop, monkeypatch):
    if kind == "onnx":
        session = open_session(decoder_variant(tmp_path / "model"), threads=1)
        session._tokenizer = chat_tokenizer()
        tokens = [session._tokenizer.token_to_id(letter) for letter in ("z", "\u00e2")]
        monkeypatch.setattr(session, "_begin", lambda given, _: (lambda new: None, given))
    else:
        session = open_session(gguf_variant(tmp_path / "model", llama_gguf(tmp_path / "a.gguf", width=64)), threads=1)
        tokens = [3 + ord("z"), 3 + 0xE2]
    written = iter(tokens * 2)
    monkeypatch.setattr("edgeml_runtime.next_token.NextToken.choose", lambda *_: next(written))
    asked = Generate(max_new_tokens=2, stop=(stop,), past_end=False)

    made = session.generate([5], asked)

    assert (made.text, made.finish_reason) == ("z\ufffd"[: "z\ufffd".find(stop)], "stop")
    assert "".join(step.text for step in session.write([5], asked)) == made.text


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("text", ["Two and two.</think>It is 4.", "The mark </think> ends what <think> began</think>."])
def test_a_mark_that_closes_nothing_takes_nothing_of_what_was_shown(text, size):
    shown = Shown((), Thinking((THINK,)))
    parts = [shown.add(text[place : place + size]) for place in range(0, len(text), size)]
    expected = text.replace("<think> began</think>", "")
    assert "".join(parts) + shown.rest() == shown.text == expected


def test_a_word_may_begin_within_another_that_was_none():
    assert undecided("aab", ("abc", "b-")) == 2
    assert "".join(streamed("aabaabx", ("aabx",), [1] * 7)) == "aab"


def middle(text):
    """A part of the text that stands there for the first time, and ends within it."""
    return next(
        text[start : start + 3] for start in range(3, len(text) - 6) if text.find(text[start : start + 3]) == start
    )


def test_generation_ends_before_a_stop_word_whole_and_as_a_stream(writer):
    prompt = writer.prompt(None, "abc")
    whole = writer.generate(prompt, LONG)
    stop = middle(whole.text)
    asked = replace(LONG, stop=("never", stop))

    made = writer.generate(prompt, asked)
    steps = list(writer.write(prompt, asked))

    assert made.text == whole.text[: whole.text.find(stop)] == "".join(step.text for step in steps)
    assert made.finish_reason == "stop"
    assert len(made.tokens) == len(made.token_times_s) == len(made.text_ends) < len(whole.tokens)
    assert made.tokens == whole.tokens[: len(made.tokens)]
    assert max(made.text_ends) == len(made.text)
    assert whole.finish_reason == "length"


def test_a_prompt_that_is_empty_and_one_that_does_not_fit_are_told_apart(writer):
    prompt = writer.prompt(None, "abc")

    for asked, tokens, told in [
        (4, [], "there is no token to continue from"),
        (4, prompt * 900, f"{900 * len(prompt)} tokens"),
        (40_000, prompt, f"{len(prompt)} tokens and 40000 new ones do not fit the "),
    ]:
        if asked == 40_000 and writer.manifest.task == "text2text-generation":  # whose answer has a room of its own
            continue
        for write in (writer.generate, lambda *given: list(writer.write(*given))):
            with pytest.raises(UnfitError, match=told):
                write(tokens, Generate(max_new_tokens=asked))


def test_a_stop_word_that_never_comes_changes_nothing(writer):
    prompt = writer.prompt(None, "abc")
    asked = replace(LONG, stop=("\u2603 never",))

    made = writer.generate(prompt, asked)

    assert (made.text, made.finish_reason) == (writer.generate(prompt, LONG).text, "length")
    assert "".join(step.text for step in writer.write(prompt, asked)) == made.text


def test_text_past_its_end_is_not_ended_by_a_stop_word(writer):
    prompt = writer.prompt(None, "abc")
    asked = replace(LONG, past_end=True, stop=(middle(writer.generate(prompt, LONG).text),))

    assert len(writer.generate(prompt, asked).tokens) == 24


def test_text_is_drawn_by_its_seed_the_same_whole_and_as_a_stream(writer):
    prompt = writer.prompt(None, "abc")
    asked = partial(Generate, max_new_tokens=24, temperature=1.0, top_k=40, top_p=0.95)

    made = [writer.generate(prompt, asked(seed=seed)).text for seed in (1, 1, 2)]

    assert made[0] == made[1] != made[2]
    assert "".join(step.text for step in writer.write(prompt, asked(seed=2))) == made[2]
    assert writer.generate(prompt, LONG).text not in made


def test_predict_draws_and_stops_where_it_is_told_to(tmp_path, capsys):
    folder = decoder_variant(tmp_path / "model")
    (tmp_path / "rows.txt").write_text("abc\n")

    def said(*options):
        code = main(["predict", str(folder), "--input", str(tmp_path / "rows.txt"), "--max-new-tokens", "9", *options])
        out, err = capsys.readouterr()
        return json.loads(out) if code == 0 else (code, err)

    plain = said()
    assert said("--stop", middle(plain)) == plain[: plain.find(middle(plain))]
    drawn = ["--temperature", "1.5", "--top-p", "0.9", "--top-k", "50", "--seed"]
    assert said(*drawn, "3") == said(*drawn, "3") != plain
    assert said(*drawn, "3") != said(*drawn, "4")
    for option, value, hint in [
        ("--temperature", "-1", "from 0 to 100"),
        ("--temperature", "nan", "from 0 to 100"),
        ("--top-p", "0", "above 0 to 1"),
        ("--top-k", "0", "whole number from 1"),
        ("--seed", "x", "whole number from 0"),
        ("--stop", "", "leave --stop out"),
    ]:
        code, err = said(option, value)
        assert code == 3
        assert hint in err


def test_a_gguf_models_tokens_are_read_once_each_while_a_stop_word_is_looked_for(tmp_path, monkeypatch):
    session = open_session(gguf_variant(tmp_path / "model", llama_gguf(tmp_path / "tiny.gguf", width=64)), threads=1)
    piece, read = session._model.piece, []
    monkeypatch.setattr(
        session._model, "piece", lambda token, **settings: read.append(token) or piece(token, **settings)
    )
    prompt = session.prompt(None, "abc")

    made = session.generate(prompt, Generate(max_new_tokens=100, stop=("\u2603 never",)))

    assert len(read) <= len(made.tokens) + len(prompt)
