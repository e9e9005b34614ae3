"""A Debian of any architecture to install packages in: real programs, a real dpkg, its own users and processes.

It is made of the packages of this machine's release, unpacked and taken for installed; nothing of the machine is
touched. Programs for aarch64 run by an emulator that the root's own kernel namespace knows of. No systemd runs in it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources.apt import check_apt, fetch_packages
from edgeml.store import cache_folder
from edgeml.targets.emulator import made_once
from ssh_server import AARCH64

_SYSTEM = (
    *("base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "login", "mawk", "passwd", "perl-base", "python3", "sed", "tar"),
    *("util-linux", "libstdc++6", "zlib1g"),
)
_LOOPBACK = (
    "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sh', b'lo', 1))"  # IFF_UP
)
# The user's map is written from outside: whoever unshares may not map more than itself.
_ENTER = """
read -r mapped
[ -z "$EMULATOR" ] || {{
    mount -t binfmt_misc binfmt /proc/sys/fs/binfmt_misc
    printf '%s' ':aarch64:M::{magic}:{emulator}:F' > /proc/sys/fs/binfmt_misc/register
}}
mount --bind {own}/root {own}/root
cd {own}/root
mount -t proc proc proc
mount --rbind /sys sys
[ ! -f {own}/cpuinfo ] || mount --bind {own}/cpuinfo proc/cpuinfo
mount -t tmpfs run run
{loopback}
for device in null zero urandom full; do : > dev/$device; mount --bind /dev/$device dev/$device; done
exec chroot . /bin/sh -ec "$SCRIPT"
"""


class DebianRoot:
    """One root that starts as the copy of a system and keeps what is done in it below `own`."""

    def __init__(
        self, system: Path, own: Path, *, emulator: Path | None = None, cpu: str = "", cpuinfo: str = ""
    ) -> None:
        self.own, self._cpu, self._emulated = own, cpu, emulator is not None
        own.mkdir(parents=True)
        subprocess.run(["cp", "-a", "--reflink=auto", system, own / "root"], check=True)
        if cpuinfo:
            (own / "cpuinfo").write_text(cpuinfo)
        self._enter = _ENTER.format(
            magic=AARCH64, emulator=emulator, own=own, loopback=f'{sys.executable} -c "{_LOOPBACK}"'
        )

    def put(self, *paths: Path) -> None:
        """Replace what lies in its /srv by copies of files."""
        for path in (self.own / "root/srv").iterdir():
            path.unlink()
        for path in paths:
            shutil.copyfile(path, self.own / "root/srv" / path.name)

    def run(self, script: str) -> subprocess.CompletedProcess[str]:
        """What a shell of root's does with a script there."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "SCRIPT": script, "HOME": "/root"}
        environment |= {"EMULATOR": "yes" if self._emulated else "", "QEMU_CPU": self._cpu}
        command = ["unshare", "--user", "--mount", "--pid", "--net", "--fork", "--kill-child", "sh", "-ec", self._enter]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with subprocess.Popen(command, env=environment, text=True, **pipes) as child:
            _map_users(child.pid)
            out, err = child.communicate("mapped\n")
        return subprocess.CompletedProcess(script, child.returncode, out, err)

    def files(self) -> list[str]:
        """Every path that it has, but for those of dpkg's own records and what the kernel shows."""
        found = self.run("find / -xdev -not -path '/var/lib/dpkg/*' -not -path '/var/log/*' -not -path '/srv*'")
        return sorted(found.stdout.splitlines())


def debian_root(own: Path, architecture: str, *, more: str | None = None, **emulated: object) -> DebianRoot:
    """A root for `arm64` or `amd64`, with one `more` package; the test is skipped where there can be none."""
    if os.name == "nt" or os.geteuid() != 0:
        pytest.skip("only root may give a root of its own its users")
    try:
        check_apt()
    except EdgemlError as error:
        pytest.skip(error.message)
    if not shutil.which("unshare"):
        pytest.skip("no unshare here")
    root = DebianRoot(_system(architecture, more), own, **emulated)
    tried = root.run("true")
    if tried.returncode:
        pytest.skip(f"no root of its own can be entered here: {tried.stderr.strip()[-200:]}")
    return root


def _map_users(pid: int) -> None:
    """Give a child that is entering its namespace the machine's own first 65536 users."""
    own = Path("/proc/self/ns/user").readlink()
    with contextlib.suppress(OSError):  # it ended: its own words say why
        while Path(f"/proc/{pid}/ns/user").readlink() == own:
            os.sched_yield()
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{kind}").write_text("0 0 65536")


def _system(architecture: str, more: str | None = None) -> Path:
    goal = cache_folder().absolute() / "tests" / "-".join(filter(None, ("debian", architecture, more)))
    goal.parent.mkdir(parents=True, exist_ok=True)
    with (goal.parent / "lock").open("w") as lock:  # tests run in several processes: one makes it for all
        fcntl.flock(lock, fcntl.LOCK_EX)
        return made_once(goal, lambda folder: _make(folder, architecture, more))


def _make(folder: Path, architecture: str, more: str | None) -> None:
    folder.chmod(0o755)
    for name in ("proc", "sys", "dev", "run", "tmp", "srv", "var/lib/dpkg/info", "var/lib/dpkg/updates"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "tmp").chmod(0o1777)
    wanted = (*_SYSTEM, *filter(None, (more,)))
    found = fetch_packages(wanted, architecture, folder.with_name("packages"), step="fetch", progress=silent)
    records = [_unpack(package, folder) for package in found]
    (folder / "var/lib/dpkg/status").write_text("\n".join(records))
    if not (folder / "bin/sh").exists():  # dash's own script would make it
        (folder / "bin/sh").symlink_to("dash")
    for name in ("passwd", "group"):  # as base-passwd's own script does
        shutil.copyfile(folder / f"usr/share/base-passwd/{name}.master", folder / "etc" / name)


def _unpack(package: Path, folder: Path) -> str:
    """Put a package's files below a folder, and their list where dpkg looks; gives dpkg's record of it."""
    said = subprocess.run(["dpkg-deb", "-X", package, folder], check=True, capture_output=True, text=True).stdout
    record = subprocess.run(["dpkg-deb", "-f", package], check=True, capture_output=True, text=True).stdout.rstrip()
    fields = dict(line.split(": ", 1) for line in record.splitlines() if ": " in line and line[0] != " ")
    suffix = f":{fields['Architecture']}" if fields.get("Multi-Arch") == "same" else ""
    paths = [line.removeprefix(".").rstrip("/") or "/." for line in said.splitlines()]
    (folder / f"var/lib/dpkg/info/{fields['Package']}{suffix}.list").write_text("\n".join(paths) + "\n")
    return record.replace("\n", "\nStatus: install ok installed\n", 1) + "\n"
