"""Holds generated tokens to a JSON Schema, with llama.cpp's grammars. Knows nothing about models' answers or tasks."""

from __future__ import annotations

import json
import weakref
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml_runtime.backends.gguf_model import Floats, Model, complaint, library
from edgeml_runtime.backends.schema_bounds import check_bounds
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.next_token import likeliest

SHORTLIST = 512  # tokens that are tried before the whole vocabulary is, which takes ten times as long
_CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])  # llama_token_data in llama.h
_TEXT_CHARACTER = (
    r'char ::= [^"\\\x7F\x00-\x1F] | "\\" (["\\/bfnrt] | "u" [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F] [0-9a-fA-F])'
)


class Grammar:
    """The tokens that may come next in one text. Raises EdgemlError when the schema cannot be held to.

    Held to: types, properties and their order, `required`, `enum`, `const`, `anyOf`, lengths of strings and arrays,
    `format` of dates and times, local `$ref`. Bounds of numbers are not.
    """

    def __init__(self, model: Model, schema: dict[str, Any]) -> None:
        self._lib = model.lib
        self._tokens = model.tokens
        rules = grammar_text(json.dumps(schema)).encode()
        make = self._lib.llama_sampler_init_grammar
        self._sampler, reason = complaint(lambda: make(model.vocabulary, rules, b"root"))
        if not self._sampler:
            raise EdgemlError(f"llama.cpp cannot hold to this schema: {reason}", hint="simplify the schema")
        self.close = weakref.finalize(self, self._lib.llama_sampler_free, self._sampler)
        self._one = np.zeros(1, _CANDIDATE)

    def best(self, logits: Floats) -> int:
        """The likeliest token that is allowed now: the same as asking for the whole vocabulary, but rarely doing it."""
        favourite = likeliest(logits)
        self._one["id"] = favourite
        if self._likeliest(self._one, logits) is not None:
            return favourite
        found = self._likeliest(self._shortlist(logits), logits)
        found = self._likeliest(self._everything, logits) if found is None else found
        if found is None:
            raise _stuck()
        return found

    def allowed(self, logits: Floats) -> Floats:
        """The logits, with minus infinity for every token that may not come now."""
        if self._likeliest(self._everything, logits) is None:
            raise _stuck()
        found: Floats = self._everything["logit"].copy()
        return found

    def accept(self, token: int) -> None:
        """Move on by one allowed token."""
        self._lib.llama_sampler_accept(self._sampler, token)

    def _likeliest(self, candidates: NDArray[Any], logits: Floats) -> int | None:
        candidates["logit"] = logits[candidates["id"]]
        data = candidates.ctypes.data_as(self._lib.llama_token_data_p)
        array = self._lib.llama_token_data_array(data, candidates.size, -1, 0)  # none selected, not sorted
        self._lib.llama_sampler_apply(self._sampler, array)
        best = candidates[np.argmax(candidates["logit"])]
        return None if best["logit"] == -np.inf else int(best["id"])

    def _shortlist(self, logits: Floats) -> NDArray[Any]:
        size = min(SHORTLIST, self._tokens)
        candidates = np.zeros(size, _CANDIDATE)
        candidates["id"] = np.sort(np.argpartition(logits, -size)[-size:])
        return candidates

    @cached_property
    def _everything(self) -> NDArray[Any]:
        candidates = np.zeros(self._tokens, _CANDIDATE)
        candidates["id"] = np.arange(self._tokens)
        return candidates


def _stuck() -> EdgemlError:
    return EdgemlError("no token of the vocabulary continues this schema", hint="simplify the schema")


# What llama-cpp-python's converter raises for a schema that it does not take.
_BROKEN = (AssertionError, AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)


@lru_cache(maxsize=8)
def grammar_text(schema: str) -> str:
    """A JSON Schema as llama.cpp's grammar language (GBNF).

    llama-cpp-python's converter, but for two things in which it lets invalid JSON through: control characters inside
    strings, and names or constants that hold a quote or a backslash.
    """
    converter = _converter()
    try:
        plain = json.loads(schema)
        check_bounds(plain)
        converter.visit(converter.resolve_refs(plain, "schema"), "")
    except _BROKEN as error:
        problem = f"the schema cannot become a grammar: {str(error) or type(error).__name__}"
        raise EdgemlError(problem, hint="keep to types, properties, enum, anyOf and local references") from error
    rules = converter.format_grammar().splitlines()
    return "\n".join(_TEXT_CHARACTER if rule.startswith("char ::=") else rule for rule in rules)


def _converter() -> Any:
    base: Any = library("llama_grammar")

    class Converter(base.SchemaConverter):  # type: ignore[misc] # the base is not typed
        """With parts of a schema that are `true`, `false` or empty, which the base takes for objects or not at all."""

        def visit(self, schema: Any, name: str) -> Any:
            if schema is True or schema == {}:
                return self._add_rule(name or "root", self._add_primitive("value", base.PRIMITIVE_RULES["value"]))
            return super().visit(_without_true(_allowed(schema)), name)

        def _generate_union_rule(self, name: str, alt_schemas: Any) -> Any:
            possible = [one for one in alt_schemas if one is not False]
            return super()._generate_union_rule(name, possible or [False])

        def _build_object_rule(self, properties: Any, required: set[str], *rest: Any, **more: Any) -> Any:
            possible = [(key, part) for key, part in properties if part is not False or key in required]
            return super()._build_object_rule(possible, required, *rest, **more)

        def _format_literal(self, literal: str) -> str:
            return json.dumps(json.dumps(json.loads(literal), ensure_ascii=False), ensure_ascii=False)

    return Converter(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)


def _allowed(schema: Any) -> Any:
    if schema is False:
        raise ValueError("false allows nothing")
    return schema


def _without_true(schema: Any) -> Any:
    """A part of a schema without what `allOf` says nothing by."""
    kept = [_allowed(part) for part in schema.get("allOf", ()) if part not in (True, {})]
    others = {key: part for key, part in schema.items() if key != "allOf"}
    return others | {"allOf": kept} if kept else others
