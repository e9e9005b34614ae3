"""Writes turns by a model's own chat template, a program by strangers, within bounds. Knows nothing about tokens.

Jinja's immutable sandbox, with the same settings and additions as Transformers' `apply_chat_template`, so that the text
is the same. Beyond the sandbox: a template sees the turns and the two tokens that begin and end a text, and nothing
else; it may call what is named here; and all that it does costs from a budget, loops by how often they run and texts by
their length, so that it ends soon with little memory, whatever it tries. What it writes knows who wrote each character
of it, the template or who is quoted by it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, MappingView, Sequence
from datetime import datetime
from functools import wraps
from types import BuiltinFunctionType, MethodType
from typing import Any

from jinja2 import TemplateError, Undefined, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from edgeml_runtime.authors import ANYBODY, ASSISTANT, TEMPLATE, Traced, author_of, joined, traced
from edgeml_runtime.errors import EdgemlError, UnfitError
from edgeml_runtime.session import Said
from edgeml_runtime.types import Record

LONGEST_TEMPLATE = 200_000  # characters; the longest ones of published models have some 20 000
BUDGET, BUDGET_A_TURN, BUDGET_A_CHARACTER = 500_000, 10_000, 50  # units of work, of which a second has some millions
# Templates that ask for today's date get this one, so that the same turns are always the same prompt. It is the date
# that Meta's templates of Llama 3.1 and later fall back to.
TODAY = datetime(2024, 7, 26)
_LONGEST_SEPARATOR = 8  # characters between the parts of JSON
_LARGEST = 1 << 53  # numbers beyond are of no use to a template
_A_TEXT = 16  # units for what a text takes beside its characters
_ROLES = ("system", "user", "assistant")
_BROKEN = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,  # the compiler says so of a program with too many branches, too
    NameError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)
_METHODS = {
    *("capitalize", "count", "endswith", "find", "get", "index", "isalpha", "isdigit", "items", "join", "keys"),
    *("lower", "lstrip", "removeprefix", "removesuffix", "replace", "rfind", "rsplit", "rstrip", "split"),
    *("splitlines", "startswith", "strip", "title", "upper", "values", "cycle", "changed"),
}
_FILTERS = (
    *("abs", "capitalize", "count", "d", "default", "dictsort", "first", "float", "int", "items", "last", "length"),
    *("list", "lower", "map", "max", "min", "reject", "rejectattr", "reverse", "select", "selectattr", "sort"),
    *("string", "title", "trim", "unique", "upper"),
)
_TESTS = (
    *("!=", "<", "<=", "==", ">", ">=", "boolean", "defined", "divisibleby", "eq", "equalto", "even", "false", "float"),
    *("ge", "greaterthan", "gt", "in", "integer", "iterable", "le", "lessthan", "lower", "lt", "mapping", "ne"),
    *("none", "number", "odd", "sequence", "string", "true", "undefined", "upper"),
)
_STRANGE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends, nodes.Block)


class ChatTemplate(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.chat-template/1"):
    """`chat.json`: a model's chat template, and the words of the tokens that begin and end a text."""

    template: str
    bos_token: str | None = None
    eos_token: str | None = None


class Writer:
    """A template that is ready to write. Raises EdgemlError for one that breaks a rule already by what it says."""

    def __init__(self, source: ChatTemplate) -> None:
        self._environment = _Environment()
        words = {name: getattr(source, name) for name in ("bos_token", "eos_token")}
        self._words = {name: Traced(word, TEMPLATE) for name, word in words.items() if word is not None}
        if len(source.template) > LONGEST_TEMPLATE:
            raise _unusable(f"it has {len(source.template)} characters")
        try:
            tree = _counted(self._environment.parse(source.template), self._environment.own)
            self._template = self._environment.from_string(tree)
        except _BROKEN as error:
            raise _unusable(str(error)) from error

    def write(self, turns: Sequence[Said]) -> Traced:
        """The turns and the beginning of an answer, and who wrote what of it.

        Raises UnfitError with the template's own words for turns that it refuses, and EdgemlError where it breaks a
        rule.
        """
        messages = [_message(turn) for turn in turns]
        characters = sum(len(turn.words) for turn in turns)
        self._environment.left = BUDGET + BUDGET_A_TURN * len(turns) + BUDGET_A_CHARACTER * characters
        given = {"messages": messages, "add_generation_prompt": True, "tools": None, "documents": None, **self._words}
        try:
            return traced(self._template.render(**given))
        except _RefusedError as error:
            problem = f"the model's chat template refuses these turns: {str(error)[:200]}"
            raise UnfitError(problem, hint="say it in other turns") from error
        except _BROKEN as error:
            raise _unusable(str(error)) from error


class _RefusedError(TemplateError):
    """What a template says by `raise_exception`."""


class _OverspentError(TemplateError):
    """The end of a template that goes on too long."""


