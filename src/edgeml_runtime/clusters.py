"""Which processors are fast and which are frugal, on a Linux machine that has both.

Intel's kernels name the two kinds, as the devices `cpu_core` and `cpu_atom`; ARM's tell each processor's capacity, 1024
the largest. One below 0.6 of the largest counts as frugal: between big, middle and prime cores of one phone chip lies
less, between them and its small cores more. Threads that share one core count as one. Source: Linux
Documentation/ABI/testing/sysfs-devices-system-cpu (cpu_capacity, thread_siblings_list), drivers of Intel's hybrid PMU.
Not yet run on such a machine: tested on trees made by hand.
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path

from edgeml_runtime.meters.sysfs import number, text

_FRUGAL = 0.6


def core_kinds(allowed: Set[int], root: Path = Path("/")) -> tuple[int, int] | None:
    """How many fast and how many frugal cores are among the allowed processors; None where there is but one kind."""
    fast, frugal = _named(root) or _by_capacity(root) or (set(), set())
    if not fast & allowed or not frugal & allowed:
        return None
    return _cores(fast & allowed, root), _cores(frugal & allowed, root)


def _named(root: Path) -> tuple[set[int], set[int]] | None:
    lists = [text(root / "sys/devices" / kind / "cpus") for kind in ("cpu_core", "cpu_atom")]
    return (_listed(lists[0]), _listed(lists[1])) if lists[0] and lists[1] else None


def _by_capacity(root: Path) -> tuple[set[int], set[int]] | None:
    found = {
        int(path.parent.name.removeprefix("cpu")): number(path) or 0
        for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpu_capacity")
    }
    least = _FRUGAL * max(found.values(), default=0)
    frugal = {place for place, capacity in found.items() if capacity < least}
    return set(found) - frugal, frugal


def _cores(places: Set[int], root: Path) -> int:
    folder = root / "sys/devices/system/cpu"
    return len({text(folder / f"cpu{place}" / "topology/thread_siblings_list") or str(place) for place in places})


def _listed(text: str) -> set[int]:
    """The numbers of a kernel's list such as `0-3,8`."""
    ends = [part.split("-") for part in text.split(",")]
    return {number for pair in ends for number in range(int(pair[0]), int(pair[-1]) + 1)}
