"""Energy of the processor package, from Linux' powercap counters (Intel, and AMD since kernel 5.11), in joules.

Method: the difference of `energy_uj` of each top-level zone named `package-N`, summed over sockets, a wrapped counter
corrected by `max_energy_range_uj`. `psys` is left out, since it contains the package; `dram` is not part of it; the
`intel-rapl-mmio` twin of a package is counted once. The counter advances about once a millisecond, so a window under
one second is refused. Excluded from the scope: memory, screen, storage, and the power supply's loss.
Source: Linux Documentation/power/powercap; CVE-2020-8694 for why the files may be readable by root alone.
Not yet run on a machine that has these counters: tested on trees made by hand.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from edgeml_runtime.types import Absent

POWERCAP = Path("/sys/class/powercap")
MINIMUM_WINDOW_S = 1.0
_MICRO = 1e-6


class Rapl:
    """`start`, then `stop`: joules, or an Absent that says why there are none."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._root = root
        self._before: dict[Path, int] = {}
        self._started = 0.0

    def unavailable(self) -> Absent | None:
        """Why this machine's energy cannot be read, or None when it can."""
        if not self._root.is_dir():
            return _absent(f"no energy sensor: {self._root} is missing")
        zones = self._zones()
        if not zones:
            return _absent(f"no energy sensor: {self._root} has no processor package")
        try:
            for zone in zones:
                (zone / "energy_uj").read_text(encoding="ascii")
        except PermissionError:
            return _absent(
                f"{zone / 'energy_uj'} is readable by root alone", hint="ask an administrator for read access"
            )
        except OSError as error:
            return _absent(f"cannot read {zone / 'energy_uj'}: {error.strerror}")
        return None

    def start(self) -> None:
        """Note the counters."""
        self._before = {zone: _number(zone / "energy_uj") for zone in self._zones()}
        self._started = perf_counter()

    def stop(self) -> float | Absent:
        """Joules since `start`."""
        window_s = perf_counter() - self._started
        if window_s < MINIMUM_WINDOW_S:
            return _absent(
                f"the measured window of {window_s:.2f} s is too short for this counter", hint="raise --repeats"
            )
        return sum(self._used_uj(zone, before) for zone, before in self._before.items()) * _MICRO

    def _used_uj(self, zone: Path, before: int) -> int:
        now = _number(zone / "energy_uj")
        return now - before if now >= before else now - before + _number(zone / "max_energy_range_uj") + 1

    def _zones(self) -> list[Path]:
        found: dict[str, Path] = {}
        # The register route comes before its memory-mapped twin, which repeats the same package.
        zones = sorted(self._root.glob("intel-rapl*:*"), key=lambda zone: ("mmio" in zone.name, zone.name))
        for zone in zones:
            name = (zone / "name").read_text(encoding="ascii").strip() if (zone / "name").is_file() else ""
            if name.startswith("package"):
                found.setdefault(name, zone)
        return list(found.values())


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _absent(reason: str, *, hint: str = "edgeml doctor") -> Absent:
    return Absent(metric="energy", reason=reason, hint=hint)
