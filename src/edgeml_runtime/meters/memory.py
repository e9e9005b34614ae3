"""Memory of this process, in MiB.

Method: `memory_peak` is the kernel's own high-water mark of resident memory (VmHWM). File-backed and proportional
memory have no such mark: they are the largest of the readings taken after each phase (load, first inference, steady
inference). Anonymous memory is that, or the high-water mark less the file-backed and shared peaks where that is more:
it must have been as much for a moment. `memory_needed`, what a device must have free, is anonymous memory and the
file-backed bytes that were touched, each at its peak, and never less than the high-water mark. A mapped model counts as
file-backed; a device that has less can reclaim those pages and read them again, which is slow.
Without /proc only the peak is known. macOS: the largest physical footprint (proc_pid_rusage), which is dirty and
compressed memory and the GPU's, and not clean pages of a mapped file; so where llama.cpp maps the weights the figure is
marked. Windows: the largest working set. Where these say nothing: getrusage(2), in bytes on macOS, elsewhere in KiB.
Source: proc(5), VmHWM, RssAnon, RssFile, RssShmem; Pss of smaps_rollup; MemAvailable of meminfo. No control group's
peak is read: it holds the page cache of every process in the group.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from edgeml_runtime import macos, windows
from edgeml_runtime.meters.sysfs import text
from edgeml_runtime.records import read_record
from edgeml_runtime.types import Absent, Samples, VariantManifest

if find_spec("resource"):  # not on Windows
    import resource

_STATUS = {"RssAnon": "memory_peak_anon", "RssFile": "memory_peak_file", "RssShmem": "shared", "VmHWM": "memory_peak"}
_KIB_PER_MIB = 1024
_PHASES = "after load, first and steady inference"
_METHODS = {
    "memory_peak": "kernel high-water mark, read after steady inference",
    "memory_peak_anon": f"largest reading {_PHASES}, or the high-water mark less file-backed memory where that is more",
    "memory_peak_file": f"largest reading {_PHASES}",
    "memory_peak_pss": f"largest reading {_PHASES}",
    "memory_needed": "anonymous and file-backed peaks together, at least the high-water mark",
}
_FOOTPRINT = "largest physical footprint (proc_pid_rusage), loading included; clean pages of mapped files are left out"
_LIBRARIES_MIB = 16  # what llama.cpp, its bindings and a vocabulary take at load; measured up to 12
_REPACKED = 0.25  # share of the weights that anonymous memory must grow by beyond that to be called a second copy


class Memory:
    """Takes readings, the first before the model is loaded; `proc` is the process's folder under /proc."""

    def __init__(self, proc: Path = Path("/proc/self"), *, system: str = sys.platform) -> None:
        self._proc = proc
        self._system = system
        self._readings: list[dict[str, float]] = []

    def read(self) -> None:
        """Take one reading, if this system has a /proc."""
        if (self._proc / "status").is_file():
            self._readings.append(
                {**_fields(self._proc / "status", _STATUS), **_fields(self._proc / "smaps_rollup", {"Pss": "pss"})}
            )

    def samples(self, manifest: VariantManifest) -> list[Samples]:
        """The peak of each kind of memory, and what a device needs; without /proc the peak alone."""
        if self._readings:
            return [_sample(metric, peak, _METHODS[metric]) for metric, peak in self._peaks().items()]
        footprint = macos.peak_footprint_bytes() if self._system == "darwin" else None
        if footprint:
            return [_sample("memory_peak", footprint / 2**20, _FOOTPRINT, _unseen(manifest))]
        resident = windows.peak_working_set_bytes() if self._system == "win32" else None
        if resident:
            return [_sample("memory_peak", resident / 2**20, "largest working set, loading included")]
        return self._resident()

    def absent(self) -> list[Absent]:
        """What cannot be told apart without /proc."""
        if self._readings:
            return []
        reason = "this system has no /proc: the peak is known, not its anonymous, file-backed and proportional parts"
        return [Absent(metric="memory_needed", reason=reason, hint="measure on Linux")]

    def warnings(self, manifest: VariantManifest) -> tuple[str, ...]:
        """That llama.cpp holds the weights twice, where the readings before and after loading show it."""
        if len(self._readings) < 2 or not manifest.scheme.startswith("gguf"):
            return ()
        before, after = self._readings[:2]
        grown = after["memory_peak_anon"] - before["memory_peak_anon"]
        weights = _weights_bytes(manifest) / 2**20
        mapped = after["memory_peak_file"] - before["memory_peak_file"] >= weights / 2
        if not mapped or grown - _LIBRARIES_MIB < _REPACKED * weights:
            return ()
        return (
            f"weights are in memory twice: beside the mapped file of {weights:.0f} MiB, {grown:.0f} MiB of anonymous "
            "memory came with loading, since llama.cpp repacks some types for this processor; the file's pages can be "
            "reclaimed",
        )

    def _resident(self) -> list[Samples]:
        if not find_spec("resource"):
            return []
        unit = 1 if self._system == "darwin" else _KIB_PER_MIB
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
        return [_sample("memory_peak", peak, "largest resident size (ru_maxrss), loading included")]

    def _peaks(self) -> dict[str, float]:
        peak = {
            key: max(reading.get(key, 0.0) for reading in self._readings)
            for key in ("memory_peak", "memory_peak_anon", "memory_peak_file", "shared", "pss")
        }
        anon = max(peak["memory_peak_anon"], peak["memory_peak"] - peak["memory_peak_file"] - peak["shared"])
        file = peak["memory_peak_file"]
        found = {
            "memory_peak": peak["memory_peak"],
            "memory_peak_anon": anon,
            "memory_peak_file": file,
            "memory_peak_pss": peak["pss"],
            "memory_needed": max(anon + file, peak["memory_peak"]),
        }
        return {metric: value for metric, value in found.items() if value}


