"""A device's side of a deployment: a version is put beside the one in use, tested there, and only then takes over.

The standard library alone: its text is what a call runs, after that of `edgeml_runtime.device`, whose files by digest
bring what is new. On stdin a line of JSON asks, on stdout a line of JSON answers. Below the installation's folder:

    versions/<digest>    a bundle's folder, whole and tested here, named by the digest of its SHA256SUMS
    current, previous    links to the version in use, and to the last good one before it
    new/<digest>         one that is not tested yet, or is being removed
    broken/<digest>      one that failed and was to be kept
    switching            what was before a switch, until the endpoint of the new version answered
    serve.toml           the endpoint's settings

The power may go at any instant: `current` is one link that is replaced at once, a folder comes under `versions` by one
rename after all of it is on the disk and was tested, and leaves it the same way.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from edgeml_runtime.deployment.files import FULL, Intact, json_of, kept, linked, on_disk, place, sums, text_of, write
from edgeml_runtime.deployment.service import SETTINGS, lingers, restarted, systemctl, unit_of, unit_text
from edgeml_runtime.device import ANSWER, FILES

BASE = Path.home() / ".local" / "share" / "edgeml"
LOCK = BASE / "lock"  # one deployment at a time on a device, wherever it installs
CURRENT, PREVIOUS = "current", "previous"
_SWITCHING = "switching"
_LAST = "last.json"  # what came of the last attempt, for who lost the connection before hearing it
_SITE = re.compile(r"\.site-\d+\.\d+-[0-9a-f]+")  # as edgeml_runtime.unpack names packages once all are there
_TOLD = ("name", "variant", "model", "target", "runtime", "parts")  # of a manifest


def look(ask: Any) -> Any:
    """What is installed, which of a version's files no version here has intact, and why no service can be had."""
    root, intact = _root(ask), Intact()
    places = kept(root)
    lacks = {
        file: size
        for file, size in dict(ask["files"].values()).items()
        if not any(intact(path, file, size) for path in places.get(file, ()))
    }
    return {
        CURRENT: _version(root, CURRENT),
        PREVIOUS: _version(root, PREVIOUS),
        "lacks": lacks,
        "serviceless": systemctl("show-environment") if ask["service"] else None,
    }


def install(ask: Any) -> Any:
    """Makes the version of these files the current one, or leaves or brings back what was; the `outcome`, and why.

    Another deployment that runs here is `busy`; files that are not what they should be are `damaged`.
    """
    with suppress(PermissionError):  # a session of its own already, or now: so that `abandon` can end all of it
        os.setsid()
    root = _root(ask)
    with _alone(ask) as other:
        if other is not None:
            return {"busy": other}
        if (last := json_of(root / _LAST)).get("token") == ask["token"]:
            return last["answer"]
        try:
            answer = _installed(root, ask)
        finally:
            shutil.rmtree(root / "new", ignore_errors=True)
            for file in ask["lacks"]:
                (FILES / file).unlink(missing_ok=True)
        write(root / _LAST, json.dumps({"token": ask["token"], "answer": answer}))
        return answer


def rollback(ask: Any) -> Any:
    """Makes the previous version the current one again, and the other way round, once it passed its self-test."""
    root = _root(ask)
    with _alone(ask) as other:
        if other is not None:
            return {"busy": other}
        _recover(root)
        now, before = _version(root, CURRENT), _version(root, PREVIOUS)
        if before is None or before == now:
            return {"outcome": "failed", "before": now, "after": now, "reason": "there is no previous version"}
        if trouble := _tested(root / "versions" / before, ask):
            return {"outcome": "failed", "before": now, "after": now, "reason": trouble}
        _begin_switch(root)
        _point(root, CURRENT, before)
        _point(root, PREVIOUS, now)
        if unit_of(root).exists() and (trouble := restarted(root, ask)):
            _recover(root)
            return {"outcome": "rolled back", "before": now, "after": now, "reason": trouble}
        (root / _SWITCHING).unlink()
        return {"outcome": "deployed", "before": now, "after": before}


def status(ask: Any) -> Any:
    """What is installed: below the given folder, or below each that edgeml would choose itself."""
    roots = [_root(ask)] if ask["root"] else sorted(path.parent for path in BASE.glob("*/versions"))
    return {"installed": [_told(root) for root in roots if (root / "versions").is_dir()]}


