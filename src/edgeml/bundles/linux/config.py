"""The configuration that a package installs: every key of the endpoint's settings at its default, as a comment."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator

import msgspec

from edgeml.bundles.linux.names import Names
from edgeml_runtime.feedback.device import NAME as STORE
from edgeml_runtime.feedback.settings import FeedbackSettings
from edgeml_runtime.server.settings import Settings

# What a key may be where its default is to leave it out.
_EXAMPLES = {"token_file": "/etc/edgeml/{name}.token", "key_file": "/etc/edgeml/{name}.key", "low_confidence": 0.5}
_FILE = "/var/lib/edgeml/{name}/" + STORE


def config_text(names: Names) -> str:
    """The file, which changes nothing as it stands: what the owner leaves alone follows the runtime's own defaults."""
    lines = [
        f"# How {names.package} serves. A line that begins with # has no effect: it shows a key at its default.",
        f"# After a change: sudo systemctl restart {names.package}",
        "#",
        "# To let others connect: host and token_file here (a file of user edgeml, mode 600), and",
        f"# IPAddressAllow=any below [Service] in: sudo systemctl edit {names.package}",
        *_about(Settings),
        *_keys(Settings, names),
        *_about(FeedbackSettings),
        "# [feedback]",
        *_keys(FeedbackSettings, names),
    ]
    return "\n".join(lines) + "\n"


def _about(kind: type[msgspec.Struct]) -> Iterator[str]:
    """What a table's keys mean, in the words of its type."""
    yield ""
    yield from (f"# {line}".rstrip() for line in (inspect.getdoc(kind) or "").splitlines())
    yield ""


def _keys(kind: type[msgspec.Struct], names: Names) -> Iterator[str]:
    for field in msgspec.structs.fields(kind):
        default = field.default_factory() if field.default_factory is not msgspec.NODEFAULT else field.default
        if field.required:
            default = _FILE.format(name=names.name)
        elif default is None and field.name in _EXAMPLES:
            default = _EXAMPLES[field.name]
            default = default.format(name=names.name) if isinstance(default, str) else default
        if field.name == "feedback":
            continue
        yield f"# {field.name} = {_toml(default)}" if default is not None else f"# {field.name}: left out"


def _toml(value: object) -> str:
    """A value as TOML writes it; JSON does the same with all but tables, of which the default is an empty one."""
    return json.dumps(list(value)) if isinstance(value, tuple) else json.dumps(value)