def too_large(folder: Path, meminfo: Path = Path("/proc/meminfo")) -> tuple[str, ...]:
    """A warning where a variant's weights are larger than the memory that is free for them; asked before loading."""
    available = _fields(meminfo, {"MemAvailable": "available"}).get("available")
    weights = _weights_bytes(read_record(folder / "variant.json", VariantManifest)) / 2**20
    if available is None or weights <= available:
        return ()
    return (
        f"the weights of {weights:.0f} MiB are larger than the {available:.0f} MiB of memory that are free: they are "
        "read from disk again and again, and every time is that of the disk",
    )


def _weights_bytes(manifest: VariantManifest) -> int:
    # A graph's weights may stand in a file beside it, `model.onnx.data`.
    return sum(file.size_bytes for file in manifest.files if file.path.startswith(manifest.weights))


def _unseen(manifest: VariantManifest) -> tuple[str, ...]:
    """Why a footprint says too little: llama.cpp maps the weights, and clean pages of a file are not in it."""
    if not manifest.scheme.startswith("gguf"):
        return ()
    return (f"the footprint may leave out the mapped weights of {_weights_bytes(manifest) / 2**20:.0f} MiB",)


def _sample(metric: str, value: float, method: str, marks: tuple[str, ...] = ()) -> Samples:
    return Samples(
        metric=metric,
        unit="MiB",
        values=(value,),
        statistics=("max",),
        unit_of_sample="process",
        method=method,
        marks=marks,
    )


def _fields(path: Path, wanted: dict[str, str]) -> dict[str, float]:
    """Those of a file's `Name:  12 kB` lines that are wanted, under their new names, in MiB."""
    lines = (line.split() for line in (text(path) or "").splitlines())
    return {
        wanted[words[0].rstrip(":")]: int(words[1]) / _KIB_PER_MIB
        for words in lines
        if words and words[0].rstrip(":") in wanted
    }
