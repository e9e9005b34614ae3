"""Commands that are about devices: their names, what goes to them and what comes back, what is on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, cast

import click

from edgeml.command import common, completing, typed
from edgeml_runtime.errors import counted

if TYPE_CHECKING:
    from edgeml.console import Session
    from edgeml.inventory import Deployment
    from edgeml.store import Store
    from edgeml.targets.types import Device


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


_KEY = click.option(
    "--key", type=click.Path(path_type=Path), metavar="FILE", help="The key that the device sealed with."
)
_MODEL = click.option("--model", metavar="NAME", help="Of one model; left out, of all.")


def _shares(ctx: click.Context, param: click.Parameter, value: tuple[float, ...]) -> tuple[float, ...]:  # noqa: ARG001 - click's signature
    return tuple(sorted(set(value)))


def _variants(store: Store) -> list[str]:
    return [variant.name for variant in store.variants()]


@click.group()
def feedback() -> None:
    """What devices kept of their answers: brought home by hand, in pools that never mix."""


@feedback.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--host", metavar="USER@ADDRESS", help="Fetch it there, over SSH; or a name of edgeml devices.")
@click.option("--bundle", metavar="NAME", help="Of that bundle, where the device has several.")
@click.option("--file", "path", metavar="PATH", help="Where the device's configuration keeps it.")
@click.option("--sudo", is_flag=True, help="Read it as root there, as a package's service needs.")
@click.option("--delete", is_flag=True, help="The device forgets what came home, once it is on this disk.")
@click.option("--accept-new", is_flag=True, help="Trust a host that SSH does not know yet.")
@_KEY
@common
def pull(session: Session, file: Path | None, host: str | None, path: str | None, key: Path | None, **how: Any) -> None:
    """Bring home the feedback of a device, or of a FILE that was copied there. Nothing is removed without --delete."""
    from edgeml.feedback import Wanted, pull_file, pull_host

    if (file is None) == (host is None) or (file and (path or how["bundle"] or how["delete"] or how["sudo"])):
        raise click.UsageError("give either --host, or a FILE alone")
    if file:
        found = pull_file(session.store, file, key=key)
    else:
        from edgeml.devices import host_of
        from edgeml.targets.ssh import Connection

        named = host_of(str(host))
        accept_new = how.pop("accept_new")
        wanted = Wanted(device=named.name, file=path, key=key, **how)
        with Connection(named.host, accept_new=accept_new) as connection:
            found = pull_host(session.store, connection, wanted, progress=session.progress)
    session.show([found])
    session.next(["edgeml feedback list"])


@feedback.command("list")
@_MODEL
@click.option("--show-inputs", is_flag=True, help="Every item with its texts, instead of counts.")
@common
def list_feedback(session: Session, model: str | None, *, show_inputs: bool) -> None:
    """Count what came home, by pool, kind, device and right answer. Texts are shown with --show-inputs alone."""
    from edgeml.feedback import pulled, tallies

    found = pulled(session.store, model) if show_inputs else tallies(session.store, model)
    session.show(found)
    onward = "export --pool evaluation --out evaluation.jsonl" if found else "pull --host user@address"
    session.next([f"edgeml feedback {onward}"])


@feedback.command()
@_MODEL
@click.option("--pool", required=True, type=click.Choice(["calibration", "evaluation", "training"]), help="What for.")
@click.option("--task", help="Of one task, where there are several.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE", help="A new JSONL file.")
@common
def export(session: Session, model: str | None, pool: Any, task: str | None, out: Path) -> None:
    """Write one pool as a data set: an input is in one pool for ever, so none judges a model that it helped to make."""
    from edgeml import suggestions
    from edgeml.feedback import export as verb

    done = verb(session.store, model, pool=pool, out=out, task=task)
    session.show([done])
    if steps := suggestions.after_export(done):
        session.next(steps)


@feedback.command("erase")
@click.argument("ids", nargs=-1, required=True, metavar="ID...")
@common
def erase_feedback(session: Session, ids: tuple[str, ...]) -> None:
    """Remove items from this machine for good. What was exported, and what a device still has, is not touched."""
    from edgeml.feedback import forget

    session.note(f"erased: {counted(forget(session.store, ids), 'item')}")
    session.next(["edgeml feedback list"])


@feedback.command("key")
@click.argument("file", type=click.Path(path_type=Path))
@common
def new_key(session: Session, file: Path) -> None:
    """Make a key in a new FILE. The device needs it to keep feedback sealed, and you to read it."""
    from edgeml.feedback import new_key as verb

    verb(file)
    session.note(f"made: {file}, which nobody can make again")
    session.next([f"edgeml feedback pull --host user@address --key {file}"])


@feedback.command()
@click.argument("variant", required=False, shell_complete=completing(_variants))
@click.option("--task", help="A Hub task name; left out, the variant's own.")
@click.option(
    "--catch", "catches", type=float, multiple=True, callback=_shares, metavar="SHARE", help="Of wrong answers."
)
@common
def threshold(session: Session, variant: str | None, task: str | None, catches: tuple[float, ...]) -> None:
    """Propose from a bench's answers below which confidence a device should keep its own."""
    from edgeml.feedback import propose
    from edgeml.threshold import Threshold

    chosen = session.store.variant(variant)
    found = session.show(propose(session.store, chosen, task=task, catches=catches))
    named = next((one for one in found if isinstance(one, Threshold)), None)
    if named:
        session.next([f"write low_confidence = {named.threshold:g} below [feedback] in the device's configuration"])
    else:
        session.next([f"edgeml bench {chosen.name} --data FILE"])


