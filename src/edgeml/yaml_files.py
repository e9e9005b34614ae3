"""YAML that people write by hand: what the parser would let pass is refused, with the line."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from edgeml.errors import EdgemlError


class _Loader(yaml.SafeLoader):
    """YAML's safe loader, but for two things: of two equal keys it takes none, and a date stays what was written."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        for index, (key, _) in enumerate(node.value):
            if key.value in keys[:index]:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value} stands there twice", key.start_mark)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path, *, missing: str, hint: str) -> Any:
    """What a file holds; `missing` is the hint where there is no such file, `hint` where it is not YAML."""
    try:
        return parse_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EdgemlError(f"cannot read {path}: {error.strerror}", hint=missing) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EdgemlError(f"{path} is not YAML: {_trouble(error)}", hint=hint) from error


def parse_yaml(text: str) -> Any:
    """What a text holds; raises yaml.YAMLError where it is not YAML, or where a key stands twice."""
    return yaml.load(text, _Loader)  # noqa: S506 - a safe one


def _trouble(error: yaml.YAMLError | UnicodeDecodeError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark:
        return f"line {error.problem_mark.line + 1}, {error.problem}"
    return " ".join(str(error).split())
