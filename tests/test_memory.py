"""Memory of a process, on files as Linux writes them, and on bytes laid out as macOS has them."""

import ctypes
import os
import resource
import struct

import pytest
from msgspec.structs import replace

from edgeml_runtime import macos, windows
from edgeml_runtime.meters.memory import Memory, too_large
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest
from tiny.gguf import llama_gguf
from tiny.variants import gguf_variant, onnx_variant

STATUS = "Name:\tpython\nVmHWM:\t  {peak} kB\nRssAnon:\t  {anon} kB\nRssFile:\t  {file} kB\nRssShmem:\t  {shared} kB\n"


def reading(memory, folder, *, peak, anon, file, shared=0):
    (folder / "status").write_text(STATUS.format(peak=peak, anon=anon, file=file, shared=shared))
    (folder / "smaps_rollup").write_text("Rss: 1 kB\nPss:                2048 kB\nPss_Anon: 7 kB\n")
    memory.read()


@pytest.fixture
def gguf(tmp_path):
    folder = gguf_variant(tmp_path / "gguf", llama_gguf(tmp_path / "model.gguf", width=64))
    return read_record(folder / "variant.json", VariantManifest)


@pytest.fixture
def onnx(tmp_path):
    return onnx_variant(tmp_path / "plain").manifest


@pytest.fixture
def peaks(onnx):
    return lambda memory: {sample.metric: sample.values[0] for sample in memory.samples(onnx)}


def test_peaks_are_the_largest_readings_in_mebibytes(tmp_path, peaks):
    memory = Memory(tmp_path)
    reading(memory, tmp_path, peak=6144, anon=1024, file=4096)
    reading(memory, tmp_path, peak=6144, anon=3072, file=2048)

    assert peaks(memory) == {
        "memory_peak": 6.0,
        "memory_peak_anon": 3.0,
        "memory_peak_file": 4.0,
        "memory_peak_pss": 2.0,
        "memory_needed": 7.0,
    }


def test_anonymous_memory_between_two_readings_follows_from_the_high_water_mark(tmp_path, peaks):
    memory = Memory(tmp_path)
    reading(memory, tmp_path, peak=16384, anon=3072, file=4096, shared=1024)  # loading took more for a moment

    assert peaks(memory)["memory_peak_anon"] == 11.0
    assert peaks(memory)["memory_needed"] == 16.0


@pytest.mark.parametrize(("system", "unit"), [("darwin", 1), ("freebsd", 1024)])
def test_without_proc_the_peak_is_getrusages_in_its_own_unit_and_the_rest_has_a_reason(tmp_path, onnx, system, unit):
    memory = Memory(tmp_path / "none", system=system)
    memory.read()
    [peak] = memory.samples(onnx)

    assert peak.metric == "memory_peak"
    assert peak.values[0] == pytest.approx(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20, rel=0.01)
    assert "ru_maxrss" in peak.method
    assert memory.absent()[0].metric == "memory_needed"
    assert "no /proc" in memory.absent()[0].reason


class LibC:
    """macOS's C library, as far as it fills `struct rusage_info_v4`: a UUID, then 35 numbers of 64 bits."""

    def __init__(self, *, peak, code=0):
        numbers = [place * 2**40 for place in range(35)]
        numbers[7], numbers[28] = 90 * 2**20, peak  # ri_phys_footprint, ri_lifetime_max_phys_footprint
        self._raw, self._code = bytes(range(16)) + struct.pack("<35Q", *numbers), code

    def proc_pid_rusage(self, pid, flavor, found):
        assert (pid, flavor, len(self._raw)) == (os.getpid(), 4, ctypes.sizeof(found._obj))
        ctypes.memmove(found, self._raw, len(self._raw))
        return self._code


@pytest.mark.parametrize(
    ("library", "peak"),
    [(LibC(peak=123 * 2**20), 123 * 2**20), (LibC(peak=5, code=-1), None), (LibC(peak=0), None), (None, None)],
)
def test_a_macs_peak_is_the_kernels_largest_footprint_and_nothing_where_the_call_fails(library, peak):
    assert macos.peak_footprint_bytes(library) == peak


def test_a_macs_footprint_is_told_as_such_and_marked_where_mapped_weights_may_be_missing_from_it(
    tmp_path, monkeypatch, gguf, onnx
):
    monkeypatch.setattr(macos, "peak_footprint_bytes", lambda: 64 * 2**20)
    memory = Memory(tmp_path / "none", system="darwin")
    memory.read()
    [mapped], [read] = memory.samples(gguf), memory.samples(onnx)

    assert (read.metric, read.values, read.marks) == ("memory_peak", (64.0,), ())
    assert "physical footprint" in read.method
    assert "leave out the mapped weights" in mapped.marks[0]


def test_windows_peak_is_its_largest_working_set(tmp_path, monkeypatch, onnx):
    monkeypatch.setattr(windows, "peak_working_set_bytes", lambda: 32 * 2**20)
    memory = Memory(tmp_path / "none", system="win32")
    memory.read()
    [peak] = memory.samples(onnx)

    assert (peak.metric, peak.values) == ("memory_peak", (32.0,))
    assert "working set" in peak.method
    assert memory.absent()[0].metric == "memory_needed"


# As measured for a Q4_0 of 58 MB, a Q8_0 of 110 MB and a Q4_1 of 94 MiB: growth of anonymous and of file-backed memory.
@pytest.mark.parametrize(
    ("weights_mib", "anon_mib", "file_mib", "twice"),
    [(55, 55, 60, True), (105, 12, 115, False), (94, 25, 102, False), (105, 105, 12, False)],  # the last: only read
)
def test_weights_that_are_repacked_beside_their_mapped_file_are_warned_about(
    tmp_path, gguf, weights_mib, anon_mib, file_mib, twice
):
    [weights] = [file for file in gguf.files if file.path == gguf.weights]
    large = replace(gguf, files=(replace(weights, size_bytes=weights_mib * 2**20),))
    memory = Memory(tmp_path)
    reading(memory, tmp_path, peak=1, anon=1000, file=1000)
    reading(memory, tmp_path, peak=1, anon=1000 + anon_mib * 1024, file=1000 + file_mib * 1024)

    assert bool(memory.warnings(large)) == twice
    assert memory.warnings(replace(large, scheme="onnx:int8")) == ()


@pytest.mark.parametrize(("available_kib", "warned"), [(1, True), (10_000_000, False)])
def test_weights_larger_than_the_free_memory_are_warned_about_before_they_are_loaded(tmp_path, available_kib, warned):
    variant = onnx_variant(tmp_path / "onnx")
    (tmp_path / "meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {available_kib} kB\n")

    assert bool(too_large(variant.path, tmp_path / "meminfo")) == warned
    assert too_large(variant.path, tmp_path / "none") == ()
