"""Text generation, judged by what a program that reads the answers relies on: the `contract.` metrics, 0 or 1 a row.

Keys and grounding count where answers are meant to be JSON: where a schema is given, or most of a run's answers are
JSON objects, or most of the right ones, or most of a baseline's that it is held against. There, an answer that is no
JSON fails both, so that a variant which gives none does not escape them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.scores import Score, as_text, share
from edgeml_runtime.grounding import NO_JSON, equal, local, parsed
from edgeml_runtime.types import Generate, Row

GOLD = "expected"
HEADLINE = "exact_match"
Schema = dict[str, Any]


def read_gold(rows: Sequence[Row]) -> tuple[str, ...]:
    """The expected answer of each row, as text."""
    return tuple(as_text(row[GOLD]) for row in rows)


def scores(answers: Sequence[Any], gold: Sequence[Any], generate: Generate) -> list[Score]:
    """The contract, and with right answers `exact_match`, of a run that is held against no other."""
    return scores_beside(answers, gold, generate, ())


def scores_beside(
    answers: Sequence[Any], gold: Sequence[Any], generate: Generate, beside: Sequence[Any]
) -> list[Score]:
    """The contract, and with right answers `exact_match`. `beside` are a baseline's answers to the same rows.

    `contract.valid`: JSON. `contract.schema`: JSON of the schema, where one is given. `contract.keys`: with the keys
    that the schema requires and no others; without a schema those of the row's right answer, where most of these are
    JSON objects, else those that most answers of the baseline have, or of the run; at every depth.
    `contract.grounded`: no value that is no span of its text. `contract.truncated`: cut before its end; less is better.
    """
    values = [parsed(answer["text"]) for answer in answers]
    found = [share("contract.valid", [value is not NO_JSON for value in values])]
    if generate.schema is not None:
        conforms = conformance(generate.schema)
        found.append(share("contract.schema", [value is not NO_JSON and conforms(value) for value in values]))
    right = [parsed(str(want)) for want in gold]
    theirs = [parsed(answer["text"]) for answer in beside]
    if generate.schema is not None or any(map(_are_objects, (values, right, theirs))):
        found.append(share("contract.keys", _keys(values, generate.schema, right, theirs)))
        found.append(share("contract.grounded", _grounded(answers, values, generate.schema)))
    found.append(share("contract.truncated", [answer["finish_reason"] == "length" for answer in answers]))
    if gold:
        matches = [_matches(answer["text"], str(want)) for answer, want in zip(answers, gold, strict=True)]
        found.append(share(HEADLINE, matches))
    return found


def essence(answer: Any) -> str:
    """The text; JSON in one spelling."""
    value = parsed(answer["text"])
    return answer["text"].strip() if value is NO_JSON else json.dumps(value, ensure_ascii=False, sort_keys=True)


def conformance(schema: Schema) -> Callable[[Any], bool]:
    """Whether a JSON value is of the schema, as JSON Schema's own draft says; `format` is no demand there.

    Raises EdgemlError for what is no JSON Schema, and when called for a reference that is not in the schema: nothing
    is fetched.
    """
    from jsonschema import Draft202012Validator, SchemaError
    from jsonschema.validators import validator_for
    from jsonschema_specifications import REGISTRY
    from referencing.exceptions import Unresolvable

    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
    except SchemaError as error:
        place = "/".join(map(str, error.absolute_path)) or "the whole"
        raise EdgemlError(f"no JSON Schema: {place}: {error.message}", hint="correct the schema") from error
    validator = kind(schema, registry=REGISTRY)

    def conforms(value: Any) -> bool:
        try:
            return bool(validator.is_valid(value))
        except Unresolvable as error:
            message = f"the schema refers to {error.ref}, which is not in it"
            raise EdgemlError(message, hint="move it into the schema, under $defs") from error

    return conforms


def _matches(text: str, want: str) -> bool:
    ours, theirs = parsed(text), parsed(want)
    return text.strip() == want.strip() if theirs is NO_JSON else equal(ours, theirs)


def _are_objects(values: Sequence[Any]) -> bool:
    """Whether most are JSON objects."""
    return sum(isinstance(value, dict) for value in values) > len(values) / 2


def _keys(values: Sequence[Any], schema: Schema | None, right: Sequence[Any], theirs: Sequence[Any]) -> list[bool]:
    if schema is not None:
        return [value is not NO_JSON and _has_keys(value, schema, schema) for value in values]
    sets = [_key_set(value) for value in values]
    if _are_objects(right):
        wanted = [_key_set(value) for value in right]
    else:
        like = theirs if _are_objects(theirs) else values
        usual = Counter(one for one in map(_key_set, like) if one is not None).most_common(1)[0][0]
        wanted = [usual] * len(values)
    return [one is not None and want in (None, one) for one, want in zip(sets, wanted, strict=True)]


def _key_set(value: Any) -> frozenset[tuple[str, ...]] | None:
    return frozenset(_places(value)) if isinstance(value, dict) else None


def _places(value: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every key of a JSON value with those above it; items of a list count as one."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield (*place, key)
            yield from _places(child, (*place, key))
    elif isinstance(value, list):
        for child in value:
            yield from _places(child, (*place, "[]"))


def _has_keys(value: Any, node: Any, root: Schema) -> bool:
    """Whether objects have all keys that the schema requires and none that it does not name, at every depth."""
    if node is False:  # of which nothing is
        return False
    node = _joined(node, root)
    choices = node.get("anyOf") or node.get("oneOf") or ()
    if choices and not any(_has_keys(value, choice, root) for choice in choices):
        return False
    if isinstance(value, list):
        first = node.get("prefixItems", ())
        parts = [*first, *([node.get("items")] * (len(value) - len(first)))]
        return all(_has_keys(child, part, root) for child, part in zip(value, parts, strict=False))
    if isinstance(value, dict):
        return _object_has_keys(value, node, root)
    return not node.get("required") or isinstance(node.get("type"), list)


def _object_has_keys(value: dict[str, Any], node: Schema, root: Schema) -> bool:
    if "object" not in node.get("type", "object"):
        return False
    named = node.get("properties", {})
    is_open = "properties" not in node or "anyOf" in node or "oneOf" in node
    others = node.get("additionalProperties", is_open)
    if not set(node.get("required", ())) <= value.keys() or (others is False and not value.keys() <= named.keys()):
        return False
    return all(_has_keys(child, named.get(key, others), root) for key, child in value.items())


def _joined(node: Any, root: Schema) -> Schema:
    """A part of a schema with the keys of what it refers to and of its `allOf`; empty for what says nothing of keys."""
    if not isinstance(node, dict):
        return {}
    parts = [_joined(part, root) for part in (*node.get("allOf", ()), local(node.get("$ref"), root))]
    properties: Schema = {}
    for part in (*parts, node):
        properties |= part.get("properties", {})
    required = [name for part in (*parts, node) for name in part.get("required", ())]
    joined = {key: value for part in (*parts, node) for key, value in part.items()}
    return joined | ({"properties": properties} if properties else {}) | ({"required": required} if required else {})


def _grounded(answers: Sequence[Any], values: Sequence[Any], schema: Schema | None) -> list[bool]:
    kind = object if schema is not None else dict
    read = [value is not NO_JSON and isinstance(value, kind) for value in values]
    return [known and "ungrounded" not in answer for known, answer in zip(read, answers, strict=True)]
