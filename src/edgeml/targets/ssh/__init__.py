"""A device on the network, reached by the system's own `ssh`: its keys, its configuration, its jump hosts.

`reach` finds out what it is, `prepare` brings what it lacks, `run` does a job there, `clean` removes what was brought.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.progress import Progress, silent
from edgeml.targets.recognition import contradictions, profile_of
from edgeml.targets.ssh.calls import Reached, ask_of, busy
from edgeml.targets.ssh.connection import Connection, ConnectionLost
from edgeml.targets.ssh.needs import Needs, needs
from edgeml.targets.ssh.probe import probe
from edgeml.targets.ssh.store import Plan, plan
from edgeml.targets.ssh.work import prepare, run
from edgeml.targets.types import Probe, Profile

__all__ = [
    "Connection",
    "ConnectionLost",
    "Needs",
    "Plan",
    "Reached",
    "clean",
    "needs",
    "plan",
    "prepare",
    "probe",
    "reach",
    "reached",
    "run",
]

_OLDEST = (3, 11)  # Python that the runtime runs on


def reach(
    host: str,
    profile: Profile | None,
    *,
    wheels_for: Callable[[Profile, str, str], Sequence[Path]],
    accept_new: bool = False,
    progress: Progress = silent,
) -> Reached:
    """The device that SSH finds under `host`, if it is what `profile` says; without one, what it says itself.

    `wheels_for` gives the wheels that run a format on a profile and a Python version. Raises EdgemlError where the
    device contradicts the profile, fits none, or has no Python that there are wheels for. Hang up by
    `connection.close()`.
    """
    connection = Connection(host, accept_new=accept_new)
    progress(f"ask {host} what it is", 0, 1)
    found = reached(connection, profile, wheels_for=wheels_for)
    progress(f"ask {host} what it is", 1, 1)
    return found


def reached(
    connection: Connection, profile: Profile | None, *, wheels_for: Callable[[Profile, str, str], Sequence[Path]]
) -> Reached:
    """The same over a connection that is there."""
    found = probe(connection)
    wanted = profile or profile_of(found)
    if trouble := contradictions(wanted, found):
        named = f"edgeml bench --host {connection.host} without --target takes it for what it is"
        raise EdgemlError(f"{connection.host} is no {wanted.title}: {'; '.join(trouble)}", hint=named)
    return Reached(connection, found, wanted, _python(connection.host, found, wanted), wheels_for)


def clean(connection: Connection) -> int:
    """Remove all that edgeml brought to a device, and nothing else; how many bytes that freed.

    Raises EdgemlError while a job runs there.
    """
    answer = ask_of(connection, "python3", "clean", {})
    if "busy" in answer:
        raise busy(connection.host, answer["busy"])
    return int(answer["freed_bytes"])


def _python(host: str, found: Probe, profile: Profile) -> str:
    """The Python to use there: the first that the profile has wheels for, else any that is new enough."""
    pythons = [python for python in found.pythons if tuple(map(int, python.split("."))) >= _OLDEST]
    if not pythons:
        has = ", ".join(found.pythons) or "none"
        hint = "install it there (Raspberry Pi OS and Debian have it since 12, bookworm), or a newer system"
        raise EdgemlError(f"{host} needs Python 3.11 or newer, and has {has}", hint=hint)
    return next((python for python in pythons if python in profile.python), pythons[0])
