"""Many devices in one file, and what is told of each: what a deployment did to it, and what is installed there."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from edgeml.devices import host_of
from edgeml.errors import EdgemlError
from edgeml.targets.ssh import Connection
from edgeml.targets.ssh.probe import probe
from edgeml.targets.ssh.versions import call
from edgeml.targets.types import Device
from edgeml.yaml_files import read_yaml
from edgeml_runtime.records import build
from edgeml_runtime.types import Record

GOOD = ("deployed", "unchanged")
BAD = ("failed", "rolled back")
_AT_ONCE = 8  # devices that are only asked
_OLDEST = (3, 11)  # Python that the runtime runs on
_HINT = "compare it with the example in docs/deploy.md"


class Entry(Record, frozen=True, kw_only=True):
    """One device of an inventory: a name that `edgeml devices` keeps, or `user@address`.

    `labels` are words to choose devices by; the one that is the `canary` is tried first, and alone.
    """

    device: str
    labels: tuple[str, ...] = ()
    canary: bool = False


class Inventory(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.inventory/1"):
    """A file of devices."""

    devices: Annotated[tuple[Entry, ...], msgspec.Meta(min_length=1)]


class Pace(Record, frozen=True, kw_only=True):
    """How many devices are under way at once, and how many may fail before no further one is touched."""

    parallel: int = 4
    max_failures: int = 0


class Deployment(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.deployment/1"):
    """What one attempt to deploy a bundle did to one device.

    `before` and `after` are the versions in use then and now, by digest; absent where there was none, or where the
    device was not reached. `reason` says why it was not deployed, or for a dry run what would be done, `hint` what to
    do about it. `kept` is where a version that failed was kept on the device.
    """

    device: str
    host: str
    bundle: str
    outcome: Literal["deployed", "unchanged", "rolled back", "failed", "not tried"]
    before: str | None = None
    after: str | None = None
    seconds: float | None = None
    sent_bytes: int | None = None
    reason: str | None = None
    hint: str | None = None
    kept: str | None = None
    warnings: tuple[str, ...] = ()


class Installed(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.installed/1"):
    """A bundle that is installed on a device; only `reason` and `hint` where that could not be found out.

    `current` and `previous` are versions by digest; `model` and `runtime` the digests of the bundle's two parts, which
    an older edgeml did not write. `serves` is whether its endpoint runs as a service, absent where it has none.
    """

    device: str
    host: str
    name: str | None = None
    bundle: str | None = None
    current: str | None = None
    previous: str | None = None
    model: str | None = None
    runtime: str | None = None
    folder: str | None = None
    serves: bool | None = None
    reason: str | None = None
    hint: str | None = None


def read_inventory(path: Path, labels: Sequence[str] = ()) -> list[Device]:
    """The devices of a file that have all the labels, the canary first, else in the file's order.

    Raises EdgemlError for an unknown key, a device or a canary that stands there twice, and where no device is left.
    """
    plain = read_yaml(path, missing="check the path", hint=_HINT)
    found = build(_spelled_out(plain), Inventory, where=str(path)).devices
    hosts = [host_of(entry.device).host for entry in found]
    if twice := sorted({host for host in hosts if hosts.count(host) > 1}):
        raise EdgemlError(f"{path} has {twice[0]} twice", hint="keep one of the two")
    if sum(entry.canary for entry in found) > 1:
        raise EdgemlError(f"{path} has more than one canary", hint="one device is tried first")
    chosen = [entry for entry in found if set(labels) <= set(entry.labels)]
    if not chosen:
        known = sorted({label for entry in found for label in entry.labels})
        hint = f"labels there: {', '.join(known)}" if known else "no device there has a label"
        raise EdgemlError(f"no device in {path} has {' and '.join(labels)}", hint=hint)
    return [host_of(entry.device) for entry in sorted(chosen, key=lambda entry: not entry.canary)]


def versions_on(devices: Sequence[Device], *, path: str | None = None, accept_new: bool = False) -> list[Installed]:
    """What is installed on each device, in their order; several lines of one that has several bundles."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return [one for found in pool.map(lambda one: _installed(one, path, accept_new), devices) for one in found]


def status_of(connection: Connection, python: str, path: str | None) -> list[dict[str, Any]]:
    """What a device says of each installation: below `path`, or wherever edgeml would put one itself."""
    return list(call(connection, python, "status", {"root": path})["installed"])


def newest_python(host: str, usable: Sequence[str], has: Sequence[str] = ()) -> str:
    """The Python version to use there, of those that may be; `has` are all that are there."""
    fresh = [one for one in usable if tuple(map(int, one.split("."))) >= _OLDEST]
    if not fresh:
        message = f"{host} has no Python that this runs on, but {', '.join(has or usable) or 'none'}"
        raise EdgemlError(message, hint="pack it with wheels for that Python, or install Python 3.11 or newer there")
    return fresh[0]


def require_deployed(made: Sequence[Deployment], *, dry_run: bool = False) -> None:
    """Raises EdgemlError unless every device has the version; of a dry run, unless every device could be asked."""
    bad = [one for one in made if one.outcome in BAD or (one.outcome == "not tried" and not dry_run)]
    if len(made) == 1 and bad:
        outcome = f"{bad[0].host} was rolled back: " if bad[0].outcome == "rolled back" else ""
        raise EdgemlError(f"{outcome}{bad[0].reason}", hint=bad[0].hint or "run the same command again")
    if bad:
        tried = next((one for one in bad if one.outcome in BAD), bad[0])
        message = f"{len(bad)} of {len(made)} devices have no new version; the first, {tried.device}: {tried.reason}"
        raise EdgemlError(message, hint=tried.hint or "run the same command again: it goes on with what is left")


def require_answers(found: Sequence[Installed]) -> None:
    """Raises EdgemlError where a device could not be asked."""
    silent = [one for one in found if one.hint]
    if silent:
        raise EdgemlError(f"{silent[0].device} was not asked: {silent[0].reason}", hint=str(silent[0].hint))


def _spelled_out(plain: Any) -> Any:
    """A device may stand there as a word alone."""
    listed = plain.get("devices") if isinstance(plain, dict) else None
    if not isinstance(listed, list):
        return plain
    return {**plain, "devices": [{"device": one} if isinstance(one, str) else one for one in listed]}


def _installed(device: Device, path: str | None, accept_new: bool) -> list[Installed]:  # noqa: FBT001
    try:
        with Connection(device.host, accept_new=accept_new) as connection:
            found = status_of(connection, newest_python(connection.host, probe(connection).pythons), path)
    except EdgemlError as error:
        return [Installed(device=device.name, host=device.host, reason=error.message, hint=error.hint)]
    if not found:
        return [Installed(device=device.name, host=device.host, reason="no bundle is installed")]
    return [_as_installed(device, one) for one in found]


def _as_installed(device: Device, one: dict[str, Any]) -> Installed:
    manifest = one["manifest"]
    parts = manifest.get("parts", {})
    return Installed(
        device=device.name,
        host=device.host,
        name=one["name"],
        bundle=manifest.get("name"),
        current=one["current"],
        previous=one["previous"],
        model=parts.get("model"),
        runtime=parts.get("runtime"),
        folder=one["folder"],
        serves=one["serves"],
    )
