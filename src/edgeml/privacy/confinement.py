"""A process alone: without a network, and able to write in named folders only. Linux's namespaces, as a plain user.

Sources: user_namespaces(7), network_namespaces(7), mount_setattr(2), netdevice(7); the counters are those of RFC 4293
in /proc/net/snmp and snmp6.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from edgeml.children import started

UNSHARE = ("unshare", "--map-root-user", "--net", "--mount")
_SIOCSIFFLAGS, _UP = 0x8914, 0x1
_BIND = 4096 | 16384  # MS_BIND, MS_REC
_MOUNT_SETATTR = 442  # on every architecture, since Linux 5.12
_AT_FDCWD, _RECURSIVE, _READ_ONLY = -100, 0x8000, 1
_FOR_ALL = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - covered, not written
_ROOTS_HOME = "/root"  # whoever maps to root in a namespace is told that it is its home


class Packets(NamedTuple):
    """What this namespace counted: no route, TCP connections begun, datagrams sent."""

    unrouted: int
    connections: int
    datagrams: int


def reason_against() -> str | None:
    """Why no process can be put where there is no network; None where one can."""
    if sys.platform != "linux":
        return "it needs Linux's namespaces"
    try:
        with started([*UNSHARE, "true"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as child:
            said = child.communicate()[1].strip()
    except FileNotFoundError:
        return "the program unshare (of util-linux) is not there"
    return f"this system gives no namespaces: {said}" if child.returncode else None


def shared_places() -> tuple[str, ...]:
    """Folders that a program may write in without being told: the user's home, and those for everybody."""
    import pwd

    try:
        home = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a user without a name
        home = _ROOTS_HOME
    places = dict.fromkeys((home, _ROOTS_HOME, *_FOR_ALL))
    return tuple(one for one in places if one != "/" and Path(one).is_dir())


def loopback_up() -> None:
    """Give this namespace its loopback, which begins switched off."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _UP))


def alone(own: Path, places: Mapping[str, str]) -> bool:
    """Let this namespace write in `own`, and in a folder of ours that stands for each of the `places`; nowhere else.

    What Python runs from stays visible there. False where this system does not allow so much.
    """
    library = ctypes.CDLL(None, use_errno=True)
    needed = [own, *(Path(one) for one in (sys.prefix, sys.base_prefix, *sys.path) if Path(one).is_dir())]
    handles = {path.resolve(): os.open(path, os.O_PATH) for path in needed}
    try:
        _bind(library, str(own), str(own))
        for place, ours in places.items():
            _bind(library, ours, place)
            for path, handle in handles.items():
                if path.is_relative_to(place):
                    path.mkdir(parents=True, exist_ok=True)
                    _bind(library, f"/proc/self/fd/{handle}", str(path))
        _set(library, "/", on=_READ_ONLY)
        for place in (*places, str(own)):
            _set(library, place, off=_READ_ONLY)
    except OSError:
        return False
    finally:
        for handle in handles.values():
            os.close(handle)
    return True


def packets() -> Packets:
    """The counters, now."""
    old, new = _table(Path("/proc/net/snmp")), _list(Path("/proc/net/snmp6"))
    return Packets(
        old.get("Ip.OutNoRoutes", 0) + new.get("Ip6OutNoRoutes", 0),
        old.get("Tcp.ActiveOpens", 0),  # of both versions of IP
        old.get("Udp.OutDatagrams", 0) + new.get("Udp6OutDatagrams", 0),
    )


def _bind(library: ctypes.CDLL, source: str, goal: str) -> None:
    if library.mount(os.fsencode(source), os.fsencode(goal), None, ctypes.c_ulong(_BIND), None):
        raise OSError(ctypes.get_errno(), "mount", goal)


def _set(library: ctypes.CDLL, path: str, *, on: int = 0, off: int = 0) -> None:
    changes = struct.pack("=4Q", on, off, 0, 0)
    if library.syscall(_MOUNT_SETATTR, _AT_FDCWD, os.fsencode(path), _RECURSIVE, changes, len(changes)):
        raise OSError(ctypes.get_errno(), "mount_setattr", path)


def _table(path: Path) -> dict[str, int]:
    """Pairs of lines: names, then values, both after the protocol's name."""
    lines = path.read_text().splitlines()
    found: dict[str, int] = {}
    for names, values in zip(lines[::2], lines[1::2], strict=False):
        protocol = names.partition(":")[0]
        found |= {
            f"{protocol}.{name}": int(value) for name, value in zip(names.split()[1:], values.split()[1:], strict=True)
        }
    return found


def _list(path: Path) -> dict[str, int]:
    """A name and a value a line; nothing without IPv6."""
    if not path.exists():
        return {}
    return {name: int(value) for name, value in (line.split() for line in path.read_text().splitlines())}
