"""Whether what a JSON Schema counts to is little enough for a grammar, which writes every count out.

llama.cpp's parser ends the process on a grammar that is nested some 100000 deep, which
`{"type": "string", "maxLength": 100000}` becomes, and larger counts take all memory before that. The endpoint is
stricter still with what its clients send.
"""

from __future__ import annotations

import re
from typing import Any

from edgeml_runtime.errors import EdgemlError

MOST = 1000  # llama.cpp refuses grammars that repeat more than some 1000 times
_MOST_IN_PATTERN = 10_000  # characters, once a pattern's counts are written out
_COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
_WHOLE = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\{[^}]*\}", re.DOTALL)  # an escape, a set of letters, a count
_REPEATED = re.compile(r"\{([^}]*)\}")
_NO_DIGIT = re.compile(r"\D")  # the converter's numbers may have a sign, blanks and underscores in them


def check_bounds(schema: Any) -> None:
    """Raise EdgemlError for a schema whose counts are beyond what a grammar can hold."""
    pending = [schema]
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
            for key in _COUNTS:
                if isinstance(count := part.get(key), int | float) and not 0 <= count <= MOST:
                    problem = f"the schema counts to {count} by {key}, and a grammar to {MOST}"
                    raise EdgemlError(problem, hint=f"leave {key} out, or ask for 0 to {MOST}")
            if isinstance(pattern := part.get("pattern"), str):
                _check_pattern(pattern)


def _check_pattern(pattern: str) -> None:
    if written_out(pattern) > _MOST_IN_PATTERN:
        problem = f"the pattern {pattern[:60]!r} stands for too many characters to become a grammar"
        raise EdgemlError(problem, hint="count less in it, such as [a-z]+ for [a-z]{1,5000}")
    rest = _WHOLE.sub("", pattern)
    if "]" in rest or "}" in rest:  # at which the converter never ends
        problem = f"the pattern {pattern[:60]!r} closes a bracket that nothing opened"
        raise EdgemlError(problem, hint="write \\] or \\} for the character itself")


def written_out(pattern: str) -> int:
    """Characters of a regular expression, with what stands before a count as often as that says."""
    groups, place = [[0, 0]], 0  # of each that is open: what stands before its last part, and that part
    while place < len(pattern):
        letter, repeated = pattern[place], _REPEATED.match(pattern, place)
        if repeated:
            groups[-1][1] *= max(int(_NO_DIGIT.sub("", one)[:7] or 1) for one in repeated[1].split(","))
            place = repeated.end()
            continue
        if letter == "(":
            groups.append([0, 0])
        elif letter == ")" and len(groups) > 1:
            size = sum(groups.pop())
            _follow(groups[-1], size)
        else:
            _follow(groups[-1], 1)
        place = _end(pattern, place)
    return sum(map(sum, groups))


def _follow(group: list[int], size: int) -> None:
    group[0] += group[1]
    group[1] = size


def _end(pattern: str, place: int) -> int:
    """Where the next part begins: an escaped letter and a set of letters are one."""
    if pattern[place] == "\\":
        return place + 2
    if pattern[place] != "[":
        return place + 1
    place += 1
    while place < len(pattern) and pattern[place] != "]":
        place += 2 if pattern[place] == "\\" else 1
    return place + 1
