"""YAML that people write by hand: what the parser would let pass is refused, with the line."""

from __future__ import annotations

from collections.abc import Hashable
from math import inf
from pathlib import Path
from typing import Any

import yaml

from edgeml.errors import EdgemlError

_MOST_VALUES = 1_000_000  # more than people write, and few enough to be held


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but for two things: of two equal keys it takes none, and a date stays what was written."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        known: set[str] = set()
        for key, _ in node.value:
            if isinstance(key.value, str) and key.value in known:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
            known.add(str(key.value))
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, *, missing: str, hint: str) -> Any:
    """What a file holds; `missing` is the hint where there is no such file, `hint` where it is not YAML."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint=missing) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EdgemlError(f"{path} is not YAML: {_trouble(error)}", hint=hint) from error


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = _Loader) -> Any:
    """What a text holds; raises yaml.YAMLError where it is not YAML, or where a key stands twice.

    So it does for values that refer to each other until they are endless, and for what PyYAML fails at otherwise. Its
    own `yaml.SafeLoader` takes what other programs take: dates, and the last of two equal keys.
    """
    try:
        plain = yaml.load(text, loader)  # noqa: S506 - both are safe
        _check_size(plain, {})
    except (ValueError, TypeError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(f"a value in it is none: {str(error) or type(error).__name__}") from error
    return plain


def _check_size(plain: Any, known: dict[int, float]) -> float:
    """How many values there are once each reference is written out; one that holds itself is endless."""
    if not isinstance(plain, dict | list | set):
        return 1
    if id(plain) not in known:
        known[id(plain)] = inf
        parts = [*plain, *plain.values()] if isinstance(plain, dict) else plain
        known[id(plain)] = 1 + sum(_check_size(one, known) for one in parts)
    if known[id(plain)] > _MOST_VALUES:
        raise ValueError("it refers to itself too often")
    return known[id(plain)]


def _trouble(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}, {error.problem}"
    return " ".join(str(error).split())
