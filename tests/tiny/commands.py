"""The command line as its users meet it: in a process of its own, or, where only its words matter, in this one."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from edgeml.store import Store
from edgeml.types import Model
from edgeml_runtime.records import describe_file
from tiny.gguf import llama_gguf

ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Done(NamedTuple):
    """How a command ended and what it said."""

    code: int
    out: str
    err: str

    @property
    def steps(self) -> list[str]:
        """The commands of its `next:` line."""
        (line,) = [line for line in self.err.splitlines() if line.startswith("next: ")]
        return line.removeprefix("next: ").split("   or   ")

    @property
    def refusal(self) -> tuple[str, str]:
        """The sentence and the hint of a refusal; only progress came before, and nothing went to stdout."""
        *before, error, hint = self.err.strip("\n").splitlines()
        assert self.out == ""
        assert not [line for line in before if line.startswith(("error", "hint", "Traceback", "next", " "))], self.err
        assert error.startswith("error: ")
        assert hint.startswith("hint: ")
        return error.removeprefix("error: "), hint.removeprefix("hint: ")


def edgeml(*arguments: object, prefix: tuple[str, ...] = (), python: tuple[str, ...] = (), **environment: str) -> Done:
    """A command in a process of its own; `prefix` is what runs it, such as a namespace, `python` Python's options."""
    command = [*prefix, sys.executable, *python, "-m", "edgeml", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    return Done(done.returncode, done.stdout, done.stderr)


def inside(*arguments: object) -> Done:
    """A command by its entry point in this process, which is quicker. Errors that are bugs come through."""
    from edgeml.cli import main

    handlers, argv = [signal.getsignal(number) for number in ENDINGS], sys.argv
    out, err = io.StringIO(), io.StringIO()
    try:
        sys.argv = ["edgeml", *map(str, arguments)]
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        return Done(int(end.code or 0), out.getvalue(), err.getvalue())
    finally:
        sys.argv = argv
        for number, handler in zip(ENDINGS, handlers, strict=True):
            signal.signal(number, handler)


def parses(command: str) -> bool:
    """Whether the command line takes a printed command, without running it."""
    from edgeml.cli import cli

    name, verb, *arguments = shlex.split(command)
    settings = cli.context_settings  # click keeps a command's help option as it was first made
    return name == "edgeml" and bool(cli.commands[verb].make_context(verb, arguments, **settings))


def tree(root: Path) -> dict[str, str]:
    """Every file below a folder with its digest."""
    paths = [path for path in sorted(root.rglob("*")) if path.is_file()]
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def gguf_model(store: Store, name: str = "tiny", *, downloaded: str = "2026-01-01T00:00:00+00:00") -> Model:
    """A small decoder beside the store, downloaded."""
    path = llama_gguf(store.root.parent / f"{name}.gguf", width=64)
    file = describe_file(path, path.name)
    model = Model(name=name, ref=str(path), path=str(path.parent), files=(file,), format="gguf", downloaded=downloaded)
    store.add_model(model)
    return model