class _Generation(Extension):
    """`{% generation %}` marks what a model wrote, for who trains it: here it is as if it were not there."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Names(Namespace):
    """A namespace without names that begin with an underscore: Python's own could be reached by them."""

    def __init__(self, **named: Any) -> None:
        for name in named:
            _require_plain(name)
        super().__init__(**named)

    def __setitem__(self, name: str, value: Any) -> None:
        _require_plain(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"  # all that is in it could be longer than the memory


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, and what everything in it costs."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))
    concat = staticmethod(joined)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            optimized=False,
            finalize=self.shown,
            extensions=[LoopControlExtension, _Generation],
        )
        own = {"tojson": self._to_json, "join": self._joined_by, "replace": self._replaced}
        self.left = BUDGET
        self.own = list[Traced]()  # all texts of the template itself
        self.filters = {name: self._charged(self.filters[name]) for name in _FILTERS} | own
        self.filters["safe"] = self._charged(str)
        self.tests = {name: self._charged(self.tests[name]) for name in _TESTS}
        self._callable = [self._range, _refuse, _today, _names, _pairs]
        names = ("range", "raise_exception", "strftime_now", "namespace", "dict")
        self.globals = dict(zip(names, self._callable, strict=True))

    def spend(self, units: int) -> None:
        """Take from what is left; raises where it is not enough."""
        self.left -= units
        if self.left < 0:
            raise _OverspentError("it does too much")

    def weighed(self, value: Any) -> Any:
        """The value, paid for by its length, parts of parts included."""
        parts = [value]
        while parts:
            one = parts.pop()
            self.spend(1 + (len(one) if isinstance(one, str) else one.bit_length() >> 3 if isinstance(one, int) else 0))
            if isinstance(one, dict):
                parts += [part for pair in one.items() for part in pair]
            elif isinstance(one, list | tuple):
                parts += one
        return value

    def shown(self, value: Any) -> Traced:
        """The value's text, as it is written."""
        return traced(self.weighed(value))

    def compared(self, value: Any) -> Any:
        """The value, paid for as far as comparing it takes long: by its parts."""
        return self.weighed(value) if isinstance(value, list | tuple | dict) else self._long(value)

    def passed(self, values: Any) -> Any:
        """What a loop goes through, paid for whether or not the loop takes what comes."""
        found = values if isinstance(values, Undefined | str | list | tuple | dict) else list(values)
        self.spend(1 + len(found))
        return found

    def joined(self, *parts: Any) -> Traced:
        """`~`: the texts of all parts, one after the other."""
        return joined(map(self.shown, parts))

    def key(self, value: Any) -> Any:
        """What a dictionary may find a value by."""
        if value is not None and not isinstance(value, str | int | float):
            raise SecurityError("a dictionary has names and numbers as keys")
        return value

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Sums of texts and lists, and small numbers."""
        numbers = all(isinstance(one, int | float) and abs(one) <= _LARGEST for one in (left, right))
        if operator == "**" or not (numbers or operator == "+"):
            raise SecurityError(f"{operator} is for small numbers")
        return self.weighed(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A part by its place or name; a slice costs its length."""
        return self._result(super().getitem(obj, argument if isinstance(argument, slice) else self.key(argument)))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may have it: of what can be called, only what is named above."""
        return (attr in _METHODS or not callable(value)) and bool(super().is_safe_attribute(obj, attr, value))

    def call(self, context: Any, called: Any, *values: Any, **named: Any) -> Any:
        """Call what may be called, and pay for it."""
        owner = getattr(called, "__self__", None)
        method = isinstance(called, BuiltinFunctionType | MethodType)
        plain = method and isinstance(owner, str | list | dict | tuple)
        known = owner is self or plain or isinstance(owner, LoopContext) or isinstance(called, Macro | LoopContext)
        if not known and called not in self._callable:
            raise SecurityError("it calls what is none of its business")
        for value in values if plain else ():
            self.compared(value)
        if plain and isinstance(owner, str):
            self._long(owner)
            if called.__name__ == "join":
                return self._joined_by(values[0], owner)
            if called.__name__ == "replace":
                return self._replaced(owner, *values)
        result = super().call(context, called, *values, **named)
        return self._result(result if owner is self else _signed(result, (owner, values, named)))

    def _range(self, *bounds: int) -> list[int]:
        found = range(*bounds)
        if len(found) > self.left:
            raise _OverspentError(f"it counts to {len(found)}")
        return list(found)  # whose length is paid for wherever it is searched

    def _charged(self, function: Any) -> Callable[..., Any]:
        @wraps(function)
        def charged(*values: Any, **named: Any) -> Any:
            for value in (*values, *named.values()):
                self.compared(value)
            return self._result(_signed(function(*values, **named), (values, named)))

        return charged

    def _result(self, value: Any) -> Any:
        """A result, paid for by its length; what would be made one by one is made now."""
        if isinstance(value, str | list | tuple | dict):
            texts = isinstance(value, list) and bool(value) and isinstance(value[0], str)
            self.spend(len(value) * (_A_TEXT if texts else 1) + (_A_TEXT if isinstance(value, str) else 1))
        elif isinstance(value, MappingView):  # else it would be searched and written for nothing
            return self.passed(value)
        elif hasattr(value, "__next__") and not isinstance(value, LoopContext):
            return iter(self.passed(value))
        return value

    def _long(self, value: Any) -> Any:
        self.spend(1 + (len(value) >> 6 if isinstance(value, str) else 0))  # searching is so much cheaper than making
        return value

    def _joined_by(self, parts: Iterable[Any], by: str = "", attribute: str | None = None) -> Traced:
        found = [part if attribute is None else self.getattr(part, attribute) for part in self.passed(parts)]
        self.spend(len(by) * len(found))
        return joined(map(self.shown, found), by)

    def _replaced(self, text: str, old: str, new: str, count: int | None = None) -> Traced:
        text, old, new = (traced(self.compared(one)) for one in (text, old, new))
        self.spend(len(text) + text.count(old) * len(new))
        return text.replace(old, new, -1 if count is None else count)

    def _to_json(
        self,
        value: Any,
        ensure_ascii: bool = False,  # noqa: FBT001, FBT002 - as in Transformers
        indent: int | None = None,
        separators: Any = None,
        sort_keys: bool = False,  # noqa: FBT001, FBT002
    ) -> Traced:
        self.weighed(value)
        if any(len(one) > _LONGEST_SEPARATOR for one in separators or ()):
            raise SecurityError("it separates by long texts")
        wide = indent if indent is None else min(int(indent), 8)
        options: dict[str, Any] = {"ensure_ascii": bool(ensure_ascii), "sort_keys": bool(sort_keys)}
        text = json.dumps(value, indent=wide, separators=separators and tuple(separators), **options)
        self.spend(len(text))
        return Traced(text, author_of(value))


def _counted(tree: nodes.Template, own: list[Traced]) -> nodes.Template:
    """The program with the price of each of its parts written into it, and its `own` texts as such."""
    strange = next(tree.find_all(_STRANGE), None)
    if strange is not None:
        raise SecurityError(f"it has {type(strange).__name__.lower()}, which no chat template needs")
    for part in tree.find_all((nodes.For, nodes.Macro, nodes.CallBlock)):
        work = nodes.Const(sum(1 for _ in part.find_all(nodes.Node)))
        part.body.insert(0, nodes.ExprStmt(_call("spend", work)))  # type: ignore[attr-defined]
    _rewrite(tree, own)
    tree.set_lineno(1)
    return tree


def _rewrite(node: nodes.Node, own: list[Traced]) -> None:
    """Put in place of each part that costs more than a step one that pays for it."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_priced(node, one, own) if isinstance(one, nodes.Node) else one for one in value])
        elif isinstance(value, nodes.Node):
            setattr(node, name, _priced(node, value, own, name))