def abandon(ask: Any) -> Any:
    """Ends an attempt of one's own that still runs, and undoes what it left half done."""
    if not LOCK.exists():
        return {}
    holder = json_of(LOCK)
    with LOCK.open("a") as lock:
        if not _locked(lock) and holder.get("token") == ask["token"]:  # so that its number is still its own
            with suppress(ProcessLookupError):
                os.killpg(holder["pid"], signal.SIGKILL)
            fcntl.flock(lock, fcntl.LOCK_EX)
            _recover(_root(ask))
            shutil.rmtree(_root(ask) / "new", ignore_errors=True)
    return {}


COMMANDS: dict[str, Callable[[Any], Any]] = {
    command.__name__: command for command in (look, install, rollback, status, abandon)
}


def main() -> None:
    """Carry out one command."""
    ask = json.loads(sys.stdin.buffer.readline())
    try:
        answer = COMMANDS[sys.argv[1]](ask)
    except OSError as error:
        answer = {"refused": error.strerror, "file": str(error.filename or BASE), "full": error.errno in FULL}
    sys.stdout.buffer.write(ANSWER + json.dumps(answer).encode())


def _installed(root: Path, ask: Any) -> Any:
    _recover(root)
    before, version = _version(root, CURRENT), ask["version"]
    if version == before and not ask["lacks"] and not _would_serve_otherwise(root, ask):
        _prune(root)  # the power may have gone before that
        return {"outcome": "unchanged", "before": before, "after": before}
    folder, damaged = _assembled(root, ask)
    if damaged:
        return {"damaged": damaged}
    trouble = _tested(folder, ask)
    if trouble is None:
        folder = _adopted(root, folder)
        trouble = _switched(root, ask)
    if trouble is None:
        _prune(root)
        return {"outcome": "deployed", "before": before, "after": version, "lingers": lingers(root)}
    aside = _set_aside(root, folder, keep=ask["keep"]) if version != before else None
    outcome = "rolled back" if before else "failed"
    return {"outcome": outcome, "before": before, "after": before, "reason": trouble, "kept": aside}


def _assembled(root: Path, ask: Any) -> tuple[Path, list[str]]:
    """The version's folder, of links to files that are here; which of them are not what they should be.

    One that is installed is repaired, file by file.
    """
    places, intact, damaged = kept(root), Intact(), []
    goal = root / "versions" / ask["version"]
    if not goal.is_dir():
        goal = root / "new" / ask["version"]
        shutil.rmtree(root / "new", ignore_errors=True)
        goal.mkdir(parents=True)
    for name, (file, size) in ask["files"].items():
        path = goal / name
        if not path.resolve().is_relative_to(goal.resolve()):
            raise OSError(errno.EINVAL, "leads out of its folder", name)
        if intact(path, file, size):
            continue
        source = next((one for one in (*places.get(file, ()), FILES / file) if intact(one, file, size)), None)
        if source is None:
            damaged.append(file)
        else:
            place(source, path)
    _link_site(root, goal)
    return goal, damaged


def _link_site(root: Path, goal: Path) -> None:
    """Packages that the current version unpacked from the same wheels need not be unpacked again."""
    now = root / CURRENT
    if not (now.is_dir() and not now.samefile(goal) and _wheels(now) == _wheels(goal)):
        return
    for site in now.glob(".site-*"):
        if not _SITE.fullmatch(site.name) or (goal / site.name).exists():
            continue
        part = goal / f"{site.name}.linked"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(site, part, copy_function=linked)
        os.rename(part, goal / site.name)  # noqa: PTH104


def _wheels(folder: Path) -> list[str]:
    return sorted(line for line in sums(folder) if "  wheels/" in line)


