"""A C++ compiler for another processor, from the Python index: nothing is installed, and no system compiler is needed.

zig holds clang, a linker, and the C libraries of every glibc since 2.17 (Linux on AArch64), so that what is compiled
here runs on older systems, too. Its own C++ library becomes part of what it links.
"""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import join, quote

from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources.pip import run_pip

TOOLS = ("ziglang==0.17.1", "cmake==4.4.5", "ninja==1.13.2")  # seen to work together
GLIBC = (2, 28)  # Debian 10, 2018: older than any Raspberry Pi OS that has Python 3.11
# zig takes no `-march` but its own words for it: its release notes, and `zig targets`.
_MARCH = {
    "armv8-a": "generic",
    "armv8.2-a+dotprod+fp16": "generic+v8_2a+dotprod+fullfp16",
}
_NATIVE = re.compile(r"CC|CXX|(C|CXX|CPP|LD)FLAGS|CMAKE_.*")  # variables that mean this machine's compiler
_ENDING_S = 5.0
# A child starts with the signals held back that end this process; ninja must hear them, to end its compilers.
_HEARING = "import os, signal, sys; signal.pthread_sigmask(signal.SIG_SETMASK, ()); os.execv(sys.argv[1], sys.argv[1:])"
_COUNT = re.compile(r"\[(\d+)/(\d+)\]")  # as ninja begins its lines


def install(folder: Path, progress: Progress) -> Toolchain:
    """The tools, fetched by pip into a folder: 90 MB, 500 MB unpacked. Raises EdgemlError where they cannot run."""
    if platform.system() not in ("Linux", "Darwin"):
        raise EdgemlError(
            f"llama.cpp cannot be cross-compiled on {platform.system()}", hint="run it under Linux (WSL) or macOS"
        )
    folder.mkdir(parents=True)
    command = ["install", "--only-binary=:all:", "--no-deps", "--target", str(folder / "tools"), *TOOLS]
    run_pip(command, folder, step=f"fetch the compiler ({TOOLS[0]})", progress=progress)
    return Toolchain(folder)


class Toolchain:
    """The tools in a folder; scripts beside them stand for compilers, as CMake wants them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def script(self, name: str, source: Path | None = None) -> Path:
        """The path of `cc`, `c++`, `ar` or `ranlib` for AArch64 Linux with glibc `GLIBC`, written anew.

        What is compiled names its files as seen from `source`, and no folder of this machine.
        """
        zig = f"exec {quote(str(self._folder / 'tools' / 'ziglang' / 'zig'))} {name}"
        text = f'#!/bin/sh\n{zig} "$@"\n'
        if name in ("cc", "c++"):
            flags = ["-target", f"aarch64-linux-gnu.{GLIBC[0]}.{GLIBC[1]}"]
            flags += [f"-ffile-prefix-map={source}=."] if source else []
            cases = "\n".join(f"    -march={arch}) word=-mcpu={cpu} ;;" for arch, cpu in _MARCH.items())
            words = f'for word do\n  case $word in\n{cases}\n  esac\n  set -- "$@" "$word"; shift\ndone\n'
            text = f'#!/bin/sh\n{words}{zig} {join(flags)} "$@"\n'
        path = self._folder / name
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
        return path

    def configure(self, source: Path, goal: Path, flags: Mapping[str, str], *, log: Path, progress: Progress) -> None:
        """Let CMake plan the build of `source` in `goal`, for AArch64 Linux."""
        everything = {
            "CMAKE_SYSTEM_NAME": "Linux",
            "CMAKE_SYSTEM_PROCESSOR": "aarch64",
            "CMAKE_MAKE_PROGRAM": str(self._ninja),
            "CMAKE_C_COMPILER": str(self.script("cc", source)),
            "CMAKE_CXX_COMPILER": str(self.script("c++", source)),
            "CMAKE_AR": str(self.script("ar", source)),
            "CMAKE_RANLIB": str(self.script("ranlib", source)),
            **flags,
        }
        cmake = self._folder / "tools" / "cmake" / "data" / "bin" / "cmake"
        command = [str(cmake), "-G", "Ninja", "-S", str(source), "-B", str(goal)]
        self._run([*command, *(f"-D{key}={value}" for key, value in everything.items())], log, "configure", progress)

    def compile(self, folder: Path, goal: str, *, step: str, log: Path, progress: Progress) -> None:
        """Build one goal of a configured folder; progress counts the commands that are done."""
        self._run([str(self._ninja), "-C", str(folder), goal], log, step, progress)

    @property
    def _ninja(self) -> Path:
        return self._folder / "tools" / "bin" / "ninja"

    def _run(self, command: Sequence[str], log: Path, step: str, progress: Progress) -> None:
        cache = str(self._folder / "zig")
        mine = {name: value for name, value in os.environ.items() if not _NATIVE.fullmatch(name)}
        settings = {**mine, "ZIG_GLOBAL_CACHE_DIR": cache, "ZIG_LOCAL_CACHE_DIR": cache}
        output = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        progress(step, 0, 0)
        own = {"env": settings, "start_new_session": True}  # so that what it has started can be ended with it
        hearing = [sys.executable, "-I", "-S", "-c", _HEARING, *command]
        with log.open("a", buffering=1, encoding="utf-8") as kept, started(hearing, **own, **output) as child:
            try:
                for line in child.stdout or ():
                    kept.write(line)
                    if found := _COUNT.match(line):
                        progress(step, int(found[1]), int(found[2]))
                child.wait()
            except BaseException:  # killed, it would leave its compilers, which are in groups of their own
                child.terminate()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(_ENDING_S)
                raise
        if child.returncode:
            raise _failed(log, step)


def _failed(log: Path, step: str) -> Exception:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    if any(os.strerror(errno.ENOSPC) in line or "NoSpaceLeft" in line for line in lines):
        return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    errors = [line for line in lines if "error:" in line or line.startswith("CMake Error")]
    said = (errors or lines or ["no output"])[0 if errors else -1]
    return EdgemlError(f"{step} failed: {said}", hint=f"everything that it said: {log}")
