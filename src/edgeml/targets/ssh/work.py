"""A job on a device that SSH reaches. It runs there by itself: a connection that breaks neither ends nor slows it.

While it runs, one call waits on the device, asleep, and nothing is sent: not even the worker's progress, which would
wake the network in the middle of what is timed. A job is known by its digest, so that the same command finds it again.
"""

from __future__ import annotations

import getpass
import hashlib
import platform
import re
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets import local
from edgeml.targets.ssh.calls import FULL, Reached, busy, call, refusal
from edgeml.targets.ssh.connection import ConnectionLost
from edgeml.targets.ssh.needs import Needs, needs, remote_folder
from edgeml.targets.ssh.store import bring, plan
from edgeml_runtime.records import encode
from edgeml_runtime.tasks import task_of
from edgeml_runtime.types import Job, Outcome, Row

T = TypeVar("T")
PAUSES_S = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)  # before each further attempt; a Pi restarts in less than a minute
_GOES_ON = "run the same command again: it goes on there"
_PROGRESS = re.compile(r"@\d+/\d+ .*")  # which is no news any more when it arrives
_SIGNALLED = 128  # a shell adds it to the number of the signal that ended a program


def prepare(jobs: Sequence[Job], device: Reached, *, tell: Callable[[str], None], progress: Progress) -> None:
    """Bring all that these jobs need, so that nothing is sent between them; `tell` hears before what that takes.

    Where a job runs there already, nothing is sent yet: `run` finds out whether it is one of these.
    """
    variants = dict.fromkeys(folder for job in jobs for folder in _variants(job))
    pictures = dict.fromkeys(picture for job in jobs for picture in _pictures(job))
    wanted = needs(device, list(variants), list(pictures))
    planned = patiently(lambda: plan(device, wanted), progress)
    if planned.sentence:
        tell(planned.sentence)
    if planned.holder is None:
        patiently(lambda: _brought(device, wanted, progress), progress)


def run(job: Job, device: Reached, *, progress: Progress) -> Outcome:
    """Run a job on a device; what it needs is brought there first. Paths in the job and the outcome are this machine's.

    Raises EdgemlError with the worker's own words when it refuses or dies, or where another job runs there;
    ConnectionLost when the device stays away, and then the job goes on. An interrupt ends the job there.
    """
    wanted = needs(device, _variants(job), _pictures(job))
    sites = patiently(lambda: _brought(device, wanted, progress), progress)
    content = encode(_moved(job, device, wanted)).encode()
    ask = _asked(content, wanted, site=next(iter(sites.values())))
    one = {"job": ask["job"]}
    try:
        begun = patiently(lambda: _begun(device, ask, content), progress)
        progress(f"measure on {device.host}, which tells nothing while the clock runs", 0, 0)
        ended = patiently(lambda: call(device, "wait", one), progress)
    except KeyboardInterrupt:
        _end(device, one, progress)
        raise
    patiently(lambda: call(device, "drop", one), progress)
    if "lost" in ended:
        raise _lost(device.host, ended["lost"])
    if ended["code"] and not ended["answer"] and FULL in ended["said"]:
        raise refusal(device.host, {"full": True})
    return _outcome(job, _back(ended, device, wanted), _notes(device.host, begun, ended))


def _brought(device: Reached, wanted: Needs, progress: Progress) -> dict[str, str]:
    return bring(device, wanted, plan(device, wanted), progress=progress)


def _asked(content: bytes, wanted: Needs, *, site: str) -> dict[str, Any]:
    """What starts the job, under a name that tells it from any other, and from itself by another edgeml or library."""
    digest, runtime = hashlib.sha256(content).hexdigest(), wanted.runtime.digest
    name = hashlib.sha256(f"{digest} {runtime} {site}".encode()).hexdigest()
    return {"job": name, "sha256": digest, "who": who(), "site": site, "runtime": runtime}


def _end(device: Reached, one: dict[str, str], progress: Progress) -> None:
    try:
        call(device, "drop", one)
    except ConnectionLost as lost:
        progress(f"{lost.message}: the job goes on there", 0, 0)


