"""A device's side of a bench over SSH: keeps files by their digest, runs one job at a time, outlives the connection.

The standard library alone, in one file: its text is what the first call runs, before anything else is there. A call is
`python3 -I -S -c TEXT COMMAND`; on stdin a line of JSON asks, and bytes may follow; on stdout a line of JSON answers.

All of it lies in `~/.cache/edgeml/bench`: `files/<sha256>` are complete under that name, `trees/<digest>` are folders
of links to them, `jobs/<digest>` one job each. Whoever runs a job holds `lock`, and the lock in the job's folder: the
system gives both back when the last of its processes is gone, however it went, and wakes who waits for it, who costs
nothing until then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

ANSWER = b"\n@edgeml "  # begins the answer: a login script may have said something before
BASE = Path.home() / ".cache" / "edgeml" / "bench"
FILES, TREES, JOBS, LOCK = BASE / "files", BASE / "trees", BASE / "jobs", BASE / "lock"
_CHUNK_BYTES = 1 << 20
_SAID_BYTES = 1 << 16  # of a worker's last words
_FULL = (errno.ENOSPC, errno.EDQUOT)
_ENVIRONMENT = {"GGML_NO_BACKTRACE": "1"}  # else llama.cpp starts a debugger when it aborts
# The worker writes into files, so that nothing of it hangs on the connection. Its exit code comes last, and at once.
_WORK = (
    '"$0" -P -m edgeml_runtime.worker < job.json > answer.json.part 2> said.txt; code=$?; '
    "mv answer.json.part answer.json; echo $code > ended.part; mv ended.part ended"
)


def look(ask: Any, _content: IO[bytes]) -> Any:
    """Which of the `trees` are not made yet, and which of their files are missing, with the bytes that came of each.

    Sizes are compared, since a device that loses its power keeps names of which it never wrote the content.
    """
    missing = [
        tree
        for tree, files in ask["trees"].items()
        if not all(_has(TREES / tree / path, size) for path, (_, size) in files.items())
    ]
    files = dict(file for tree in missing for file in ask["trees"][tree].values())
    sites = {tree: site for tree in ask["trees"] if (site := _site(tree))}
    return {
        "first": not BASE.exists(),
        "trees": missing,
        "files": {file: _came(file) for file, size in sorted(files.items()) if not _has(FILES / file, size)},
        "sites": sites,
        "free_bytes": shutil.disk_usage(_existing(BASE)).free,
        "busy": _holder(),
    }


def sink(_ask: Any, content: IO[bytes]) -> Any:
    """Reads what comes and keeps nothing: how fast the way here is."""
    count = 0
    while chunk := content.read(_CHUNK_BYTES):
        count += len(chunk)
    return {"count": count}


def receive(ask: Any, content: IO[bytes]) -> Any:
    """Adds to files what follows; one that has all its bytes gets its name if they are the right ones."""
    _folder(FILES)
    return {"damaged": [piece["sha256"] for piece in ask["pieces"] if not _take(piece, content)]}


def make(ask: Any, _content: IO[bytes]) -> Any:
    """Makes folders of links to files, each at once under its name."""
    import compileall  # slow to load itself, and every call would

    _folder(TREES)
    for digest, files in ask["trees"].items():
        shutil.rmtree(TREES / digest, ignore_errors=True)  # it would be there only with something missing
        with _fresh(TREES / digest) as part:
            for path, file in files.items():
                (part / path).parent.mkdir(parents=True, exist_ok=True)
                _link(FILES / file, part / path)
            compileall.compile_dir(part, quiet=2)  # our own code: compiled now, not while something is timed
    return {}


def unpack(ask: Any, _content: IO[bytes]) -> Any:
    """The folder that a tree of wheels was unpacked to, each of its packages loaded once.

    That shows whether they run here, and leaves them compiled. `loads` are the programs that load those which a plain
    import would not do for.
    """
    runtime = str(TREES / ask["runtime"])
    done = _python(ask, runtime, "-m", "edgeml_runtime", "prepare", str(TREES / ask["tree"]))
    if done.returncode:
        return {"failed": done.returncode, "said": done.stderr}
    site = done.stdout.strip().rpartition("\n")[2]
    for name in sorted(path.parent.name for path in Path(site).glob("*/__init__.py")):
        done = _python(ask, os.pathsep.join([runtime, site]), "-c", ask["loads"].get(name, f"import {name}"))
        if done.returncode:
            return {"package": name, "failed": done.returncode, "said": done.stderr}
    os.sync()  # a device may lose its power at any time, and nobody would compare the sizes of these
    (TREES / f"{ask['tree']}.site").write_text(site)
    return {"site": site}


def start(ask: Any, content: IO[bytes]) -> Any:
    """Starts the job that follows, unless it is here already: `found` tells it `running` or `ended`.

    `lost` is why an earlier attempt at it ended with nothing. `busy` is whose other job runs.
    """
    _folder(BASE)
    folder = JOBS / ask["job"]
    with LOCK.open("a") as lock:
        while not _locked(lock):
            if holder := _holder():  # else it ended just now
                return {"found": "running"} if holder.get("job") == ask["job"] else {"busy": holder}
        if (folder / "ended").exists():
            return {"found": "ended"}
        lost = _lost(folder) if folder.exists() else None
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        (folder / "job.json").write_bytes(job := content.read())
        if hashlib.sha256(job).hexdigest() != ask["sha256"]:
            shutil.rmtree(folder)
            return {"damaged": [ask["job"]]}
        _launch(ask, folder, lock)
    return {"found": None, "lost": lost}


def wait(ask: Any, _content: IO[bytes]) -> Any:
    """How the job ended, once it has, with the worker's own answer. `lost` is why there is none."""
    folder = JOBS / ask["job"]
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # sleeps in the kernel
    if not (folder / "ended").exists():
        return {"lost": _lost(folder)}
    answer = folder / "answer.json"
    return {
        "code": int((folder / "ended").read_text()),
        "said": _tail(folder / "said.txt"),
        "started_unix_s": _state(folder).get("unix_s"),
        "answer": answer.read_text(encoding="utf-8") if answer.exists() else "",
    }


