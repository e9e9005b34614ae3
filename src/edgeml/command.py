"""What every command has: where results live, how they are shown, and names that complete themselves."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgeml.errors import EdgemlError

if TYPE_CHECKING:
    from edgeml.store import Store


def common(command: Callable[..., None]) -> Callable[..., None]:
    """The options that every command takes, as the session that it gets first."""

    @click.option(
        "--artifacts",
        type=click.Path(path_type=Path, file_okay=False),
        default="artifacts",
        envvar="EDGEML_ARTIFACTS",
        show_default=True,
        help="Where results live.",
    )
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line on stdout.")
    @click.pass_context
    @wraps(command)
    def run(ctx: click.Context, /, artifacts: Path, *, as_json: bool, **options: Any) -> None:
        from edgeml.console import Session

        if artifacts.is_symlink() and not artifacts.exists():
            raise EdgemlError(f"{artifacts} is a link that leads nowhere", hint="name another --artifacts folder")
        named = ctx.get_parameter_source("artifacts") is click.core.ParameterSource.COMMANDLINE
        session = Session(artifacts, as_json=as_json, named=named)
        try:
            command(session, **options)
        finally:
            session.progress.close()

    return run


def completing(
    list_names: Callable[[Store], Iterable[str]],
) -> Callable[[click.Context, click.Parameter, str], list[str]]:
    """Completes a name that is being typed from those that a function lists."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001 - click's signature
        from edgeml.store import Store

        store = Store(Path(ctx.params.get("artifacts") or "artifacts"))
        with contextlib.suppress(EdgemlError):  # a broken record is no reason to write into the line being typed
            return [name for name in list_names(store) if name.startswith(incomplete)]
        return []

    return complete


def typed(arguments: Sequence[str]) -> list[str]:
    """The options that were typed after the command's name, without its arguments, and without those of `common`."""
    words = sys.argv[2:]
    for argument in arguments:
        if argument in words:
            words.remove(argument)
    if "--artifacts" in words:  # the session adds it to each command that it shows
        place = words.index("--artifacts")
        del words[place : place + 2]
    return [word for word in words if word != "--json"]
