"""Runs a bundle where there is no network, and tells whether anything that it was asked is found afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import edgeml
import edgeml_runtime
from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.privacy import inside
from edgeml.privacy.asking import REQUESTS
from edgeml.privacy.canaries import Stems, canaries, stems
from edgeml.privacy.confinement import UNSHARE, shared_places
from edgeml.privacy.forms import FORMS
from edgeml.privacy.search import Marks, Search
from edgeml.privacy.types import Plan, Privacy, Seen, Trace
from edgeml_runtime.bundle import SITE, VARIANT
from edgeml_runtime.errors import counted
from edgeml_runtime.feedback.device import NAME as STORE
from edgeml_runtime.records import read_record, write_record

STEPS = (
    "predict",
    "predict, broken",
    *REQUESTS,
    *inside.FEEDBACK,
)
LIMITS = (
    "memory, swap and blocks of a disk that no file shows",
    "files that were deleted before the end, but those of feedback, which are looked at while it runs, too",
    "what is written only after days, a crash, or on another device",
    "marks that are encrypted, compressed as no common archive, or kept in pieces under eight characters",
    "what goes through a socket in the file system, such as a system's log or bus",
    "what a process tries only where it sees a network",
)
_OTHERS = ("all of these while it ran", "the bundle's folder", "stdout and stderr of every command", "/metrics")
_WRITTEN = (inside.HOME, inside.TMP, inside.STATE, inside.ELSEWHERE)
_LEAST = 3  # traces that are named in full when there are more


def check_privacy(folder: Path, space: Path, *, own: bool) -> Privacy:
    """What was tried and found for a bundle's folder, which the run may change.

    `space` is a new folder beside it, of this check's own. `own` runs the bundle's own code, as on a device; else
    edgeml's runtime runs its model. Raises EdgemlError naming each place with a mark where none may be, or the step
    that tried to connect. Ask `reason_against` before.
    """
    folder, space, common = folder.resolve(), space.resolve(), stems()
    plan = _prepared(folder, space, common, own=own)
    before = set(folder.rglob("*"))
    seen = _run(plan, space)
    marks = Marks(common, plan.canaries.values(), seen.answers, _tokenizer(folder))
    search = Search(marks)
    places = _searched(search, plan)
    totals = search.totals
    found = tuple(_judged(one) for one in (*search.found, *_unexpected(plan, before)))
    limits = LIMITS if seen.read_only else (*LIMITS, "files elsewhere: this system's could not be made read-only")
    if totals.unread:
        limits = (*limits, f"{counted(totals.unread, 'file')} that nobody but others may read")
    privacy = Privacy(
        runtime="its own" if own else "edgeml's own",
        tried=seen.tried,
        places=places,
        files=totals.files,
        bytes=totals.bytes,
        forms=FORMS,
        found=found,
        limits=limits,
    )
    _require_clean(privacy)
    return privacy


def in_short(privacy: Privacy) -> str:
    """What was done, in a line; what it could not see is in the record."""
    tried = [one for one in privacy.tried if not one.end.startswith("not tried")]
    missed = [one.what for one in privacy.tried if one.end.startswith("not tried")]
    more = f"; not tried: {', '.join(missed)}" if missed else ""
    kept = sum(one.expected is not None for one in privacy.found)
    told = f"; {kept} traces where feedback or the answer itself belongs" if kept else ""
    size = f"{privacy.files} files, {privacy.bytes / 1e6:.1f} MB, {len(privacy.forms)} kinds of spelling"
    return (
        f"{len(tried)} things tried with marked inputs by {privacy.runtime} runtime, nothing left in {size}, "
        f"and no attempt to connect{told}{more}"
    )


def _prepared(folder: Path, space: Path, common: Stems, *, own: bool) -> Plan:
    for name in (inside.GIVEN, inside.LOGS, inside.COPIES, *_WRITTEN):
        (space / name).mkdir(parents=True)
    places = {place: space.resolve() / inside.ELSEWHERE / str(number) for number, place in enumerate(shared_places())}
    for stands_for_it in places.values():
        stands_for_it.mkdir()
    return Plan(
        folder=str(folder.resolve()),
        space=str(space.resolve()),
        home=str(folder.resolve() if own else Path(edgeml_runtime.__path__[0]).parent),
        own=own,
        places={place: str(ours) for place, ours in places.items()},
        canaries=canaries(STEPS, common),
    )


def _run(plan: Plan, space: Path) -> Seen:
    """Carry out the plan where there is no network."""
    paths = (space / inside.GIVEN / "plan.json", space / "seen.json")
    write_record(paths[0], plan)
    home = os.pathsep.join(dict.fromkeys(str(Path(one.__path__[0]).parent) for one in (edgeml, edgeml_runtime)))
    command = (*UNSHARE, sys.executable, "-P", "-B", "-m", "edgeml.privacy.inside", *map(str, paths))
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "start_new_session": True}
    with started(command, env=os.environ | {"PYTHONPATH": home}, **options) as child:
        complaints = child.communicate()[1]
    if child.returncode:
        words = complaints.strip().rpartition("\n")[2] or "no word"
        raise EdgemlError(f"the check of privacy ended with code {child.returncode}: {words}", hint="tell us")
    return read_record(paths[1], Seen)


def _searched(search: Search, plan: Plan) -> tuple[str, ...]:
    """Search all that the run wrote, but wheels that were unpacked before there was a mark; the places' names."""
    folder, space = Path(plan.folder), Path(plan.space)
    stamp = (space / inside.STAMP).stat().st_mtime_ns
    for name in (*_WRITTEN, inside.COPIES, inside.LOGS):
        for path in _files(space / name, lambda path: not _unpacked(path) or path.lstat().st_ctime_ns >= stamp):
            search.file(path, _place(path, plan))
    for path in _files(folder, lambda path: path.lstat().st_ctime_ns >= stamp):
        search.file(path, _place(path, plan))
    return ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME", "TMPDIR", "feedback's folder", *plan.places, *_OTHERS)