def drop(ask: Any, _content: IO[bytes]) -> Any:
    """Removes a job, and ends it where it still runs."""
    folder = JOBS / ask["job"]
    with contextlib.suppress(FileNotFoundError), (folder / "lock").open() as lock:
        if not _locked(lock):  # so that its number is still its own
            with contextlib.suppress(ProcessLookupError):
                os.killpg(_state(folder)["pid"], signal.SIGKILL)
            fcntl.flock(lock, fcntl.LOCK_EX)
    shutil.rmtree(folder, ignore_errors=True)
    return {}


def clean(_ask: Any, _content: IO[bytes]) -> Any:
    """Removes all that was brought here, unless a job runs; the bytes that this freed."""
    if busy := _holder():
        return {"busy": busy}
    found = [path.lstat() for path in BASE.rglob("*") if path.is_file()]
    if BASE.exists():
        shutil.rmtree(BASE)
    return {"freed_bytes": sum({stat.st_ino: stat.st_size for stat in found}.values())}  # links count once


COMMANDS: dict[str, Callable[[Any, IO[bytes]], Any]] = {
    command.__name__: command for command in (look, sink, receive, make, unpack, start, wait, drop, clean)
}


def main() -> None:
    """Carry out one command."""
    ask = json.loads(sys.stdin.buffer.readline())
    try:
        answer = COMMANDS[sys.argv[1]](ask, sys.stdin.buffer)
    except OSError as error:
        answer = {"refused": error.strerror, "file": str(error.filename or BASE), "full": error.errno in _FULL}
    sys.stdout.buffer.write(ANSWER + json.dumps(answer).encode())


