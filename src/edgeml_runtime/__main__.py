"""The command line that travels: `python -m edgeml_runtime selftest . | predict . --input FILE | info . | serve .`.

stdout is the result, stderr everything else. Exit codes: 0 done, 2 usage, 3 the request cannot be met. Imports wait
until a command is chosen: `prepare` runs before anything but the standard library is there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml_runtime.errors import EdgemlError, why

if TYPE_CHECKING:
    from edgeml_runtime.bundle import Bundle
    from edgeml_runtime.types import Audit, Generate, Row, VariantManifest

INTERRUPTED = 130
_INPUTS = {
    "automatic-speech-recognition": ("file",),
    "feature-extraction": ("text",),
    "image-classification": ("file",),
    "sentence-similarity": ("sentence1", "sentence2"),
    "text-classification": ("text",),
    "text-generation": ("text",),
    "text2text-generation": ("text",),
    "token-classification": ("tokens",),
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    options = argparse.Namespace(json=False)
    try:
        _parser().parse_args(arguments, namespace=options)
        options.command(options)
    except EdgemlError as error:
        _refuse(error, as_json=options.json)
        return error.exit_code
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("edgeml_runtime"):
            raise
        hint = "sh run.sh unpacks what it needs; without wheels: pip install -r requirements.txt"
        _refuse(EdgemlError(f"the Python package {error.name} is missing", hint=hint), as_json=options.json)
        return EdgemlError.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return 0


def selftest(options: argparse.Namespace) -> None:
    """Prove that the bundle is intact and answers here as it did where it was packed."""
    from edgeml_runtime.records import encode
    from edgeml_runtime.selftest import selftest as run

    passed = run(options.folder)
    if options.json:
        print(encode(passed))
        return
    print(f"{passed.bundle}: {passed.files} files are intact")
    print(f"{passed.texts} {passed.read}: agreement {passed.agreement:.6f}, at least {passed.minimum} expected")
    print("self-test passed")


def predict(options: argparse.Namespace) -> None:
    """Answer each row of a file, one line of JSON each."""
    from edgeml_runtime.bundle import variant_folder
    from edgeml_runtime.machine import default_threads
    from edgeml_runtime.rows import parse_columns, read_rows, rename
    from edgeml_runtime.session import open_session
    from edgeml_runtime.tasks import ready, task_of

    rows = rename(read_rows(options.input), parse_columns(options.columns), str(options.input))
    folder, generate = variant_folder(options.folder), _generate(options)
    name = options.task or _task(folder, rows)
    task, columns = task_of(name), _inputs(name)
    rows = ready(name, rows, str(options.input))
    session = open_session(folder, threads=options.threads or default_threads())
    for row in ({column: row[column] for column in columns} for row in rows):
        print(json.dumps(task.predict(session, row, generate), ensure_ascii=False), flush=True)
    session.close()


def info(options: argparse.Namespace) -> None:
    """Tell what the bundle holds, what was found out about it, and its limits."""
    from edgeml_runtime.bundle import read_bundle, variant_folder
    from edgeml_runtime.records import encode, read_record
    from edgeml_runtime.types import VariantManifest

    bundle = read_bundle(options.folder)
    manifest = read_record(variant_folder(options.folder) / "variant.json", VariantManifest)
    if options.json:
        print(encode(bundle), encode(manifest), sep="\n")
        return
    for name, text in _facts(bundle, manifest):
        print(f"{name:<9} {text}")


def serve(options: argparse.Namespace) -> None:
    """Answer requests over HTTP, on this machine alone unless a token is given, until SIGTERM or Ctrl-C."""
    from edgeml_runtime.server.settings import read_settings

    replaced = {name: getattr(options, name) for name in ("host", "port", "token_file", "threads")}
    settings = read_settings(options.config, **replaced)
    from edgeml_runtime.server.running import serve as run

    run(options.folder, settings)


def goldens(options: argparse.Namespace) -> None:
    """Write a variant's goldens: used at packaging, in a process of its own since a library may abort it."""
    from edgeml_runtime.bundle import variant_folder
    from edgeml_runtime.records import write_record
    from edgeml_runtime.rows import check_texts, read_rows
    from edgeml_runtime.selftest import record

    rows = read_rows(options.texts) if options.texts else None
    check_texts(rows or (), ("text",), str(options.texts))
    texts = [row["text"] for row in rows] if rows else None
    write_record(options.output, record(variant_folder(options.folder), texts))


