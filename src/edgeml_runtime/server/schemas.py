"""Which JSON Schemas of a client's are tried at all: making a grammar of some would take hours, or all of the memory.

Source: llama.cpp's grammars spell repetitions out; what may be left out of an object makes a rule for each other part.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec

from edgeml_runtime.server.refusals import wrong

LONGEST_BYTES = 65_536
MOST_REPEATS = 1000  # of a character or an item
MOST_REPEATS_IN_PATTERN = 100  # a thousand of what may be empty, such as (a?){999}, take minutes a token
MOST_REPEATS_TOGETHER = 50_000
MOST_PROPERTIES = 128  # of one object
LONGEST_PATTERNS = 256  # characters of all of them together
_BOUNDS = ("minLength", "maxLength", "minItems", "maxItems")
_REPEATS = re.compile(r"\{\s*(?:\d*\s*,\s*)?(\d+)\s*,?\s*\}")


def check_schema(schema: dict[str, Any], place: str) -> None:
    """Raise the refusal of a schema that is too large, or repeats something too often; `place` is where it stands."""
    parts = list(_parts(schema))
    repeats = [part[name] for part in parts for name in _BOUNDS if isinstance(part.get(name), (int, float))]
    patterns = [part["pattern"] for part in parts if isinstance(part.get("pattern"), str)]
    properties = [len(part["properties"]) for part in parts if isinstance(part.get("properties"), dict)]
    nested = [math.prod(max(int(text[:6]), 1) for text in _REPEATS.findall(pattern)) for pattern in patterns]
    for what, count, most in (
        ("bytes", len(msgspec.json.encode(schema)), LONGEST_BYTES),
        ("repeats of one part", max(map(abs, repeats), default=0), MOST_REPEATS),
        ("repeats of all parts", sum(map(abs, repeats)), MOST_REPEATS_TOGETHER),
        ("repeats in one pattern", max(nested, default=0), MOST_REPEATS_IN_PATTERN),
        ("properties of one object", max(properties, default=0), MOST_PROPERTIES),
        ("characters in patterns", sum(map(len, patterns)), LONGEST_PATTERNS),
    ):
        if count > most:
            raise wrong(f"a schema may have {most} {what} here, and this one has more", place)


def _parts(schema: Any) -> Iterator[dict[str, Any]]:
    """Every object in it, itself first."""
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield one
        waiting += one.values() if isinstance(one, dict) else one if isinstance(one, list) else ()
