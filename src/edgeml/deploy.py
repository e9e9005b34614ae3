"""Verb: put a bundle on devices: what they lack is sent, tested there beside what runs, and only then takes over."""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock
from typing import Any

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.inventory import BAD, GOOD, Deployment, Pace, newest_python, status_of
from edgeml.parcels import Parcel, fitting
from edgeml.progress import Progress, silent
from edgeml.targets.recognition import profile_of
from edgeml.targets.ssh import Connection
from edgeml.targets.ssh.calls import Reached, busy, megabytes
from edgeml.targets.ssh.needs import Needs, Piece, Tree
from edgeml.targets.ssh.probe import probe
from edgeml.targets.ssh.store import Plan, plan, send
from edgeml.targets.ssh.versions import call
from edgeml.targets.ssh.work import patiently, who
from edgeml.targets.types import Device
from edgeml_runtime.errors import counted
from edgeml_runtime.server.settings import read_settings
from edgeml_runtime.types import Record

HOME = "~/.local/share/edgeml"
_TEST_S = 1800.0  # within which a self-test ends on the slowest device: a GGUF under an emulator
_READY_S = 120.0
_LIMITS = {"test_s": _TEST_S, "ready_s": _READY_S}


class Manner(Record, frozen=True, kw_only=True):
    """How a bundle is installed.

    `path` is the installation's folder on the device, `HOME/<model>-<scheme>` unless given. With `service` its endpoint
    becomes a service of the user's systemd, with `settings`, the text of its TOML file. `keep` keeps a version that
    fails. `accept_new` trusts the key of a device that was never met. A `dry_run` only says what would be done.
    """

    path: str | None = None
    service: bool = False
    settings: str | None = None
    keep: bool = False
    accept_new: bool = False
    dry_run: bool = False


def manner(*, settings: Path | None = None, **options: Any) -> Manner:
    """A manner by the words of the command line; what is none of its own is passed over.

    Raises EdgemlError for settings that the endpoint would refuse.
    """
    own = {name: value for name, value in options.items() if name in Manner.__struct_fields__}
    if settings is None:
        return Manner(**own)
    read_settings(settings)
    return Manner(**own, settings=settings.read_text(encoding="utf-8"))


def deploy(
    parcel: Parcel,
    device: Device,
    manner: Manner,
    *,
    connection: Connection | None = None,
    progress: Progress = silent,
) -> Deployment:
    """What became of a bundle on a device. What can go wrong there, or on the way, is its outcome.

    An interrupt ends the attempt there, too, and what was in use stays so.
    """
    started_s = time.monotonic()
    told = Deployment(device=device.name, host=device.host, bundle=parcel.bundle.name, outcome="failed")
    try:
        with connection or Connection(device.host, accept_new=manner.accept_new) as way:
            told = _Attempt(parcel, manner, way, progress).made(told)
    except EdgemlError as error:
        told = replace(told, reason=error.message, hint=error.hint)
    return replace(told, seconds=round(time.monotonic() - started_s, 1))


def deploy_all(
    parcel: Parcel, devices: Sequence[Device], manner: Manner, pace: Pace, *, progress: Progress = silent
) -> list[Deployment]:
    """What became of a bundle on each device, in their order.

    The first is tried alone; as soon as more than `max_failures` have failed, no further one is touched.
    """
    canary, *others = devices
    made = {canary.host: deploy(parcel, canary, manner, progress=progress)}
    if others and _failures(made) <= pace.max_failures:
        made |= _Others(parcel, manner, pace, _failures(made)).deployed(others, progress)
    reason = "not touched, since the canary failed" if len(made) == 1 else "not touched, since too many had failed"
    untried = Deployment(device="", host="", bundle=parcel.bundle.name, outcome="not tried", reason=reason)
    return [made.get(one.host) or replace(untried, device=one.name, host=one.host) for one in devices]


