"""One device over the system's `ssh`: run a script there, send files, fetch one. All share one connection."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from shlex import quote
from types import TracebackType
from typing import IO

from msgspec.structs import replace

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.targets.ssh import failures
from edgeml.targets.ssh.failures import ConnectionLost, Unreachable
from edgeml_runtime.types import Record

__all__ = ["Connection", "ConnectionLost", "Done", "Unreachable", "quoted"]

_BEGINS = b"-- edgeml --\n"  # a login shell may greet before
LOST = 255  # ssh's own exit code; a script that ends with it is told as 254
_TICK_S = 0.1
# A socket's path has 104 bytes on macOS, of which ssh wants 17 for a name in between, and it reads spaces and % itself.
_FOLDER_OF_SOCKETS = re.compile(r"[\w/.+-]{1,60}")
# A shell that nobody logged in to knows few folders: programs of Homebrew and of the user would be missed.
_MORE_PROGRAMS = 'PATH="$PATH:/usr/local/bin:/opt/homebrew/bin:$HOME/.local/bin"; export PATH'
_OPTIONS = (
    "BatchMode=yes",
    "ConnectTimeout=10",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=3",
    "LogLevel=ERROR",  # else a banner would stand among what a script said
    "RemoteCommand=none",  # these are for a person who logs in, and would break a script
    "RequestTTY=no",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "ForwardX11=no",
)
_SHARES = sys.platform != "win32"  # its client cannot keep a connection for the next call, which makes its own


class Done(Record, frozen=True, kw_only=True):
    """How a script ended on the device, and what it wrote."""

    code: int
    out: bytes
    err: str


class Connection:
    """A way to `host`: `user@addr`, an alias of the user's SSH configuration, or `ssh://user@addr:port`.

    Nothing is contacted before the first call. `accept_new` trusts the key of a device that was never met; a changed
    key is refused always. `options` go to `ssh` as they are. As a context, it hangs up at the end.
    """

    def __init__(self, host: str, *, accept_new: bool = False, options: Sequence[str] = ()) -> None:
        self.host = _checked(host)
        self._more = [*options, *(["-o", "StrictHostKeyChecking=accept-new"] if accept_new else [])]
        self._folder: Path | None = None
        self._met = False

    def __enter__(self) -> Connection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def run(self, script: str, *, input: bytes | None = None, timeout_s: float | None = None) -> Done:
        """A POSIX shell script, run on the device in the user's home, whatever their login shell is.

        Raises ConnectionLost where the link breaks or `timeout_s` passes, another EdgemlError where it may not connect.
        """
        if input is None:
            return self._call(script, subprocess.DEVNULL, timeout_s=timeout_s)
        with tempfile.TemporaryFile() as file:
            file.write(input)
            file.seek(0)
            return self._call(script, file, timeout_s=timeout_s)

    def send(self, files: Sequence[Path], folder: str, *, progress: Progress, step: str) -> None:
        """Copy files into a folder of the device (absolute, or from its home), each whole or not at all.

        It travels through `cat`, so that progress counts bytes and the device needs no SFTP server.
        """
        total, before = sum(path.stat().st_size for path in files), 0
        for path in files:
            size = path.stat().st_size
            with path.open("rb", buffering=0) as file:
                done = self._call(
                    _taking(folder, path.name, size), file, tick=_report(file, progress, step, before, total)
                )
            if done.code:
                raise failures.unwritten(self.host, folder, done.err)
            before += size
            progress(step, before, total)

    def fetch(self, remote: str) -> bytes:
        """The content of one file of the device."""
        done = self.run(f"cat < {quote(remote)}")
        if done.code:
            said = failures.last_line(done.err)
            raise EdgemlError(
                f"cannot read {remote} on {self.host}: {said}", hint=f"look at it by hand: ssh {self.host}"
            )
        return done.out

    def close(self) -> None:
        """Hang up; the next call would connect again."""
        if self._folder is None:
            return
        if _SHARES:
            with started([*self._command(), "-O", "exit", "--", self.host], **_QUIET) as child:
                child.wait()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder = None

    def _call(
        self,
        script: str,
        stdin: IO[bytes] | int,
        *,
        timeout_s: float | None = None,
        tick: Callable[[], None] | None = None,
    ) -> Done:
        if shutil.which("ssh") is None:
            raise failures.no_client()
        command = [*self._command(), "--", self.host, quoted(script)]
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            with started(command, stdin=stdin, stdout=out, stderr=err, env=_environment()) as child:
                if not _ended(child, timeout_s, tick):
                    raise failures.slow(self.host, timeout_s or 0)
            out.seek(0)
            err.seek(0)
            done = Done(code=child.returncode, out=out.read(), err=err.read().decode(errors="replace"))
        if done.code == LOST or done.code < 0:
            raise failures.of_client(self.host, done.err, met=self._met)
        _, began, said = done.out.partition(_BEGINS)
        if not began:
            raise failures.no_shell(self.host, done.err or done.out.decode(errors="replace"))
        self._met = True
        return replace(done, out=said)

    def _command(self) -> list[str]:
        if self._folder is None:
            fit = not _SHARES or _FOLDER_OF_SOCKETS.fullmatch(tempfile.gettempdir())
            self._folder = Path(tempfile.mkdtemp(prefix="edgeml-", dir=None if fit else "/tmp"))  # noqa: S108 - mkdtemp's is private
        shared = ("ControlMaster=auto", "ControlPersist=60", f"ControlPath={self._folder}/s") if _SHARES else ()
        return ["ssh", "-T", *self._more, *(word for option in (*_OPTIONS, *shared) for word in ("-o", option))]


def quoted(script: str) -> str:
    """One command line that bash, dash, zsh, fish and tcsh all read as: run this with `sh`.

    Their quotes differ in what a backslash, a quote, `!` and a line's end mean, so that none of these is left in it.
    """
    plain = re.sub(r"[^ -~]|['\"\\$`!]", lambda found: "".join(f"\\0{byte:03o}" for byte in found[0].encode()), script)
    run = f'{_MORE_PROGRAMS}; (eval "$(printf %b "{plain}")"); code=$?; [ $code = {LOST} ] && code=254; exit $code'
    return f"sh -c 'echo {_BEGINS.decode().strip()}; {run}'"


_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _checked(host: str) -> str:
    if not re.fullmatch(r"[^\s-]\S*", host) or host.endswith("@"):
        raise EdgemlError(f"{host!r} names no device", hint="write user@address, such as pi@raspberrypi.local")
    return host


def _environment() -> dict[str, str]:
    return os.environ | {"LC_ALL": "C"}


def _taking(folder: str, name: str, size_bytes: int) -> str:
    """A script that keeps what it reads, if all of it comes: a link that breaks looks to `cat` like the end."""
    part, whole = quote(f"./{name}.part"), quote(f"./{name}")
    return (
        f"LC_ALL=C; export LC_ALL; mkdir -p {quote(folder)} && cd {quote(folder)} || exit 1\n"
        f"cat > {part} && [ $(wc -c < {part}) -eq {size_bytes} ] && mv -f {part} {whole} && exit 0\n"
        f"rm -f {part}; exit 1"
    )


def _report(file: IO[bytes], progress: Progress, step: str, before: int, total: int) -> Callable[[], None]:
    """How far ssh has read, which shares the file's place with us."""
    return lambda: progress(step, before + os.lseek(file.fileno(), 0, os.SEEK_CUR), total)


def _ended(child: subprocess.Popen[str], timeout_s: float | None, tick: Callable[[], None] | None) -> bool:
    """Whether it ended within the time; `tick` is called now and then."""
    while True:
        try:
            child.wait(_TICK_S if tick else timeout_s)
        except subprocess.TimeoutExpired:
            if tick is None:
                return False
            tick()
        else:
            return True