def _tested(folder: Path, ask: Any) -> str | None:
    """Why a version cannot be used here; None where its own self-test passed."""
    command = ["sh", "run.sh", "selftest"]
    limit_s = ask["test_s"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"its self-test took more than {limit_s:g} s"
    if done.returncode == 0:
        return None
    if os.strerror(errno.ENOSPC) in done.stderr:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if done.returncode < 0:
        return f"its self-test died of {signal.Signals(-done.returncode).name}"
    words = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    refusals = (line.removeprefix("error: ") for line in words if line.startswith("error: "))
    return "its self-test failed: " + next(refusals, words[-1] if words else f"it ended with {done.returncode}")


def _adopted(root: Path, folder: Path) -> Path:
    """The version's folder under `versions`, all of it on the disk."""
    goal = root / "versions" / folder.name
    os.sync()
    if folder != goal:
        goal.parent.mkdir(exist_ok=True)
        os.rename(folder, goal)  # noqa: PTH104
        on_disk(goal.parent)
    return goal


def _switched(root: Path, ask: Any) -> str | None:
    """Why the version does not serve, and then all is as it was; None where it is the current one."""
    serves = ask["service"] or unit_of(root).exists()
    if serves:
        _begin_switch(root)
    now = _version(root, CURRENT)
    if now not in (None, ask["version"]):
        _point(root, PREVIOUS, now)  # before the switch: the version that it led to until now is beyond the last good
    _point(root, CURRENT, ask["version"])
    if ask["settings"] is not None:  # without a service, for whoever starts it in another way
        write(root / SETTINGS, ask["settings"])
    if not serves:
        return None
    if ask["service"]:
        write(unit_of(root), unit_text(root))
    if trouble := restarted(root, ask):
        _recover(root)
        return trouble
    (root / _SWITCHING).unlink()
    return None


def _begin_switch(root: Path) -> None:
    links = {name: _version(root, name) for name in (CURRENT, PREVIOUS)}
    texts = {str(path): text_of(path) for path in (root / SETTINGS, unit_of(root))}
    write(root / _SWITCHING, json.dumps({"links": links, "texts": texts}))


def _recover(root: Path) -> None:
    """What was before a switch whose end nobody saw comes back, with its endpoint."""
    was = json_of(root / _SWITCHING)
    if not was:
        return
    unit = unit_of(root).name
    systemctl("stop", unit)
    for path, text in was["texts"].items():
        if text is None and Path(path).name == unit:
            systemctl("disable", unit)
        write(Path(path), text) if text is not None else Path(path).unlink(missing_ok=True)
    for name in (CURRENT, PREVIOUS):
        _point(root, name, was["links"][name])
    systemctl("daemon-reload")
    if was["links"][CURRENT]:
        systemctl("start", unit)
    (root / _SWITCHING).unlink()


def _would_serve_otherwise(root: Path, ask: Any) -> bool:
    unit = unit_of(root)
    if ask["settings"] not in (None, text_of(root / SETTINGS)) or (ask["service"] and text_of(unit) != unit_text(root)):
        return True
    return unit.exists() and systemctl("is-active", "--quiet", unit.name) is not None


def _set_aside(root: Path, folder: Path, *, keep: bool) -> str | None:
    """A version that failed is gone, or kept for looking at, and then where."""
    if not keep:
        _remove(root, folder)
        return None
    goal = root / "broken" / folder.name
    shutil.rmtree(goal, ignore_errors=True)
    goal.parent.mkdir(exist_ok=True)
    os.rename(folder, goal)  # noqa: PTH104
    return str(goal)


def _prune(root: Path) -> None:
    wanted = {_version(root, CURRENT), _version(root, PREVIOUS)}
    for folder in (root / "versions").iterdir():
        if folder.name not in wanted:
            _remove(root, folder)


def _remove(root: Path, folder: Path) -> None:
    """Leaves `versions` at once, and then bit by bit."""
    aside = root / "new" / f"{folder.name}.gone"
    aside.parent.mkdir(exist_ok=True)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)  # noqa: PTH104
    shutil.rmtree(aside)


def _told(root: Path) -> Any:
    now, unit = root / CURRENT, unit_of(root)
    manifest = json_of(now / "bundle.json") if now.is_dir() else {}
    return {
        "name": root.name,
        "folder": str(root),
        CURRENT: _version(root, CURRENT),
        PREVIOUS: _version(root, PREVIOUS),
        "manifest": {key: manifest[key] for key in _TOLD if key in manifest},
        "serves": systemctl("is-active", "--quiet", unit.name) is None if unit.exists() else None,
    }


def _point(root: Path, name: str, version: str | None) -> None:
    """A link leads to that version from one instant to the next."""
    part = root / f"{name}.part"
    part.unlink(missing_ok=True)
    if version is None:
        (root / name).unlink(missing_ok=True)
    else:
        part.symlink_to(f"versions/{version}")
        os.replace(part, root / name)
    on_disk(root)


def _version(root: Path, name: str) -> str | None:
    link = root / name
    return link.readlink().name if link.is_symlink() and link.is_dir() else None


@contextmanager
def _alone(ask: Any) -> Iterator[Any]:
    """None where the device is ours during the block, else whose it is; an earlier call of the same is waited for."""
    BASE.mkdir(parents=True, exist_ok=True)
    with LOCK.open("a") as lock:
        if not _locked(lock):
            holder = json_of(LOCK)
            if holder.get("token") != ask["token"]:
                yield holder
                return
            fcntl.flock(lock, fcntl.LOCK_EX)
        LOCK.write_text(json.dumps({"token": ask["token"], "who": ask["who"], "pid": os.getpid()}))
        yield None


def _locked(lock: Any) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _root(ask: Any) -> Path:
    return Path(ask["root"]).expanduser().absolute()


if __name__ == "__main__":
    main()
