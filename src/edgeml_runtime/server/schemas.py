"""Which JSON Schemas of a client's are tried at all: making a grammar of some would take hours, or all of the memory.

Source: llama.cpp's grammars spell repetitions out; what may be left out of an object makes a rule for each other part.
"""

from __future__ import annotations

from typing import Any

import msgspec

from edgeml_runtime.backends.schema_bounds import check_bounds, schemas_in
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.server.refusals import wrong

LONGEST_BYTES = 65_536
MOST_REPEATS_TOGETHER = 50_000
MOST_PROPERTIES = 128  # of one object
LONGEST_PATTERNS = 256  # characters of all of them together
_BOUNDS = ("minLength", "maxLength", "minItems", "maxItems")


def check_schema(schema: dict[str, Any], place: str) -> None:
    """Raise the refusal of a schema that is too large, or repeats something too often; `place` is where it stands."""
    try:
        check_bounds(schema)
    except EdgemlError as error:
        raise wrong(f"{error.message}: {error.hint}", place) from error
    parts = list(schemas_in(schema))
    repeats = [part[name] for part in parts for name in _BOUNDS if isinstance(part.get(name), (int, float))]
    patterns = [part["pattern"] for part in parts if isinstance(part.get("pattern"), str)]
    properties = [len(part["properties"]) for part in parts if isinstance(part.get("properties"), dict)]
    for what, count, most in (
        ("bytes", len(msgspec.json.encode(schema)), LONGEST_BYTES),
        ("repeats of all parts", sum(repeats), MOST_REPEATS_TOGETHER),
        ("properties of one object", max(properties, default=0), MOST_PROPERTIES),
        ("characters in patterns", sum(map(len, patterns)), LONGEST_PATTERNS),
    ):
        if count > most:
            raise wrong(f"a schema may have {most} {what} here, and this one has more", place)
