"""A real registry on loopback and a client of images, of Debian's packages, kept in the cache; and images as roots."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources.apt import check_apt, fetch_packages, unpack
from edgeml.store import cache_folder
from edgeml.targets.emulator import made_once

_WANTED = re.compile(r"usr/bin/(skopeo|docker-registry)|(usr/)?lib/[^/]+/lib(gpgme|assuan|gpg-error|devmapper)\.so.*")
_ENTER = """
mount --rbind /sys "$ROOT/sys"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --rbind /dev "$ROOT/dev"
[ -z "$CPUINFO" ] || mount --bind "$CPUINFO" "$ROOT/proc/cpuinfo"
ip link set lo up 2>/dev/null || true
cd "$ROOT"
exec "$@"
"""


def tools() -> Path:
    """The folder with both programs and their libraries; the test is skipped where there can be none."""
    if os.uname().machine != "x86_64":
        pytest.skip("for amd64 alone")
    try:
        check_apt()
    except EdgemlError as error:
        pytest.skip(error.message)
    goal = cache_folder().absolute() / "tests" / "registry"
    goal.parent.mkdir(parents=True, exist_ok=True)
    with (goal.parent / "lock").open("w") as lock:  # tests run in several processes: one fetches for all
        fcntl.flock(lock, fcntl.LOCK_EX)
        return made_once(goal, _add_tools)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """The address of a registry that keeps what it gets in `folder`."""
    home, port = tools(), _free_port()
    config = folder / "config.yml"
    storage = f"storage: {{filesystem: {{rootdirectory: {folder}/data}}}}"
    config.write_text(f"version: 0.1\nlog: {{level: error}}\n{storage}\nhttp: {{addr: 127.0.0.1:{port}}}\n")
    environment = {"PATH": "/usr/bin", "OTEL_TRACES_EXPORTER": "none"}
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([home / "usr/bin/docker-registry", "serve", config], env=environment, **quiet) as child:
        try:
            _wait(f"http://127.0.0.1:{port}/v2/")
            yield f"127.0.0.1:{port}"
        finally:
            child.terminate()


def skopeo(*arguments: object) -> str:
    """What skopeo says; any error fails the test."""
    home = tools()
    libraries = ":".join(str(path) for path in home.glob("**/x86_64-linux-gnu"))
    policy = home / "policy.json"
    if not policy.exists():
        policy.write_text('{"default":[{"type":"insecureAcceptAnything"}]}')
    command = [home / "usr/bin/skopeo", "--policy", policy, *arguments]
    environment = {"PATH": "/usr/bin", "LD_LIBRARY_PATH": libraries, "HOME": str(home)}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


class ImageRoot:
    """An image's layers as a root, whose programs run as its configuration says, without a network."""

    def __init__(self, layers: list[Path], config: dict[str, Any], root: Path) -> None:
        if os.geteuid() != 0 or not shutil.which("unshare"):
            pytest.skip("only root may enter a root of its own")
        self.root, self._config = root, config
        for layer in layers:
            with tarfile.open(layer) as archive:
                archive.extractall(root, filter="tar")
        for name in ("proc", "sys", "dev"):
            (root / name).mkdir(exist_ok=True)

    def command(self, *arguments: str, emulator: tuple[str, ...] = (), python: tuple[str, ...] = ()) -> list[str]:
        """What runs the image's entrypoint with other arguments, in namespaces of its own."""
        own = self._config["config"]
        started = python or (*own["Entrypoint"], *arguments)
        inside = "import os, sys; os.chdir(sys.argv[1]); os.execv(sys.argv[2], sys.argv[2:])"
        enter = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-ec", _ENTER, "sh"]
        environment = ["env", "-i", *own["Env"]]
        user = f"--userspec={own['User']}"
        chroot = ["/usr/sbin/chroot", user, str(self.root), *emulator]
        start = [own["Entrypoint"][0], "-c", inside, own["WorkingDir"]]
        return [*enter, *environment, *chroot, *start, *emulator, *started]

    def run(self, *arguments: str, cpuinfo: Path | None = None, **more: Any) -> subprocess.CompletedProcess[str]:
        """What came of it."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ROOT": str(self.root), "CPUINFO": str(cpuinfo or "")}
        command = self.command(*arguments, **more)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def _add_tools(folder: Path) -> None:
    found = fetch_packages(["skopeo", "docker-registry"], "amd64", folder.parent / "got", step="get", progress=silent)
    for package in found:
        unpack(package, folder, lambda name: _WANTED.fullmatch(name) is not None)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _wait(url: str) -> None:
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the registry does not answer")
