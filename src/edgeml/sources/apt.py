"""What apt-get is asked for: Debian packages of this machine's release, for any architecture, in a state of our own.

The machine's own sources, keys, proxies and certificates hold. Nothing is installed and root is not needed. Knows
nothing of what a package is wanted for.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO, cast

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress

_DONE = re.compile(r"dlstatus:\d+:([\d.]+):")  # as APT::Status-Fd writes it
_UNREACHED = re.compile(r"resolv|[Cc]ould not connect|Unable to connect|timed out|Connection (failed|refused)|proxy")
# Read after the machine's own configuration, whose hooks would work on the machine: they tell its desktop of news, or
# clear its cache. The lists are of packages alone, in one language.
_SETTINGS = """\
#clear APT::Architectures;
#clear APT::Update::Pre-Invoke;
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear DPkg::Pre-Install-Pkgs;
APT::Architecture "{architecture}";
APT::Architectures {{ "{architecture}"; }};
Acquire::Languages "none";
Dir::State "{folder}/state";
Dir::State::status "{folder}/status";
Dir::State::lists "{folder}/lists";
Dir::Cache "{folder}/cache";
Dir::Cache::archives "{folder}/archives";
"""


def check_apt() -> None:
    """Raises EdgemlError where packages can be neither fetched nor opened."""
    missing = [name for name in ("apt-get", "dpkg-deb") if shutil.which(name) is None]
    if missing:
        hint = "run it on Debian, Ubuntu or another system whose packages are theirs"
        raise EdgemlError(f"this system has no {' and no '.join(missing)}", hint=hint)


def fetch_packages(
    packages: Sequence[str], architecture: str, folder: Path, *, step: str, progress: Progress
) -> tuple[Path, ...]:
    """The packages and all that they depend on, as `.deb` files below `folder`, an empty one.

    Raises EdgemlError where apt cannot reach its sources, or they do not have the packages for that architecture;
    OSError on a full disk. apt itself checks that they are those that its keys vouch for.
    """
    first = configure(folder, architecture)
    _, said = _apt(["update"], first, step=f"{step}: lists", progress=progress)
    wanted = ["install", "--yes", "--download-only", "--no-install-recommends", *packages]
    code, more = _apt(wanted, first, step=step, progress=progress)
    found = tuple(sorted((folder / "archives").glob("*.deb")))
    if code or not found:  # none are copied from a source that is a folder of this machine's
        raise failure(said + more, architecture)
    return found


def configure(folder: Path, architecture: str) -> Path:
    """A private state in an empty folder, and the configuration that leads to it."""
    for name in ("state", "lists/partial", "cache", "archives/partial"):
        (folder / name).mkdir(parents=True)
    (folder / "status").touch()  # of the packages that are installed: none
    main, first = folder / "apt.conf", folder / "first.conf"
    own = [f'#include "{path}";\n' for path in ("/etc/apt/apt.conf",) if Path(path).exists()]
    main.write_text("".join(own) + _SETTINGS.format(architecture=architecture, folder=folder), encoding="utf-8")
    users = [f'#include "{path}";\n' for path in (os.environ.get("APT_CONFIG"),) if path and Path(path).exists()]
    # What APT_CONFIG names is read first and overruled by the machine's parts; the main file comes after those.
    first.write_text("".join(users) + f'Dir::Etc::main "{main}";\n', encoding="utf-8")
    return first


def unpack(package: Path, goal: Path, wanted: Callable[[str], bool]) -> None:
    """Those of a package's files whose paths, such as `usr/bin/python3`, are wanted, below `goal`."""
    goal.mkdir(parents=True, exist_ok=True)
    command = ["dpkg-deb", "--fsys-tarfile", str(package)]
    with started(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        stream = cast("TextIO", child.stdout).buffer
        try:
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                # Before 3.11.4 there are no filters, and the attribute does nothing.
                archive.extraction_filter = getattr(tarfile, "tar_filter", None)
                archive.extractall(goal, (one for one in archive if wanted(one.name.removeprefix("./"))))  # noqa: S202 - filtered
            stream.read()  # what stands after the archive's end, so that the child can end
        except tarfile.TarError as error:
            raise EdgemlError(f"cannot unpack {package.name}: {error}", hint="run it again") from error
        if child.wait():
            raise EdgemlError(f"cannot unpack {package.name}", hint="run it again")


def failure(said: str, architecture: str) -> Exception:
    """What apt's own words of failure mean."""
    if os.strerror(errno.ENOSPC) in said or "enough free space" in said:
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    errors = [line.partition(":")[2].strip() for line in said.splitlines() if line.startswith(("E:", "W:"))]
    last = (errors or ["it does not say why"])[-1]
    if _UNREACHED.search(said):
        hint = "check the network and apt's proxy (apt-config dump Acquire), then run it again"
        return EdgemlError(f"apt cannot reach its package sources: {errors[0] if errors else last}", hint=hint)
    if re.search(r"Unable to locate package|no installation candidate|404 ", said):
        message = f"this machine's package sources do not have what is needed for {architecture}: {last}"
        hint = f"add a source that has them: deb [arch={architecture}] ..., on Ubuntu the one called ports"
        return EdgemlError(message, hint=hint)
    return EdgemlError(f"apt cannot fetch the packages: {last}", hint="check apt-get update, then run it again")


def _apt(arguments: Sequence[str], first: Path, *, step: str, progress: Progress) -> tuple[int, str]:
    """apt-get's exit code and what it said; progress is in percent."""
    log = first.with_name("apt.log")
    settings = os.environ | {"APT_CONFIG": str(first), "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    command = ["apt-get", "-q", "-o", "APT::Status-Fd=1", *arguments]
    with log.open("wb") as errors:
        own = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": errors, "start_new_session": True}
        with started(command, env=settings, cwd=first.parent, **own) as child:
            progress(step, 0, 100)
            for line in cast("TextIO", child.stdout):
                if found := _DONE.match(line):
                    progress(step, int(float(found[1])), 100)
            code = child.wait()
    return code, log.read_text(encoding="utf-8", errors="replace")
