"""Texts that know who wrote each character: what Python makes of the text, and nobody's words taken for another's."""

import random
import tracemalloc

import pytest

from edgeml_runtime.authors import ANYBODY, ASSISTANT, TEMPLATE, Traced, author_of, joined, traced

SIGNS = {"t": TEMPLATE, "a": ASSISTANT, "u": ANYBODY}


def signed(text, signs):
    return joined(Traced(letter, SIGNS[sign]) for letter, sign in zip(text, signs, strict=True))


def signs(text):
    names = {author: sign for sign, author in SIGNS.items()}
    return "".join(names[author_of(letter)] for letter in text)


@pytest.mark.parametrize(
    ("change", "text", "left"),
    [
        (lambda x: x[1:3], "bc", "au"),
        (lambda x: x[-1], "f", "a"),
        (lambda x: x[::-1], "fedcba", "atuuat"),
        (lambda x: x + Traced("x", TEMPLATE), "abcdefx", "tauutat"),
        (lambda x: "x" + x, "xabcdef", "utauuta"),
        (lambda x: Traced(" ", TEMPLATE).join((x[:1], x[1:])), "a bcdef", "ttauuta"),
        (lambda x: x.replace("bc", Traced("--", TEMPLATE)), "a--def", "tttuta"),
        (lambda x: x.replace("b", "").replace("e", ""), "acdf", "tuua"),
        (lambda x: x.replace("", "-"), "-a-b-c-d-e-f-", "u" * 13),
        (lambda x: x.removeprefix("ab").removesuffix("f"), "cde", "uut"),
        (lambda x: x.removeprefix("b").removesuffix(""), "abcdef", "tauuta"),
        (lambda x: x.strip("af"), "bcde", "auut"),
        (lambda x: x.upper(), "ABCDEF", "tauuta"),
        (str, "abcdef", "tauuta"),
        (lambda x: (x + Traced("ß", TEMPLATE)).upper(), "ABCDEFSS", "u" * 8),
        (lambda x: x[5:].join(x.split("cd")), "abfef", "taata"),
        (lambda x: traced([x]), "['abcdef']", "u" * 10),
    ],
)
def test_each_character_keeps_its_author(change, text, left):
    made = change(signed("abcdef", "tauuta"))

    assert (made, signs(made)) == (text, left)


@pytest.mark.parametrize(
    ("value", "author"),
    [
        ("", ANYBODY),
        (Traced("", ANYBODY), TEMPLATE),
        (7, TEMPLATE),
        (None, TEMPLATE),
        ([1, Traced("a", ASSISTANT)], ASSISTANT),
        ({"a": 1}, ANYBODY),
        ({Traced("a", TEMPLATE): (Traced("b", ASSISTANT), [Traced("c", ANYBODY)])}, ANYBODY),
        ({1, 2}, ANYBODY),
    ],
)
def test_a_value_belongs_to_the_least_trusted_of_its_parts_and_what_is_not_known_to_anybody(value, author):
    assert author_of(value) == author


CALLS = {
    "strip": [(), (None,), ("a ",)],
    "lstrip": [(), ("ab",)],
    "rstrip": [(), ("ab",)],
    "removeprefix": [("a",), ("",)],
    "removesuffix": [("a",), ("",)],
    "split": [(), (None, 1), ("a",), ("ab", 1), ("\n",)],
    "rsplit": [(), (None, 1), ("a",), ("ab", 1)],
    "splitlines": [(), (True,)],
    "replace": [("a", "bb"), ("ab", ""), ("", "-"), ("a", "b", 1), ("a", "b", 0), ("aa", "a")],
    "lower": [()],
    "upper": [()],
    "capitalize": [()],
    "title": [()],
    "join": [(["x", "y"],)],
}


@pytest.mark.parametrize("name", CALLS)
def test_a_changed_text_is_pythons_and_no_letter_gains_trust(name):
    chance = random.Random(3)
    for _ in range(300):
        text = "".join(chance.choice("abAB \n\r\u00df\u01f0\u2028\t") for _ in range(chance.randrange(12)))
        places = [chance.random() < 0.5 for _ in text]
        for values in CALLS[name]:
            whole = joined(
                Traced(letter, TEMPLATE if own else ANYBODY) for letter, own in zip(text, places, strict=True)
            )
            made, expected = getattr(whole, name)(*values), getattr(text, name)(*values)
            assert made == expected
            pieces = made if isinstance(made, list) else [made]
            assert all(type(piece) is Traced and len(piece._authors) == len(piece) for piece in pieces)
            if name in ("join", "replace"):
                continue
            trusted = list("".join(letter for letter, own in zip(text, places, strict=True) if own).casefold())
            for letter in "".join(one for piece in pieces for one in piece if author_of(one) == TEMPLATE).casefold():
                trusted.remove(letter)


def test_a_list_of_a_texts_letters_is_little_longer_than_the_text():
    text = Traced("abc" * 30_000)
    tracemalloc.start()
    try:
        letters = list(text)
        assert tracemalloc.get_traced_memory()[0] < 1_500_000
    finally:
        tracemalloc.stop()
    assert "".join(letters) == text
