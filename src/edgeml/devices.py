"""Devices that were met once and have a name: kept in the user's configuration, for every artifacts folder alike."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.progress import Progress, silent
from edgeml.targets.recognition import contradictions, profile_of
from edgeml.targets.ssh.connection import Connection
from edgeml.targets.ssh.probe import probe
from edgeml.targets.types import Device, Probe, Profile
from edgeml_runtime.errors import unknown
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.types import Record

_NAME = re.compile(r"[A-Za-z0-9][\w-]*")


class Devices(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.devices/1"):
    """The file `devices.json`: every device that was added, by name."""

    devices: tuple[Device, ...] = ()


def config_folder() -> Path:
    """Where what the user set for all work lies: `EDGEML_CONFIG`, else the user's configuration folder."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(os.environ.get("EDGEML_CONFIG") or Path(base) / "edgeml")


def devices() -> list[Device]:
    """Every device that was added, by name."""
    path = _file()
    return list(read_record(path, Devices).devices) if path.exists() else []


def host_of(text: str) -> Device:
    """The device of that name; anything else is what `ssh` knows it by: `user@addr`, or an alias of its own."""
    return next((one for one in devices() if one.name == text), Device(name=text, host=text))


def add(
    name: str, host: str, profile: Profile | None = None, *, accept_new: bool = False, progress: Progress = silent
) -> tuple[Device, Probe]:
    """Ask a device what it is, and keep it under a name if it is what `profile` says, or fits one.

    Raises EdgemlError where it cannot be reached or used, or the name is another device's; then nothing is kept.
    """
    if not _NAME.fullmatch(name):
        raise EdgemlError(f"{name!r} cannot name a device", hint="use letters, digits, - and _, such as pi5-kitchen")
    known = {one.name: one for one in devices()}
    if name in known and known[name].host != host:
        hint = f"choose another name, or forget that one first: edgeml devices remove {name}"
        raise EdgemlError(f"{name} is already {known[name].host}", hint=hint)
    progress(f"ask {host} what it is", 0, 0)
    with Connection(host, accept_new=accept_new) as connection:
        found = probe(connection)
    kind = profile or profile_of(found)
    if reasons := contradictions(kind, found):
        hint = "name what it is with --target, or measure on another device"
        raise EdgemlError(f"{host} is no {kind.title} that edgeml can use: {'; '.join(reasons)}", hint=hint)
    known[name] = Device(name=name, host=host, target=kind.asked)
    _keep(known)
    return known[name], found


def remove(name: str) -> Device:
    """Forget a device, and give back what was known of it; what lies on it stays there."""
    known = {one.name: one for one in devices()}
    if not known:
        raise EdgemlError(f"unknown device {name!r}", hint="no device has a name yet: edgeml devices add NAME HOST")
    if name not in known:
        raise unknown("device", name, known, plural="devices")
    gone = known.pop(name)
    _keep(known)
    return gone


def _keep(known: dict[str, Device]) -> None:
    write_record(_file(), Devices(devices=tuple(known[name] for name in sorted(known))))


def _file() -> Path:
    return config_folder() / "devices.json"
