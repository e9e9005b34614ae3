"""Parts of texts that are blotted out before anything is written: what a rule finds reads as its name, `<email>`.

A rule finds what is written as usual: an address spelled out, a name, or a number cut over two fields stays. E-mail is
the plain form of RFC 5321; an IBAN has its check digits right (ISO 13616, modulo 97), a card number its own (ISO/IEC
7812-1, Luhn); a telephone number has 7 to 15 digits (ITU-T E.164) and begins with `+` or `0`, or is grouped 3-3-4.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from edgeml_runtime.errors import EdgemlError, unknown
from edgeml_runtime.feedback.settings import BUILT_IN

Span = tuple[int, int]
Rule = Callable[[str], Iterator[Span]]

# Every repetition has a bound, so that no text takes longer than its length deserves.
_EMAIL = re.compile(r"[\w.!#$%&'*+/=?^`{|}~-]{1,64}@(?:[\w-]{1,63}\.){1,8}\w{2,63}")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]){11,30}")
_CARD = re.compile(r"(?<!\d)\d{4}[ -]?\d(?:[ -]?\d){8,14}")  # its first four digits are never cut
_PHONE = re.compile(
    r"(?<![\w.,])(?:\+[ ]?\d(?:[ ()/.-]{0,2}\d){6,14}|\(?0\d{1,5}\)?(?:[ ()/-]{0,2}\d){5,13}"
    r"|\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4})(?!\d)"
)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")


def _emails(text: str) -> Iterator[Span]:
    return (found.span() for found in _EMAIL.finditer(text))


def _phones(text: str) -> Iterator[Span]:
    return (found.span() for found in _PHONE.finditer(text))


def _ibans(text: str) -> Iterator[Span]:
    return _checked(text, _IBAN, _is_iban)


def _cards(text: str) -> Iterator[Span]:
    return _checked(text, _CARD, _is_card)


def _checked(text: str, pattern: re.Pattern[str], holds: Callable[[str], bool]) -> Iterator[Span]:
    """What the pattern finds and the check digits confirm, or the longest beginning of it that they do."""
    place = 0
    while found := pattern.search(text, place):
        start, end = found.span()
        while end > start and not (_ends(text, end) and holds(re.sub(r"[ -]", "", text[start:end]))):
            end -= 1
        if end > start:
            yield start, end
        place = max(end, start + 1)


def _ends(text: str, end: int) -> bool:
    """Whether a number or word ends there."""
    return text[end - 1].isalnum() and not (end < len(text) and text[end].isalnum())


def _is_iban(compact: str) -> bool:
    if not 15 <= len(compact) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in compact[4:] + compact[:4])) % 97 == 1


def _is_card(compact: str) -> bool:
    if not 13 <= len(compact) <= 19:
        return False
    digits = [int(digit) for digit in reversed(compact)]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return (sum(digits[::2]) + sum(doubled)) % 10 == 0


# In the order in which they take their parts: what is an IBAN is no card, and what is a card is no telephone number.
RULES: dict[str, Rule] = {"email": _emails, "iban": _ibans, "card": _cards, "phone": _phones}


class Redaction:
    """The rules of one store. Those of `names` blot out; the other built-in ones still take what is theirs."""

    def __init__(self, names: Sequence[str], patterns: Mapping[str, str]) -> None:
        for name in names:
            if name not in RULES:
                raise unknown("redaction rule", name, RULES, plural="rules")
        self._rules = {**{name: _of(name, pattern) for name, pattern in patterns.items()}, **RULES}
        self._blotted = {*names, *patterns}

    def __call__(self, value: Any) -> Any:
        """The value, JSON of any depth, with its texts, keys and whole numbers redacted.

        Raises RecursionError for JSON that is nested deeper than Python goes.
        """
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, dict):
            return self._object(value)
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, int) and not isinstance(value, bool):
            return value if (text := self._text(str(value))) == str(value) else text
        return value

    def _object(self, value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        times: Counter[str] = Counter()
        for key, item in value.items():
            name = base = self._text(key)
            while name in found:  # two keys may become one
                times[base] += 1
                name = f"{base}{times[base] + 1}"
            found[name] = self(item)
        return found

    def _text(self, text: str) -> str:
        parts = [(text, "")]  # a part, and the rule that took it
        for name, rule in self._rules.items():
            parts = [piece for part in parts for piece in ([part] if part[1] else _taken(part[0], name, rule))]
        return "".join(f"<{name}>" if name in self._blotted else part for part, name in parts)


def _taken(text: str, name: str, rule: Rule) -> Iterator[tuple[str, str]]:
    place = 0
    for start, end in rule(text):
        yield text[place:start], ""
        yield text[start:end], name
        place = end
    yield text[place:], ""


def _of(name: str, pattern: str) -> Rule:
    if name in RULES or not _NAME.fullmatch(name):
        hint = f"use small letters, digits, - and _, and none of {', '.join(RULES)}"
        raise EdgemlError(f"{name!r} cannot name a redaction pattern", hint=hint)
    try:
        made = re.compile(pattern)
    except re.error as error:
        raise EdgemlError(f"the redaction pattern {name} is no regular expression: {error}", hint="mend it") from error
    return lambda text: (found.span() for found in made.finditer(text) if found.end() > found.start())


EVERY_RULE = Redaction(BUILT_IN, {})