def feedback(options: argparse.Namespace) -> None:
    """Count the feedback that is kept here, or erase some of it for good."""
    from edgeml_runtime.feedback.command import erase, kept
    from edgeml_runtime.server.settings import read_settings

    settings = read_settings(options.config)
    wanted = options.erase or options.erase_input
    found = erase(settings.feedback, options.erase, options.erase_input) if wanted else kept(settings.feedback)
    print(json.dumps(found) if options.json else "\n".join(f"{count} {what}" for what, count in found.items()))


def prepare(options: argparse.Namespace) -> None:
    """Unpack the bundle's wheels for this Python and print the folder for PYTHONPATH: used by run.sh."""
    from edgeml_runtime.unpack import unpack

    print(unpack(options.folder))


def _parser() -> argparse.ArgumentParser:
    typed = os.environ.get("EDGEML_TYPED")  # a command that knows the folder itself, such as run.sh
    parser = argparse.ArgumentParser(prog=typed or "edgeml_runtime", description="Runs the model of a bundle, offline.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    made = {}
    for command in (selftest, predict, info, serve, goldens, feedback, prepare):
        made[command] = commands.add_parser(command.__name__, help=command.__doc__, description=command.__doc__)
        help = argparse.SUPPRESS if typed else "a bundle's folder"
        made[command].add_argument("folder", type=Path, metavar="FOLDER", help=help)
        made[command].add_argument("--json", action="store_true", help="JSON on stdout, refusals too")
        made[command].set_defaults(command=command)
    _feedback_options(made[feedback])
    _predict_options(made[predict])
    _serve_options(made[serve])
    made[goldens].add_argument("--output", type=Path, required=True, metavar="FILE")
    made[goldens].add_argument("--texts", type=Path, metavar="FILE", help="rows with a column text")
    return parser


def _feedback_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the endpoint's own")
    parser.add_argument("--erase", action="append", default=[], metavar="ID", help="erase the item of that id")
    parser.add_argument("--erase-input", type=Path, metavar="FILE", help="erase what has these rows as its input")


def _predict_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--input", type=Path, required=True, metavar="FILE", help=".jsonl, .csv, .tsv, or lines")
    parser.add_argument("--task", metavar="TASK", help="the variant's own unless given")
    parser.add_argument("--columns", action="append", default=[], metavar="OURS=THEIRS", help="rename a column")
    parser.add_argument("--threads", type=_count, metavar="N", help="every fast core unless given")
    parser.add_argument("--instruction", metavar="TEXT", help="text-generation: what to do with each text")
    parser.add_argument("--schema", type=Path, metavar="FILE", help="text-generation: a JSON Schema to keep to")
    parser.add_argument("--max-new-tokens", type=_count, metavar="N", help="text-generation: the longest answer")
    draw = partial(_number, most=100)
    parser.add_argument("--temperature", type=draw, metavar="T", help="text-generation: above 0, tokens are drawn")
    share = partial(_number, most=1, above=True)
    parser.add_argument("--top-p", type=share, metavar="P", help="among the likeliest that make up so much")
    parser.add_argument("--top-k", type=_count, metavar="N", help="among so many of the likeliest")
    parser.add_argument("--seed", type=_seed, metavar="N", help="0 unless given: the same seed draws the same tokens")
    parser.add_argument("--stop", action="append", type=_word, metavar="WORD", help="text-generation: ends an answer")


def _serve_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, metavar="FILE", help="a TOML file; what is given here goes before it")
    parser.add_argument("--host", metavar="HOST", help="127.0.0.1 unless given; others need a token")
    parser.add_argument("--port", type=_port, metavar="N", help="8080 unless given; 0 for any free one")
    parser.add_argument("--token-file", metavar="FILE", help="the token that requests must show; only you may read it")
    parser.add_argument("--threads", type=_count, metavar="N", help="every fast core unless given")


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) <= 65535):
        raise EdgemlError(f"{text!r} is no port", hint="give a number from 0 to 65535, 0 for any free one")
    return int(text)


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text)):
        raise EdgemlError(f"{text!r} is no count", hint="give a whole number from 1")
    return int(text)


def _number(text: str, *, most: float, above: bool = False) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number <= most or (above and not number):
        raise EdgemlError(f"{text!r} does not fit", hint=f"give a number {'above' if above else 'from'} 0 to {most}")
    return number


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise EdgemlError(f"{text!r} is no seed", hint="give a whole number from 0")
    return int(text)


