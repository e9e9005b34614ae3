"""Small changes of a text that should not change what it means, each by a stated recipe. Pure: no model, no I/O.

`typos`: one place for every 20 letters, at least one, where two different letters stand side by side in a word; there,
by a coin, the two are swapped or the first is dropped (two of the four slips that Damerau, 1964, found behind most
misspellings).
`case`: by a coin, the whole text in capitals, or the case of its first letter turned.
`spacing`: one space for every four, at least one, by a coin doubled or left out.

The coin is seeded by the seed, the kind and the text itself, so that a text is changed alike wherever it stands. A text
that offers no place, such as a number to `typos`, stays as it is.
"""

from __future__ import annotations

import random
from itertools import pairwise

KINDS = ("typos", "case", "spacing")
LETTERS_A_TYPO = 20
SPACES_A_CHANGE = 4


def perturb(text: str, kind: str, seed: int) -> str:
    """The text with one kind of change; `kind` is one of KINDS."""
    coin = random.Random(f"{seed}:{kind}:{text}")  # noqa: S311 - a recipe, not a secret
    return {"typos": _typos, "case": _case, "spacing": _spacing}[kind](text, coin)


def _typos(text: str, coin: random.Random) -> str:
    letters = sum(map(str.isalpha, text))
    places = [index for index, (one, two) in enumerate(pairwise(text)) if _differ(one, two)]
    for place in _apart(places, max(1, letters // LETTERS_A_TYPO), coin):
        kept = text[place + 1] + text[place] if coin.random() < 0.5 else text[place + 1]
        text = text[:place] + kept + text[place + 2 :]
    return text


def _case(text: str, coin: random.Random) -> str:
    first = next((index for index, letter in enumerate(text) if letter.isalpha()), None)
    if first is None:
        return text
    if coin.random() < 0.5:
        return text.upper()
    return text[:first] + text[first].swapcase() + text[first + 1 :]


def _spacing(text: str, coin: random.Random) -> str:
    spaces = [index for index, letter in enumerate(text) if letter == " "]
    for place in _apart(spaces, max(1, len(spaces) // SPACES_A_CHANGE), coin):
        text = text[:place] + ("  " if coin.random() < 0.5 else "") + text[place + 1 :]
    return text


def _differ(one: str, two: str) -> bool:
    return one.isalpha() and two.isalpha() and one != two


def _apart(places: list[int], count: int, coin: random.Random) -> list[int]:
    """At most `count` of the places, from the last to the first, none beside another: no change undoes a change."""
    chosen: list[int] = []
    for place in sorted(coin.sample(places, min(count, len(places))), reverse=True):
        if not chosen or chosen[-1] - place > 1:
            chosen.append(place)
    return chosen
