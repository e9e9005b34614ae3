"""`edgeml devices`: devices that SSH reaches, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from edgeml.command import common, completing

if TYPE_CHECKING:
    from edgeml.console import Session
    from edgeml.store import Store


def _names(store: Store) -> list[str]:  # noqa: ARG001 - one signature for all completions
    from edgeml.devices import devices as known

    return [one.name for one in known()]


@click.group(invoke_without_command=True)
@click.pass_context
def devices(ctx: click.Context) -> None:
    """Devices that SSH reaches, each under a name that --host takes; alone, it lists them."""
    if ctx.invoked_subcommand is None:
        ctx.invoke(list_)


@devices.command()
@click.argument("name")
@click.argument("host")
@click.option("--target", help="The device's profile; left out, what it says of itself decides.")
@click.option("--accept-new", is_flag=True, help="Trust a host that SSH does not know yet.")
@common
def add(session: Session, name: str, host: str, target: str | None, *, accept_new: bool) -> None:
    """Ask HOST what it is, and keep it as NAME. HOST is user@address, or what your SSH configuration calls it."""
    from time import time

    from edgeml.devices import add as verb
    from edgeml.targets import profile
    from edgeml.targets.ssh.probe import concerns

    named = profile(target) if target else None
    device, found = verb(name, host, named, accept_new=accept_new, progress=session.progress)
    session.show([device, found])
    for text in concerns(found, time()):
        session.warn(text)
    session.next([f"edgeml bench --host {name}" if session.store.models() else "edgeml devices"])


@devices.command("list")
@common
def list_(session: Session) -> None:
    """The devices that have a name."""
    from edgeml.devices import devices as known

    found = known()
    session.show(found)
    if not found:
        session.note("no device has a name yet")
    session.next([f"edgeml bench --host {found[0].name}" if found else "edgeml devices add NAME user@address"])


@devices.command()
@click.argument("name", shell_complete=completing(_names))
@common
def remove(session: Session, name: str) -> None:
    """Forget NAME. What lies on the device stays there; `edgeml bench --clean` removes it."""
    from edgeml.devices import remove as verb

    gone = verb(name)
    session.note(f"forgotten: {gone.name}, which was {gone.host}")
    session.next(["edgeml devices"])