def _priced(parent: nodes.Node, node: nodes.Node, own: list[Traced], field: str = "") -> nodes.Node:
    _rewrite(node, own)
    text = node.data if isinstance(node, nodes.TemplateData) else getattr(node, "value", None)
    if isinstance(node, nodes.Literal) and isinstance(text, str):
        own.append(Traced(text, TEMPLATE))
        node = nodes.EnvironmentAttribute(f"own[{len(own) - 1}]")
    if isinstance(node, nodes.Concat):
        return _call("joined", *node.nodes)
    if isinstance(node, nodes.Tuple) and node.ctx == "load":  # else it could be a key, whose hash takes long
        return _call("weighed", nodes.List(node.items))
    if isinstance(node, nodes.List | nodes.Dict):
        return _call("weighed", node)
    if isinstance(node, nodes.Pair):
        node.key = _call("key", node.key)
    if (isinstance(parent, nodes.Compare) and field == "expr") or isinstance(parent, nodes.Operand):
        return _call("compared", node)
    if isinstance(parent, nodes.For) and field == "iter":
        return _call("passed", node)
    return node


def _call(name: str, *values: nodes.Node) -> nodes.Call:
    return nodes.Call(nodes.EnvironmentAttribute(name), list(values), [], None, None)


def _message(turn: Said) -> dict[str, Traced]:
    role = Traced(turn.role, TEMPLATE if turn.role in _ROLES else ANYBODY)
    return {"role": role, "content": Traced(turn.words, ASSISTANT if turn.role == "assistant" else ANYBODY)}


def _signed(result: Any, made_of: Any) -> Any:
    """A result whose author is known: of a text that cannot be followed, the least trusted of what it is made of."""
    return Traced(result, author_of(made_of)) if type(result) is str else result


def _require_plain(name: str) -> None:
    if name.startswith("_"):
        raise SecurityError(f"no namespace has a name such as {name}")


def _refuse(message: str = "") -> None:
    raise _RefusedError(message)


def _today(format: str) -> str:
    return TODAY.strftime(str(format)[:200])


def _names(**named: Any) -> _Names:
    return _Names(**named)


def _pairs(**named: Any) -> dict[str, Any]:
    return named


def _unusable(reason: str) -> EdgemlError:
    hint = "it is left out where the model is made into a variant again"
    return EdgemlError(f"the model's chat template cannot be used: {reason[:200] or 'it fails'}", hint=hint)
