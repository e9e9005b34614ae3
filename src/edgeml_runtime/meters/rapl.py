"""Energy of the processor package, from Linux' powercap counters (Intel, and AMD since kernel 5.11), in joules.

Method: the difference of `energy_uj` of each top-level zone named `package-N`, summed over sockets, a wrapped counter
corrected by `max_energy_range_uj`. `psys` is left out, since it contains the package; `dram` is not part of it; the
`intel-rapl-mmio` twin of a package is counted once. The counter advances about once a millisecond, so a window under
one second is refused; its range of 262 kJ lasts 97 minutes at 45 W, longer than any window, so it wraps once at most.
Source: Linux Documentation/power/powercap; CVE-2020-8694 for why the files may be readable by root alone; Khan and
others, RAPL in Action, ACM TOMPECS 2018, for how it compares with power at the plug.
Not yet run on a machine that has these counters: tested on trees made by hand.
"""

from __future__ import annotations

from pathlib import Path
from time import perf_counter

from edgeml_runtime.errors import why
from edgeml_runtime.meters import About, Reading, absent
from edgeml_runtime.types import Absent

POWERCAP = Path("/sys/class/powercap")
MINIMUM_WINDOW_S = 1.0
_MICRO = 1e-6


def open_meter() -> Rapl:
    """The counters of this machine."""
    return Rapl()


class Rapl:
    """The packages below `root`."""

    def __init__(self, root: Path = POWERCAP) -> None:
        self._root = root
        self._before: dict[Path, int] = {}
        self._started = 0.0

    def available(self) -> Absent | None:
        """Why the counters cannot be read, or None when they can."""
        if not self._root.is_dir():
            return absent(f"no energy sensor: {self._root} is missing")
        zones = self._zones()
        if not zones:
            return self._no_package()
        try:
            for zone in zones:
                _number(zone / "energy_uj")
        except PermissionError:
            hint = "run as root, or have an administrator allow reading; docs/method.md says what that risks"
            return absent(f"{zone / 'energy_uj'} is readable by root alone", hint=hint)
        except (OSError, ValueError) as error:
            return absent(f"cannot read {zone / 'energy_uj'}: {why(error)}", hint="edgeml doctor")
        return None

    def about(self) -> About:
        """The package, by a counter."""
        return About(
            scope="processor package",
            kind="counter",
            excludes="memory, screen, storage, and the power supply's loss",
        )

    def start(self) -> None:
        """Note the counters."""
        self._before = {zone: _number(zone / "energy_uj") for zone in self._zones()}
        self._started = perf_counter()

    def enough(self) -> bool:
        """Whether a second has passed."""
        return perf_counter() - self._started >= MINIMUM_WINDOW_S

    def stop(self) -> Reading | Absent:
        """Joules since `start`."""
        window_s = perf_counter() - self._started
        if window_s < MINIMUM_WINDOW_S:
            return absent(f"a window of {window_s:.2f} s is too short for this counter", hint="ask for longer windows")
        used = sum(self._used_uj(zone, before) for zone, before in self._before.items())
        return Reading(joules=used * _MICRO, readings=2)

    def warnings(self) -> tuple[str, ...]:
        """None."""
        return ()

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

    def _no_package(self) -> Absent:
        # Docker mounts an empty folder over /sys/devices/virtual/powercap, so the class's links lead nowhere.
        masked = any(zone.is_symlink() and not zone.exists() for zone in self._root.glob("intel-rapl*"))
        if masked:
            return absent(f"{self._root} is masked, as containers do", hint="measure outside the container")
        return absent(f"no energy sensor: {self._root} has no processor package")


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))
