"""Whether QEMU's user mode runs this process, seen from inside."""

from __future__ import annotations

import threading
from pathlib import Path


def emulator(proc: Path = Path("/proc")) -> str | None:
    """The file name of the emulator that runs this process's instructions; None where there is none.

    Asked for this process's own program (`/proc/self/exe`), QEMU answers with the one that it runs, as linux-user/
    syscall.c has it; asked for that of one of its threads it lets the kernel answer, which names QEMU itself: a program
    for another machine. Seen with versions 7.2 and 10.0.
    """
    own = _machine_of(proc / "self" / "exe")
    for link in (proc / "thread-self" / "exe", proc / "self" / "task" / str(threading.get_native_id()) / "exe"):
        found = _machine_of(link)
        if own and found and found != own:
            return link.readlink().name
    return None


def _machine_of(program: Path) -> bytes | None:
    """The machine that a program is for, which its ELF header has in bytes 18 and 19."""
    try:
        with program.open("rb") as file:
            header = file.read(20)
    except OSError:
        return None
    return header[18:] if header.startswith(b"\x7fELF") else None
