"""Marks that nothing else holds: random, and made anew for every run."""

from __future__ import annotations

import secrets
import string
import unicodedata
from collections.abc import Iterable

from edgeml.privacy.types import Canary
from edgeml_runtime.types import Record

_ACCENTS = "äéîõüñçåřž"
_SHARED = 10  # letters or digits; ten digits by chance stand in a random text of 1 GB once in ten times
_OWN = 6


class Stems(Record, frozen=True, kw_only=True):
    """What the marks of one run begin with. Whoever finds one has found a mark, and whole marks tell which."""

    words: str
    accents: str
    address: str
    phone: str
    iban: str
    card: str


def stems() -> Stems:
    """New ones."""
    numbers = [secrets.choice("123456789") + _some(string.digits, _SHARED - 1) for _ in range(3)]
    return Stems(
        words=_some(string.ascii_lowercase, _SHARED),
        accents=_some(_ACCENTS, _SHARED),
        address=_some(string.ascii_lowercase, _SHARED),
        phone=numbers[0],
        iban=numbers[1],
        card="4" + numbers[2][1:],
    )


def canary(step: str, shared: Stems) -> Canary:
    """The marks of one step. Numbers have right check digits, so that the rules of feedback's redaction find them."""
    return Canary(
        step=step,
        stem=shared.words,
        words=shared.words + _some(string.ascii_lowercase, _OWN),
        accents=shared.accents + _some(_ACCENTS, _OWN),
        phone="+" + shared.phone + _some(string.digits, 2),  # 13 digits might be a card's number, by chance
        iban=_iban(shared.iban + _some(string.digits, 8)),
        card=_card(shared.card + _some(string.digits, 5)),
        address=shared.address + _some(string.ascii_lowercase, _OWN) + "@example.org",
    )


def canaries(steps: Iterable[str], shared: Stems) -> dict[str, Canary]:
    """One a step."""
    return {step: canary(step, shared) for step in steps}


def bare(text: str) -> str:
    """A text without its accents."""
    return "".join(one for one in unicodedata.normalize("NFD", text) if not unicodedata.combining(one))


def _some(letters: str, count: int) -> str:
    return "".join(secrets.choice(letters) for _ in range(count))


def _iban(account: str) -> str:
    """ISO 13616: the check digits make the number, letters as 10 to 35, leave 1 modulo 97."""
    return f"DE{98 - int(account + '131400') % 97:02}{account}"


def _card(start: str) -> str:
    """ISO/IEC 7812-1: Luhn's check digit at the end."""
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in reversed(start[-1::-2]))
    return start + str(-(sum(doubled) + sum(map(int, start[-2::-2]))) % 10)