@click.command()
@click.argument("variant", required=False, shell_complete=completing(_variants))
@click.option("--config", type=click.Path(path_type=Path), metavar="FILE", help="The endpoint's TOML file.")
@click.option("--host", metavar="HOST", help="127.0.0.1 unless given; others need a token.")
@click.option("--port", type=click.IntRange(0, 65535), help="8080 unless given; 0 for any free one.")
@click.option("--token-file", metavar="FILE", help="The token that requests must show; only you may read it.")
@click.option("--threads", type=click.IntRange(1), help="Every fast core unless given.")
@common
def serve(session: Session, variant: str | None, **options: Any) -> None:
    """Answer requests with VARIANT, or a bundle's folder, here and as a device will, until Ctrl-C."""
    from edgeml.serve import serve as verb
    from edgeml_runtime.bundle import MANIFEST

    packed = variant is not None and (Path(variant) / MANIFEST).is_file()
    folder = Path(str(variant)) if packed else session.store.variant(variant).path
    click.get_current_context().exit(verb(folder, begins=lambda: session.note("Ctrl-C ends it"), **options))


@click.command()
@click.argument("bundle", required=False)
@click.option("--key", type=click.Path(path_type=Path), help="The public key, in PEM, of whoever signed it.")
@click.option("--rebuild", is_flag=True, help="Make the weights again from their source, and compare every byte.")
@click.option("--calibration", type=click.Path(path_type=Path), help="With --rebuild: the inputs it was made with.")
@click.option("--imatrix", type=click.Path(path_type=Path), help="With --rebuild: the importance matrix, likewise.")
@click.option("--columns", multiple=True, metavar="YOURS=TASKS", help="Map a column of those, e.g. body=text.")
@click.option("--private", is_flag=True, help="Run it without a network, and search for what it was asked.")
@click.option(
    "--inventory", type=click.Path(path_type=Path), help="Instead: which versions the devices of this file have."
)
@common
def verify(session: Session, bundle: str | None, inventory: Path | None, **options: Any) -> None:
    """Check that BUNDLE is what was packed: its files, signature and papers, and that the model still answers."""
    from edgeml import suggestions
    from edgeml.bundles import bundle_at
    from edgeml.verify import Rebuild
    from edgeml.verify import verify as verb
    from edgeml_runtime.rows import parse_columns

    if (bundle is None) == (inventory is None):
        raise click.UsageError("give a BUNDLE, or --inventory alone")
    if inventory:
        _tell_versions(session, _devices(None, inventory, ()))
        return
    assert bundle is not None
    inputs = Rebuild(options.pop("calibration"), options.pop("imatrix"), parse_columns(options.pop("columns")))
    for name in ("calibration", "imatrix"):
        if getattr(inputs, name) and not options["rebuild"]:
            raise click.UsageError(f"--{name} says nothing without --rebuild")
    options["rebuild"] = inputs if options["rebuild"] else None
    path = bundle_at(bundle, session.store.root / "bundles")
    found = verb(path, store=session.store, progress=session.progress, **options)
    session.show([found])
    session.next(suggestions.after_verify(found, path, key=options["key"]))