def _word(text: str) -> str:
    if not text:
        raise EdgemlError("a stop word is empty", hint="leave --stop out")
    return text


def _generate(options: argparse.Namespace) -> Generate:
    from edgeml_runtime.types import Generate

    schema = _json_object(options.schema) if options.schema else None
    same = ("instruction", "max_new_tokens", "temperature", "top_p", "top_k", "seed")
    given: dict[str, Any] = {name: getattr(options, name) for name in same}
    given |= {"schema": schema, "stop": tuple(options.stop) if options.stop else None}
    return Generate(**{name: value for name, value in given.items() if value is not None})


def _json_object(path: Path) -> dict[str, object]:
    from edgeml_runtime.records import parse_json

    try:
        found = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        raise EdgemlError(f"cannot read {path}: {why(error)}", hint="give a file with a JSON Schema") from error
    if not isinstance(found, dict):
        raise EdgemlError(f"{path} holds no JSON object", hint="give a file with a JSON Schema")
    return found


def _task(folder: Path, rows: list[Row]) -> str:
    """The variant's task; an encoder compares pairs where the rows have them, and else gives vectors."""
    from edgeml_runtime.records import read_record
    from edgeml_runtime.session import is_encoder
    from edgeml_runtime.types import VariantManifest

    manifest = read_record(folder / "variant.json", VariantManifest)
    if not is_encoder(manifest):
        return manifest.task
    return "sentence-similarity" if set(_INPUTS["sentence-similarity"]) <= rows[0].keys() else "feature-extraction"


def _inputs(task: str) -> tuple[str, ...]:
    if task not in _INPUTS:
        raise EdgemlError(f"{task} answers no single rows", hint=f"tasks that do: {', '.join(_INPUTS)}")
    return _INPUTS[task]


def _facts(bundle: Bundle, manifest: VariantManifest) -> list[tuple[str, str]]:
    total = sum(file.size_bytes for file in bundle.files)
    serves = f"Python {' or '.join(bundle.python)}"
    facts = [
        ("bundle", f"{bundle.name}, made by edgeml {bundle.runtime}"),
        ("variant", manifest.name),
        ("model", f"{bundle.model} ({manifest.architecture})"),
        ("task", manifest.task),
        *([("labels", manifest.labels_in_short)] if manifest.labels else []),
        ("scheme", manifest.scheme),
        ("size", f"{_megabytes(manifest.size_bytes)} the variant, {_megabytes(total)} the bundle"),
        ("target", f"{bundle.target} ({bundle.machine}, {serves})"),
        ("licence", bundle.licence or "not stated"),
        ("audit", _audit(manifest.audit)),
        ("limit", _reads(manifest)),
    ]
    built_for, was = manifest.built_for, manifest.source_quantized
    facts += [("limit", f"its integer weights are laid out for {built_for}")] if built_for else []
    facts += [("limit", f"its source was already quantized ({was})")] if was else []
    return facts + [("limit", text) for text in (*manifest.audit.shortfalls, *manifest.notes)]


def _reads(manifest: VariantManifest) -> str:
    from edgeml_runtime.session import kind_of

    if manifest.pixels:
        return f"pictures, resized to {manifest.pixels.width} by {manifest.pixels.height} pixels"
    if manifest.speech:
        return f"sounds of at most {manifest.speech.sound.window_s} s; what is longer is refused"
    meaning = {
        "decoder": "with the answer",
        "seq2seq": "a text with its instruction; what is longer is refused",
    }.get(kind_of(manifest.task), "a text; what is longer is cut")
    return f"{manifest.max_tokens} tokens {meaning}"


def _audit(audit: Audit) -> str:
    earned = "the label is earned" if audit.earned else "THE LABEL IS NOT EARNED"
    share = f"{audit.share_quantized:.1%} of {audit.parameters / 1e6:.1f} million parameters quantized"
    return f"{earned}: {audit.bits_per_weight:.2f} bits a weight, {share}"


def _megabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


def _refuse(error: EdgemlError, *, as_json: bool) -> None:
    print(f"error: {error.message}\nhint: {error.hint}", file=sys.stderr)
    if as_json:
        # By hand, not as a Refusal: msgspec may be what is missing.
        print(json.dumps({"schema": "edgeml.refusal/1", "message": error.message, "hint": error.hint}))


if __name__ == "__main__":
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `predict | head` ends quietly
    sys.exit(main())