def _begun(device: Reached, ask: dict[str, Any], content: bytes) -> Any:
    answer = call(device, "start", ask, content)
    if "busy" in answer:
        raise busy(device.host, answer["busy"])
    if "damaged" in answer:
        raise EdgemlError(f"the job did not arrive on {device.host} as it was sent", hint="run the same command again")
    return answer


def patiently(do: Callable[[], T], progress: Progress) -> T:
    """What `do` returns, tried again after each pause where the connection is lost."""
    for pause_s in PAUSES_S:
        try:
            return do()
        except ConnectionLost as lost:
            progress(f"{lost.message}: again in {pause_s:g} s", 0, 0)
        time.sleep(pause_s)
    try:
        return do()
    except ConnectionLost as lost:
        raise ConnectionLost(lost.message, hint=_GOES_ON) from lost


def _variants(job: Job) -> list[Path]:
    return [Path(folder) for folder in (job.variant, job.reference) if folder]


def _pictures(job: Job) -> list[Path]:
    """Files that the rows name, each once."""
    if "file" not in task_of(job.task).COLUMNS:
        return []
    return list(dict.fromkeys(Path(row["file"]) for row in (*job.rows, *job.reference_rows)))


def _moved(job: Job, device: Reached, wanted: Needs) -> Job:
    """The job with the device's paths."""
    there = {str(folder): remote_folder(device, tree) for folder, tree in wanted.folders.items()}
    home = remote_folder(device, wanted.pictures)
    there |= {str(piece.content): f"{home}/{name}" for name, piece in wanted.pictures.pieces.items()}
    return replace(
        job,
        variant=there[job.variant],
        reference=there[job.reference] if job.reference else None,
        rows=tuple(_moved_row(row, there) for row in job.rows),
        reference_rows=tuple(_moved_row(row, there) for row in job.reference_rows),
    )


def _moved_row(row: Row, there: dict[str, str]) -> Row:
    return {**row, "file": there[row["file"]]} if row.get("file") in there else row


def _back(ended: Any, device: Reached, wanted: Needs) -> Any:
    """How the job ended, with this machine's paths in all that it said."""
    home = remote_folder(device, wanted.pictures)
    here = {remote_folder(device, tree): str(folder) for folder, tree in wanted.folders.items()}
    here |= {f"{home}/{name}": str(piece.content) for name, piece in wanted.pictures.pieces.items()}
    trees = re.escape(home.rpartition("/")[0])
    pattern = re.compile(rf"{trees}/[0-9a-f]{{64}}(/\d{{6}}(\.\w+)?)?")
    return {
        key: pattern.sub(lambda found: here.get(found[0], found[0]), value) if key in ("answer", "said") else value
        for key, value in ended.items()
    }


def _outcome(job: Job, ended: Any, notes: list[str]) -> Outcome:
    code = ended["code"] if ended["code"] <= _SIGNALLED else _SIGNALLED - ended["code"]
    said = [line for line in ended["said"].splitlines() if not _PROGRESS.fullmatch(line)]
    outcome = local.outcome(job, local.Ended(code, ended["answer"], said))
    return replace(outcome, warnings=(*notes, *outcome.warnings))


def _notes(host: str, begun: Any, ended: Any) -> list[str]:
    """What to know of a job that went through more than one command."""
    if begun["found"] == "ended":
        started = datetime.fromtimestamp(ended["started_unix_s"], UTC).isoformat(timespec="seconds")
        return [f"measured before this command, which found it on {host}: started {started} by its clock"]
    if begun.get("lost") == "restarted":
        return [f"{host} restarted in the middle of an earlier attempt"]
    return []


def _lost(host: str, why: str) -> EdgemlError:
    if why == "restarted":
        hint = "a weak power supply does that to a Raspberry Pi; the same command starts it anew"
        return EdgemlError(f"{host} restarted while it measured, and the job is lost", hint=hint)
    if why == "killed":
        hint = f"its memory may have run out: ssh {host} dmesg; the same command starts it anew"
        return EdgemlError(f"the job was killed on {host} with all that belongs to it", hint=hint)
    return EdgemlError(f"the job was removed from {host} while it ran", hint="the same command starts it anew")


def who() -> str:
    """Who asks a device for something, as others there are told."""
    return f"{getpass.getuser()}@{platform.node()}"
