"""Verb: the endpoint that a device will run, here, on a variant's or a bundle's folder, until it is asked to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml_runtime.server.settings import read_settings, read_token

_SPARE_S = 5.0  # beyond what the endpoint itself gives requests to finish


def serve(
    folder: Path,
    *,
    config: Path | None = None,
    begins: Callable[[], None] = lambda: None,
    **replaced: str | int | None,
) -> int:
    """The exit code of the endpoint, which has told the reason itself; 0 once Ctrl-C or SIGTERM has ended it.

    `replaced` are settings that go before those of the file: host, port, token_file, threads. `begins` is called once
    all of them are known to be good. Raises EdgemlError for settings that cannot be, and when a library ended the
    process: on a device its service begins anew.
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        hint = "in a clone of edgeml: pip install -e '.[serve]'"
        raise EdgemlError("the endpoint's packages are missing", hint=hint)
    settings = read_settings(config, **replaced)
    read_token(settings)
    begins()
    with started(_command(folder, config, replaced)) as child:
        try:
            code = child.wait()
        except KeyboardInterrupt:
            code = _ended(child, settings.stop_s + _SPARE_S)
    if code < 0:
        died = f"the endpoint's process died of {signal.Signals(-code).name}"
        raise EdgemlError(died, hint="what it said last stands above; on a device its service starts again")
    return code


def _command(folder: Path, config: Path | None, replaced: dict[str, str | int | None]) -> Sequence[str]:
    named = {"config": None if config is None else str(config), **replaced}
    options = [(f"--{name.replace('_', '-')}", str(value)) for name, value in named.items() if value is not None]
    command = [sys.executable, "-P", "-m", "edgeml_runtime", "serve", str(folder)]
    return [*command, *(word for option in options for word in option)]


def _ended(child: subprocess.Popen[str], wait_s: float) -> int:
    """Ask it to end, and wait while it finishes what runs.

    A terminal's Ctrl-C asked it already: our signal may come when it no longer waits for any.
    """
    child.terminate()
    try:
        code = child.wait(wait_s)
        return 0 if code == -signal.SIGTERM else code
    except subprocess.TimeoutExpired as error:
        raise EdgemlError(
            f"the endpoint did not end within {wait_s:g} s, and was killed", hint="see its log"
        ) from error
