"""Memory of this process, from Linux' /proc, in MiB.

Method: `memory_peak` is the kernel's own high-water mark of resident memory (VmHWM). Anonymous, file-backed and
proportional memory have no such mark: they are the largest of the readings taken after each phase (load, first
inference, steady inference). With a mapped model the weights count as file-backed and can be reclaimed.
Source: proc(5), VmHWM, RssAnon, RssFile; Pss of smaps_rollup. Knows nothing of models.
"""

from __future__ import annotations

from pathlib import Path

from edgeml_runtime.types import Absent, Samples

_STATUS = {"RssAnon": "memory_peak_anon", "RssFile": "memory_peak_file", "VmHWM": "memory_peak"}
_KIB_PER_MIB = 1024


class Memory:
    """Takes readings; `proc` is the process's folder under /proc."""

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._proc = proc
        self._readings: list[dict[str, float]] = []

    def read(self) -> None:
        """Take one reading, if this system has a /proc."""
        if (self._proc / "status").is_file():
            self._readings.append(
                {**self._fields("status", _STATUS), **self._fields("smaps_rollup", {"Pss": "memory_peak_pss"})}
            )

    def samples(self) -> list[Samples]:
        """The peak of each kind of memory; empty where nothing could be read."""
        metrics = sorted({metric for reading in self._readings for metric in reading})
        return [self._peak(metric) for metric in metrics]

    def absent(self) -> list[Absent]:
        """Why there are no samples, if there are none."""
        if self._readings:
            return []
        return [Absent(metric="memory_peak", reason="this system has no /proc", hint="measure on Linux")]

    def _peak(self, metric: str) -> Samples:
        peak = max(reading[metric] for reading in self._readings if metric in reading)
        method = (
            "kernel high-water mark, read after steady inference"
            if metric == "memory_peak"
            else "largest reading after load, first and steady inference"
        )
        return Samples(
            metric=metric, unit="MiB", values=(peak,), statistics=("max",), unit_of_sample="process", method=method
        )

    def _fields(self, file: str, wanted: dict[str, str]) -> dict[str, float]:
        path = self._proc / file
        if not path.is_file():
            return {}
        lines = (line.split() for line in path.read_text(encoding="ascii", errors="replace").splitlines())
        return {
            wanted[words[0].rstrip(":")]: int(words[1]) / _KIB_PER_MIB
            for words in lines
            if words and words[0].rstrip(":") in wanted
        }