@click.command()
@click.argument("bundle", required=False)
@click.option("--host", metavar="USER@ADDRESS", help="The device, over SSH; or a name of edgeml devices.")
@click.option("--inventory", type=click.Path(path_type=Path), metavar="FILE", help="Every device of a YAML file.")
@click.option("--label", "labels", multiple=True, help="Of those, the ones with this label.")
@click.option("--parallel", type=click.IntRange(1), default=4, show_default=True, help="Devices at once.")
@click.option("--max-failures", type=click.IntRange(0), default=0, show_default=True, help="More than these stop it.")
@click.option("--path", metavar="FOLDER", help="Where on the device; left out, below ~/.local/share/edgeml.")
@click.option("--service", is_flag=True, help="Serve it as a service of the device's user (systemd).")
@click.option("--config", "settings", type=click.Path(path_type=Path), metavar="FILE", help="The endpoint's TOML file.")
@click.option("--key", type=click.Path(path_type=Path), help="The public key, in PEM, of whoever must have signed it.")
@click.option("--keep", is_flag=True, help="Keep a version that fails on the device, for looking at.")
@click.option("--accept-new", is_flag=True, help="Trust a host that SSH does not know yet.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent and done.")
@click.option("--rollback", is_flag=True, help="Instead: go back to the version before.")
@click.option("--status", is_flag=True, help="Instead: what is installed there.")
@common
def deploy(session: Session, bundle: str | None, *, rollback: bool, status: bool, **how: Any) -> None:
    """Put BUNDLE on devices: send what they lack, self-test it there, switch over, and go back if it fails."""
    from edgeml.deploy import deploy_all, manner, roll_back
    from edgeml.inventory import Pace
    from edgeml.parcels import opened
    from edgeml.progress import beating

    devices, way = _devices(how["host"], how["inventory"], how["labels"]), manner(**how)
    if status:
        _tell_versions(session, devices, path=way.path, accept_new=way.accept_new)
        return
    if rollback:
        with beating(session.progress) as alive:
            back = [roll_back(one, way, name=bundle, progress=alive) for one in devices]
        _tell_deployed(session, back, how["inventory"], path=way.path)
        return
    if bundle is None:
        raise click.UsageError("name a BUNDLE: edgeml list shows those that are here")
    pace = Pace(parallel=how["parallel"], max_failures=how["max_failures"])
    with (
        beating(session.progress) as alive,
        opened(bundle, store=session.store, key=how["key"], progress=alive) as parcel,
    ):
        made = deploy_all(parcel, devices, way, pace, progress=alive)
    _tell_deployed(session, made, how["inventory"], path=way.path, dry_run=way.dry_run)


def _devices(host: str | None, inventory: Path | None, labels: Sequence[str]) -> list[Device]:
    from edgeml.devices import host_of
    from edgeml.inventory import read_inventory

    if (host is None) == (inventory is None) or (labels and host):
        raise click.UsageError("give either --host, or --inventory and its labels")
    return [host_of(host)] if host else read_inventory(cast("Path", inventory), labels)


def _tell_versions(session: Session, devices: Sequence[Device], **how: Any) -> None:
    from edgeml.inventory import require_answers, versions_on

    found = session.show(versions_on(devices, **how))
    require_answers(found)
    back, path = next((one for one in found if one.previous), None), how.get("path")
    there = f" --path {quote(path)}" if path else ""
    session.next([f"edgeml deploy {back.name} --rollback --host {back.device}{there}" if back else "edgeml list"])


def _tell_deployed(
    session: Session,
    made: Sequence[Deployment],
    inventory: Path | None,
    *,
    path: str | None = None,
    dry_run: bool = False,
) -> None:
    from edgeml.inventory import require_deployed

    session.show(made)
    require_deployed(made, dry_run=dry_run)
    where = f"--inventory {quote(str(inventory))}" if inventory else f"--host {made[0].device}"
    if dry_run:  # the same again, whichever devices and whatever folder were named
        session.next([" ".join(["edgeml deploy", *(quote(word) for word in typed(()) if word != "--dry-run")])])
    elif path:
        session.next([f"edgeml deploy --status {where} --path {quote(path)}"])
    else:
        session.next([f"edgeml verify {where}" if inventory else f"edgeml deploy --status {where}"])