def _take(piece: Any, content: IO[bytes]) -> bool:
    """Whether the file is right so far.

    What a broken connection brought stays, what a full disk or another sender spoilt does not.
    """
    part = _part(piece["sha256"])
    try:
        with part.open("ab" if piece["offset"] else "wb") as file:
            left, is_next = piece["count"], file.tell() == piece["offset"]
            while left and (chunk := content.read(min(left, _CHUNK_BYTES))):
                file.write(chunk)
                left -= len(chunk)
    except OSError:
        part.unlink(missing_ok=True)
        raise
    if is_next and (left or piece["offset"] + piece["count"] < piece["size_bytes"]):
        return True
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != piece["sha256"]:
        part.unlink()
        return False
    os.replace(part, FILES / piece["sha256"])
    return True


def _launch(ask: Any, folder: Path, lock: IO[str]) -> None:
    """Start the work in a session of its own, which holds both locks from now on."""
    state = {"job": ask["job"], "who": ask["who"], "boot": _boot(), "uptime_s": time.monotonic(), "unix_s": time.time()}
    path = os.pathsep.join([str(TREES / ask["runtime"]), ask["site"]])
    with (folder / "lock").open("a") as own:
        fcntl.flock(own, fcntl.LOCK_EX)
        child = subprocess.Popen(
            ["sh", "-c", _WORK, ask["python"]],
            cwd=folder,
            env=os.environ | _ENVIRONMENT | {"PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock.fileno(), own.fileno()),
        )
        text = json.dumps(state | {"pid": child.pid})
        (folder / "state.json").write_text(text)
        LOCK.write_text(text)
    child.returncode = 0  # it lives on without us, which is no mistake


def _python(ask: Any, path: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [ask["python"], "-P", *arguments]
    own = {"PYTHONPATH": path, "ORT_DISABLE_TELEMETRY": "1"}  # as edgeml_runtime sets it, which is not always imported
    return subprocess.run(command, env=os.environ | own, capture_output=True, text=True, check=False)


def _holder() -> Any:
    """Who runs a job here and for how long; None where nobody does."""
    if not LOCK.exists():
        return None
    with LOCK.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            state = json.loads(lock.read() or "{}")
            return {**state, "for_s": time.monotonic() - state.get("uptime_s", time.monotonic())}
    return None


def _locked(file: IO[str]) -> bool:
    """Whether the lock is ours now; one who only looks holds it for a moment."""
    for _ in range(5):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.05)
        else:
            return True
    return False


def _lost(folder: Path) -> str:
    """Why a job that nobody runs has no end: it was removed, the device restarted, or all of it was killed."""
    if not (folder / "state.json").exists():
        return "removed"
    return "killed" if _state(folder)["boot"] == _boot() else "restarted"


def _state(folder: Path) -> Any:
    path = folder / "state.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _boot() -> str:
    """A word that changes with every start of the system."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        command = ["sysctl", "-n", "kern.bootsessionuuid"]  # macOS
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _folder(path: Path) -> None:
    """The folder is there; a job holds the user's data, so that nobody else may look into what is ours."""
    path.mkdir(parents=True, exist_ok=True)
    BASE.chmod(0o700)


def _link(file: Path, goal: Path) -> None:
    try:
        os.link(file, goal)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EMLINK):
            raise
        shutil.copyfile(file, goal)  # Android allows no links, and FAT knows none


def _has(path: Path, size_bytes: int) -> bool:
    return path.exists() and path.stat().st_size == size_bytes


def _site(tree: str) -> str | None:
    """Where the wheels of a tree were unpacked, if they still are there."""
    path = TREES / f"{tree}.site"
    site = path.read_text() if path.exists() else None
    return site if site and Path(site).is_dir() else None


def _part(digest: str) -> Path:
    return FILES / f"{digest}.part"


def _came(file: str) -> int:
    part = _part(file)
    return part.stat().st_size if part.exists() else 0


def _tail(path: Path) -> str:
    return path.read_bytes()[-_SAID_BYTES:].decode(errors="replace")


def _existing(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.exists())


@contextlib.contextmanager
def _fresh(goal: Path) -> Iterator[Path]:
    part = goal.with_name(f"{goal.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    try:
        yield part
        if not goal.is_dir():
            os.replace(part, goal)
    finally:
        shutil.rmtree(part, ignore_errors=True)


if __name__ == "__main__":
    main()