def roll_back(device: Device, manner: Manner, *, name: str | None = None, progress: Progress = silent) -> Deployment:
    """The previous version of an installation in use again; the only one there is, unless `name` says which."""
    started_s = time.monotonic()
    told = Deployment(device=device.name, host=device.host, bundle=name or "", outcome="failed")
    try:
        with Connection(device.host, accept_new=manner.accept_new) as connection:
            python = newest_python(connection.host, probe(connection).pythons)
            one = _chosen(device, status_of(connection, python, manner.path), name)
            told = replace(told, bundle=one["name"])
            ask = {"root": one["folder"], "token": secrets.token_hex(8), "who": who(), **_LIMITS}
            progress(f"self-test the previous version on {device.host}, switch back", 0, 0)
            answer = call(connection, python, "rollback", ask)
            told = _with(told, answer)
    except EdgemlError as error:
        told = replace(told, reason=error.message, hint=error.hint)
    return replace(told, seconds=round(time.monotonic() - started_s, 1))


class _Attempt:
    """One attempt to deploy over a connection."""

    def __init__(self, parcel: Parcel, manner: Manner, connection: Connection, progress: Progress) -> None:
        self._parcel, self._manner, self._connection, self._progress = parcel, manner, connection, progress
        self._token = secrets.token_hex(8)  # by which the device knows the attempt again after a lost connection

    def made(self, told: Deployment) -> Deployment:
        """What came of it."""
        self._progress(f"ask {self._connection.host} what it is", 0, 1)
        found = probe(self._connection)
        self._python = fitting(self._parcel.bundle, found, self._connection.host)
        seen = patiently(lambda: self._call("look"), self._progress)
        if why := seen["serviceless"]:
            otherwise = f"sh {self._root.removeprefix('~/')}/current/run.sh serve"
            hint = f"leave out --service, and let it be started there in another way: {otherwise}"
            raise EdgemlError(f"{self._connection.host} runs no service of its user: {why}", hint=hint)
        device = Reached(self._connection, found, profile_of(found), self._python, lambda *_: ())
        lacking = {path: piece for path, piece in self._parcel.pieces.items() if piece.sha256 in seen["lacks"]}
        wanted = _needs(lacking)
        planned = patiently(lambda: plan(device, wanted), self._progress)
        told = replace(told, before=seen["current"], after=seen["current"], sent_bytes=planned.send_bytes)
        if self._manner.dry_run:
            would = _would(planned, seen["current"], self._parcel.version)
            return replace(told, outcome="not tried", reason=would, sent_bytes=0)
        if planned.holder and (planned.missing or seen["current"] != self._parcel.version):
            raise busy(device.host, planned.holder)
        try:
            plans = [planned]  # after a lost connection, what came is not sent again
            patiently(
                lambda: send(device, plans.pop() if plans else plan(device, wanted), self._progress), self._progress
            )
            self._progress(f"install and self-test on {device.host}", 0, 0)
            answer = patiently(lambda: self._call("install", lacks=list(seen["lacks"])), self._progress)
        except KeyboardInterrupt:
            self._abandon()
            raise
        return _with(told, answer)

    @property
    def _root(self) -> str:
        return self._manner.path or f"{HOME}/{self._parcel.name}"

    def _call(self, command: str, **more: Any) -> Any:
        manner, version = self._manner, self._parcel.version
        files = {path: (piece.sha256, piece.size_bytes) for path, piece in self._parcel.pieces.items()}
        ask = {
            "root": self._root,
            "token": self._token,
            "who": who(),
            "version": version,
            "files": files,
            "keep": manner.keep,
            "service": manner.service,
            "settings": manner.settings,
            **_LIMITS,
            **more,
        }
        return call(self._connection, self._python, command, ask)

    def _abandon(self) -> None:
        """Over a connection of its own: an interrupt of many cuts the other one."""
        with suppress(EdgemlError), Connection(self._connection.host, accept_new=self._manner.accept_new) as again:
            self._connection = again
            self._call("abandon")


def _failures(made: dict[str, Deployment]) -> int:
    return sum(one.outcome in BAD for one in made.values())


