"""Text that grows token by token: that of all tokens at once, for every decoder, with few tokens decoded for each."""

import random

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from edgeml_runtime.backends.onnx_text import GrowingText
from edgeml_runtime.session import open_session
from edgeml_runtime.types import Generate
from tiny.chats import chat_tokenizer
from tiny.graphs import decoder_variant

TEXTS = [
    "one two  three,  four\n\n    five.",
    "caf\u00e9 \u2603\u2603 \u4f60\u597d \U0001f600\U0001f468\u200d\U0001f469\u200d\U0001f467 end",
    " leading and trailing ",
    "\u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22" * 9,
]
_PIECES = ["\u2581", "\u2581\u2581", "\u2581one", "\u2581two", "\u2581three", "four", ",", ".", "\u2581end", "\n"]
_BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def sentence_tokenizer():
    """Spaces as SentencePiece writes them, and bytes for what is in no word, as Llama's and Gemma's first ones do."""
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(["<s>", *_BYTES, *_PIECES])}, []))
    space = decoders.Replace("\u2581", " ")
    tokenizer.decoder = decoders.Sequence([space, decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def metaspace_tokenizer():
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(["<s>", *_PIECES])}, []))
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<s>", special=True)])
    return tokenizer


def word_tokenizer():
    words = ["<s>", "one", "##ly", "two", ".", ",", "'", "##s", "n't", "do", "not"]
    tokenizer = Tokenizer(models.WordPiece({word: place for place, word in enumerate(words)}, unk_token="<s>"))
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def suffix_tokenizer():
    words = ["<s>", "one</w>", "tw", "o</w>", "three</w>", "</w>"]
    tokenizer = Tokenizer(models.BPE({word: place for place, word in enumerate(words)}, []))
    tokenizer.decoder = decoders.BPEDecoder()
    return tokenizer


MAKERS = {
    "bytes": chat_tokenizer,
    "sentence": sentence_tokenizer,
    "metaspace": metaspace_tokenizer,
    "words": word_tokenizer,
    "suffix": suffix_tokenizer,
}


def spelled(tokenizer, tokens):
    """What each token completed, the rest, and how many tokens were decoded for it."""
    decoded = 0

    def decode(some):
        nonlocal decoded
        decoded += len(some)
        return tokenizer.decode(some)

    text = GrowingText(decode)
    return [*map(text.add, tokens), text.rest()], decoded


@pytest.mark.parametrize("name", MAKERS)
def test_the_parts_are_the_text_of_all_tokens(name):
    tokenizer, chance = MAKERS[name](), random.Random(5)
    whole = [token for token in range(tokenizer.get_vocab_size()) if "\ufffd" not in tokenizer.decode([token])]
    for _ in range(200):
        tokens = chance.choices(whole, k=chance.randrange(30))
        assert "".join(spelled(tokenizer, tokens)[0]) == tokenizer.decode(tokens)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("name", ["bytes", "sentence"])
def test_characters_of_several_bytes_come_whole_and_in_time(name, text):
    tokenizer = MAKERS[name]()
    first = tokenizer.token_to_id("<0x00>")
    plain = tokenizer.encode(text, add_special_tokens=False).ids
    tokens = plain if name == "bytes" else [first + byte for byte in text.encode()]

    parts, _ = spelled(tokenizer, tokens)

    seen, told = b"", ""
    for part, byte in zip(parts, text.encode(), strict=False):
        seen, told = seen + bytes((byte,)), told + part
        assert told == (text if name == "bytes" else text.lstrip(" "))[: len(told)]
        assert len(told) >= len(seen.decode(errors="ignore")) - (name == "sentence")
    assert "".join(parts) == tokenizer.decode(tokens)


@pytest.mark.parametrize(
    "tokens", [b"\x9f" * 100, b"a\xe2\x82", b"\xe2" * 3 + b"\xe2\x82\xac", b"\xf0\x9f\x98z" * 20, b"\xff" * 40 + b"ok"]
)
def test_bytes_that_are_no_characters_are_told_as_such(tokens):
    tokenizer = chat_tokenizer()
    letters = [tokenizer.token_to_id(letter) for letter in map(letter_of, tokens)]

    parts, decoded = spelled(tokenizer, letters)

    assert "".join(parts) == tokenizer.decode(letters)
    assert decoded < 40 * len(letters) + 40


def letter_of(byte):
    """How a tokenizer of bytes writes a byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    strange = [other for other in range(256) if other not in plain]
    return chr(byte) if byte in plain else chr(256 + strange.index(byte))


@pytest.mark.parametrize("name", ["sentence", "metaspace"])
def test_a_space_after_tokens_that_are_no_text_is_kept(name):
    tokenizer = MAKERS[name]()
    one, two, start = (tokenizer.token_to_id(word) for word in ("\u2581one", "\u2581two", "<s>"))
    text = GrowingText(tokenizer.decode, mute={start})

    assert "".join(map(text.add, [start, one, *[start] * 50, two])) == "one two"


@pytest.mark.parametrize("name", MAKERS)
def test_a_long_text_decodes_few_tokens_for_each(name):
    tokenizer = MAKERS[name]()
    whole = [token for token in range(tokenizer.get_vocab_size()) if "\ufffd" not in tokenizer.decode([token])]

    _, decoded = spelled(tokenizer, random.Random(1).choices(whole[1:], k=1000))

    assert decoded < 6000


def test_a_model_decodes_few_tokens_for_each_that_it_writes(tmp_path):
    session = open_session(decoder_variant(tmp_path / "model", max_tokens=300), threads=1)
    decode, decoded = session._tokenizer.decode, []

    class Counting:
        get_added_tokens_decoder = session._tokenizer.get_added_tokens_decoder

        def decode(self, tokens, **settings):
            decoded.append(len(tokens))
            return decode(tokens, **settings)

    prompt, session._tokenizer = session.prompt(None, "abc"), Counting()
    options = Generate(max_new_tokens=250, past_end=True, temperature=1.0)

    made = session.generate(prompt, options)
    whole, streamed = sum(decoded), "".join(step.text for step in session.write(prompt, options))

    assert made.text == streamed == decode(made.tokens)
    assert whole < 250 * 6
    assert sum(decoded) < 250 * 12
