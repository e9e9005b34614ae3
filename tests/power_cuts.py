"""What a disk may hold when the power goes: a program's changes, seen by strace, of which some had not arrived yet.

What was synced is there. Of what was not, ext4's rules hold, in their most unkind reading: a write may be there or not,
whatever became of those before it, and the last one that arrived may have stopped at a sector; names change in their
order, and a new name, another name or a removal is sure once the folder was synced, a new name once its file was.
"""

import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

SECTOR = 512
_CALLS = "openat,pwrite64,write,ftruncate,fsync,fdatasync,unlink,rename"
_LINE = re.compile(r"\d+ +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_NAMED = re.compile(r"<((?:\\x[0-9a-f]{2})*)>")
_QUOTED = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')


class Step(NamedTuple):
    """One change: `make`, `write`, `cut` (to `offset` bytes), `sync`, `remove`, `rename` (to `goal`); or an `ack`."""

    call: str
    path: str
    offset: int = 0
    data: bytes = b""
    goal: str = ""


def traced(command, folder):
    """The steps of a program that prints `ack ID`, as far as they change files of a folder, which is empty."""
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    log = Path(folder).with_name("strace.txt")
    strace = ["strace", "-f", "-y", "-xx", "-s", "1000000", "-e", f"trace={_CALLS}", "-o", log]
    done = subprocess.run([*strace, *command], capture_output=True, check=False, timeout=60)
    if b"ptrace" in done.stderr:
        pytest.skip("no tracing here")
    assert done.returncode == 0, done.stderr
    known, steps = set(), []
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if found and int(found["result"]) >= 0:
            steps += _steps(found["call"], found["arguments"], Path(folder), known)
    return steps


def _steps(call, arguments, folder, known):
    of = [_plain(one).decode() for one in _NAMED.findall(arguments)]
    quoted = [_plain(one) for one in _QUOTED.findall(arguments)]
    if call == "write" and quoted and quoted[0].startswith(b"ack "):
        yield Step("ack", quoted[0].split()[1].decode())
        return
    paths = [quoted[0].decode()] if call in ("openat", "unlink") else of
    if call == "rename":
        paths = [one.decode() for one in quoted]
    if not paths or not (Path(paths[0]).is_relative_to(folder)):
        return
    path = paths[0]
    if call == "openat" and "O_CREAT" in arguments and path not in known:
        known.add(path)
        yield Step("make", path)
    elif call == "pwrite64":
        yield Step("write", path, int(arguments.rpartition(", ")[2]), quoted[0])
    elif call == "ftruncate":
        yield Step("cut", path, int(arguments.rpartition(", ")[2]))
    elif call in ("fsync", "fdatasync"):
        yield Step("sync", path)
    elif call == "unlink":
        known.discard(path)
        yield Step("remove", path)
    elif call == "rename":
        yield Step("rename", path, goal=paths[1])
    else:
        assert call == "openat", f"{call} of {path} is not understood"


def _plain(text):
    return bytes.fromhex(text.replace("\\x", ""))


def cuts(steps, *, seed):
    """After each step what was acknowledged, and files by path: nothing unsynced, all of it, and two draws from it."""
    draw, disk, told = random.Random(seed), _Disk(), []
    for step in steps:
        if step.call == "ack":
            told.append(step.path)
        else:
            disk.do(step)
        yield list(told), disk.left(lambda: False, draw)
        yield list(told), disk.left(lambda: True, draw)
        for _ in range(2):
            yield list(told), disk.left(lambda: draw.random() < 0.5, draw)


class _Disk:
    """Files by number; names lead to them. What is waiting was not synced."""

    def __init__(self):
        self._sure, self._waiting = {}, {}  # by file: its bytes; its changes
        self._names, self._now, self._renamed = {}, {}, []  # sure names, those of now, changes of names in order

    def do(self, step):
        if step.call == "sync":
            self._sync(step.path)
        elif step.call in ("make", "remove", "rename"):
            number = len(self._sure) if step.call == "make" else self._now[step.path]
            if step.call == "make":
                self._sure[number], self._waiting[number] = b"", []
            self._renamed.append((step, number))
            _name(self._now, step, number)
        else:
            self._waiting[self._now[step.path]].append(step)

    def left(self, arrives, draw):
        names = dict(self._names)
        for step, number in self._renamed:
            if not arrives():
                break
            _name(names, step, number)
        return {path: self._content(number, arrives, draw) for path, number in names.items()}

    def _sync(self, path):
        number = self._now.get(path)
        if number is None:  # the folder
            self._names, self._renamed = dict(self._now), []
            return
        self._sure[number] = _done(self._sure[number], self._waiting[number])
        self._waiting[number] = []
        made = next((at for at, (step, of) in enumerate(self._renamed) if of == number and step.call == "make"), None)
        for step, of in self._renamed[: 0 if made is None else made + 1]:  # with all that came before it
            _name(self._names, step, of)
        self._renamed = self._renamed[0 if made is None else made + 1 :]

    def _content(self, number, arrives, draw):
        there = [step for step in self._waiting[number] if arrives()]
        if there and there[-1].call == "write" and len(there) < len(self._waiting[number]):
            last = there[-1]
            there[-1] = last._replace(data=last.data[: SECTOR * draw.randint(0, len(last.data) // SECTOR)])
        return _done(self._sure[number], there)


def _name(names, step, number):
    if step.call == "make":
        names[step.path] = number
    else:
        names.pop(step.path, None)
        if step.call == "rename":
            names[step.goal] = number


def _done(content, steps):
    data = bytearray(content)
    for step in steps:
        if step.call == "cut":
            data = data[: step.offset].ljust(step.offset, b"\0")
        else:
            data = data.ljust(step.offset, b"\0")
            data[step.offset : step.offset + len(step.data)] = step.data
    return bytes(data)