class _Others:
    """The devices after the canary, some at once, each over a connection that an interrupt cuts."""

    def __init__(self, parcel: Parcel, manner: Manner, pace: Pace, failed: int) -> None:
        self._parcel, self._manner, self._pace = parcel, manner, pace
        self._failed, self._counting = failed, Lock()
        self._connections: list[Connection] = []
        self._enough, self._interrupted = Event(), Event()

    def deployed(self, devices: Sequence[Device], progress: Progress) -> dict[str, Deployment]:
        """What became of those that were tried, by host."""
        made: dict[str, Deployment] = {}
        with ThreadPoolExecutor(self._pace.parallel) as pool:
            try:
                for future in as_completed([pool.submit(self._one, device) for device in devices]):
                    if one := future.result():
                        made[one.host] = one
                        progress("deploy to the other devices", len(made), len(devices))
            except BaseException:
                self._enough.set()
                self._interrupted.set()
                for connection in self._connections:
                    connection.close()
                raise
        return made

    def _one(self, device: Device) -> Deployment | None:
        if self._enough.is_set():
            return None
        connection = Connection(device.host, accept_new=self._manner.accept_new)
        self._connections.append(connection)
        made = deploy(self._parcel, device, self._manner, connection=connection, progress=self._go_on)
        with self._counting:  # before the next one begins
            self._failed += made.outcome in BAD
            if self._failed > self._pace.max_failures:
                self._enough.set()
        return made

    def _go_on(self, step: str, done: int, total: int) -> None:  # noqa: ARG002 - a progress of many at once says nothing
        if self._interrupted.is_set():
            raise KeyboardInterrupt


def _chosen(device: Device, found: list[dict[str, Any]], name: str | None) -> dict[str, Any]:
    """The one installation that is meant."""
    named = [one for one in found if name in (None, one["name"], one["manifest"].get("name"))]
    if len(named) == 1:
        return named[0]
    if not named:
        here = ", ".join(one["name"] for one in found) or "no bundle"
        raise EdgemlError(f"{device.host} has no {name or 'bundle'} installed", hint=f"installed there: {here}")
    hint = f"name one: edgeml deploy --rollback {named[0]['name']} --host {device.name}"
    raise EdgemlError(f"{device.host} has {len(named)} bundles: {', '.join(one['name'] for one in named)}", hint=hint)


def _needs(lacking: dict[str, Piece]) -> Needs:
    wheels = {path: piece for path, piece in lacking.items() if path.startswith("wheels/")}
    others = {path: piece for path, piece in lacking.items() if path not in wheels}
    return Needs({Path(): Tree(others)}, Tree({}), Tree({}), {"": Tree(wheels)})


def _would(planned: Plan, now: str | None, version: str) -> str:
    if now == version and not planned.missing:
        return f"nothing would change: {version[:12]} is in use"
    count = len(planned.missing)
    sends = f"would send {megabytes(planned.send_bytes)} ({counted(count, 'file')})" if count else "would send nothing"
    return f"{sends}, self-test {version[:12]} there, and switch to it from {now[:12] if now else 'nothing'}"


def _with(told: Deployment, answer: dict[str, Any]) -> Deployment:
    if damaged := answer.get("damaged"):
        message = f"what was sent to {told.host} came damaged: {counted(len(damaged), 'file')}"
        raise EdgemlError(message, hint="run the same command again: they are sent anew")
    warnings = []
    if answer.get("lingers") is False:
        warnings.append(f"{told.host} ends the endpoint when its user logs out: ssh {told.host} loginctl enable-linger")
    kept = f"ssh {told.host} sh {answer['kept']}/run.sh selftest" if answer.get("kept") else None
    return replace(
        told,
        outcome=answer["outcome"],
        before=answer["before"] if told.before is None else told.before,
        after=answer["after"],
        reason=answer.get("reason"),
        hint=None if answer["outcome"] in GOOD else kept or _way_out(told.host, answer),
        kept=answer.get("kept"),
        warnings=tuple(warnings),
    )


def _way_out(host: str, answer: dict[str, Any]) -> str:
    """What to do where a version did not come into use and is not kept there."""
    if answer.get("reason", "").startswith(("its endpoint", "systemctl")):  # of a version that passed its self-test
        return f"see why: ssh {host} \"journalctl --user --lines 20 --unit 'edgeml-*'\""
    if answer.get("reason") == "there is no previous version":
        return "what is in use stays; deploy the older bundle itself to have it back"
    if answer["after"] is None:
        return "nothing is in use there: pack a bundle that passes"
    return "what was in use before still is; pack a bundle that passes"