def _place(path: Path, plan: Plan) -> str:
    """A file as a person knows it."""
    for place, ours in plan.places.items():
        if path.is_relative_to(ours):
            return str(place / path.relative_to(ours))
    if path.is_relative_to(plan.folder):
        return f"the bundle's {path.relative_to(plan.folder).as_posix()}"
    return path.relative_to(plan.space).as_posix()


def _files(folder: Path, wanted: Callable[[Path], bool]) -> Iterator[Path]:
    for root, folders, names in os.walk(folder):
        links = [name for name in folders if Path(root, name).is_symlink()]
        yield from filter(wanted, (Path(root, name) for name in (*names, *links)))


def _unexpected(plan: Plan, before: set[Path]) -> Iterator[Trace]:
    """Files that no command has a reason to leave, marked or not: an identity of the device is one, or a core."""
    folder, space = Path(plan.folder), Path(plan.space)
    for name in _WRITTEN:
        for path in _files(space / name, lambda path: not _unpacked(path) and not _is_feedback(path)):
            yield Trace(place=_place(path, plan), what="file", form="left behind", step="any")
    for path in _files(folder, lambda path: path not in before and not _unpacked(path)):
        yield Trace(place=_place(path, plan), what="file", form="left behind", step="any")


def _unpacked(path: Path) -> bool:
    return any(part.startswith(SITE) or part == "__pycache__" for part in path.parts)


def _is_feedback(path: Path) -> bool:
    return path.name == STORE and path.parent.name in inside.FEEDBACK[1:]


def _judged(one: Trace) -> Trace:
    """A trace with the reason why it may be there, if there is one."""
    name = Path(one.place).name
    if one.place.startswith(f"{inside.LOGS}/predict") and one.place.endswith(" stdout"):
        reason = "the answer that was asked for"
    elif (
        (name.startswith(STORE) and Path(one.place).parent.name == inside.FEEDBACK[1])
        and one.step.startswith((inside.FEEDBACK[1], "one of"))
        and one.what in ("words", "accents", "digest")
    ):
        reason = "feedback was told to keep it, and redacts numbers and addresses"
    else:
        return one
    return Trace(place=one.place, what=one.what, form=one.form, step=one.step, expected=reason)


def _require_clean(privacy: Privacy) -> None:
    hint = "do not ship this bundle: what it is asked does not stay with whoever asks"
    bad = {f"{one.place} ({_called(one)})": None for one in privacy.found if one.expected is None}
    if bad:
        named, more = list(bad)[:_LEAST], len(bad) - _LEAST
        rest = f", and {more} more" if more > 0 else ""
        raise EdgemlError(f"an input, or what tells of one, was left in {'; '.join(named)}{rest}", hint=hint)
    if loud := [one for one in privacy.tried if one.unrouted or one.local]:
        count = sum(one.unrouted + one.local for one in loud)
        raise EdgemlError(f"the bundle tried to connect {counted(count, 'time')}, during: {loud[0].what}", hint=hint)


def _called(one: Trace) -> str:
    if one.what == "file":
        return "a file that nothing asked for"
    return f"{one.what} of {one.step!r}, as {one.form}"


def _tokenizer(folder: Path) -> Callable[[str], Sequence[int]] | None:
    """Token ids of a text, where the bundle has a tokenizer that can be read without its model."""
    path = folder / VARIANT / "tokenizer.json"
    if not path.is_file():
        return None
    from tokenizers import Tokenizer

    found = Tokenizer.from_str(json.dumps(json.loads(path.read_bytes())))
    return lambda text: list(found.encode(text, add_special_tokens=False).ids)
