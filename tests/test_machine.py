"""What a machine tells of itself: this one, a Mac from outputs in its commands' format, Linux from trees."""

import ctypes
import os
import sys

import pytest

from edgeml_runtime import windows
from edgeml_runtime.clusters import core_kinds
from edgeml_runtime.machine import chip, cores, default_threads, environment
from tiny.mac import commands


def tree(root, files):
    for path, value in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(f"{value}\n")
    return root


@pytest.fixture
def mac(tmp_path, monkeypatch):
    """Makes this process one of that Mac's, as far as it asks sysctl."""

    def become(name):
        monkeypatch.setenv("PATH", commands(tmp_path / "bin", sysctl={"*": f"sysctl-{name}"}))

    return become


def test_this_machine_is_known_by_what_the_kernel_says():
    here = environment(3)

    assert here.threads == 3
    assert here.cores == cores() == len(os.sched_getaffinity(0))
    assert here.memory_bytes == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert here.accelerator is None
    assert environment(1, accelerator="Metal").accelerator == "Metal"


def test_a_mac_tells_its_chip_its_two_kinds_of_cores_and_its_instruction_sets_by_linux_names(mac):
    mac("m2-pro")
    here = environment(8, system="darwin")

    assert here.cpu == "Apple M2 Pro"
    assert here.device == "Mac14,9"
    assert (here.performance_cores, here.efficiency_cores) == (8, 4)
    assert here.cpu_features == ("asimd", "asimddp", "i8mm")
    assert here.memory_bytes == 16 * 2**30
    assert here.emulator is None


def test_rosetta_is_an_emulator_and_its_process_has_none_of_the_chips_instruction_sets(mac):
    mac("m1-rosetta")
    here = environment(4, system="darwin")

    assert here.emulator == "Rosetta 2"
    assert here.cpu_features == ()
    assert here.device == "MacBookAir10,1"


def test_a_chip_whose_slower_cores_are_not_frugal_has_but_one_kind(mac):
    mac("m5-max")

    assert chip("darwin").performance_cores is None
    assert default_threads("darwin") == cores()


def test_an_intel_mac_knows_none_of_an_apple_chips_names(mac):
    mac("intel")
    here = chip("darwin")

    assert here.cpu.startswith("Intel")
    assert here.features == ()
    assert here.performance_cores is None
    assert here.emulator is None


def test_a_mac_without_sysctl_on_its_path_is_not_known_and_no_error(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert chip("darwin").cpu is None
    assert default_threads("darwin") == cores()


def test_by_default_the_fast_cores_alone_compute_and_never_more_than_this_process_may_use(mac, monkeypatch):
    mac("m2-pro")
    monkeypatch.setattr("edgeml_runtime.machine.cores", lambda: 12)
    assert default_threads("darwin") == 8

    monkeypatch.setattr("edgeml_runtime.machine.cores", lambda: 2)
    assert default_threads("darwin") == 2


CAPACITY = "sys/devices/system/cpu/cpu{}/cpu_capacity"


@pytest.mark.parametrize(
    ("capacities", "kinds"),
    [
        ((414, 414, 414, 414, 1024, 1024, 1004, 1004), (4, 4)),  # RK3588: four A55, two pairs of A76
        ((325, 325, 325, 800, 800, 800, 800, 1024), (5, 3)),  # a phone: small, middle and one prime core
        ((1024, 1024, 1024, 1024), None),  # a Raspberry Pi
        ((960, 1024, 1024, 960), None),  # binned cores are all of one kind
        ((), None),
    ],
)
def test_cores_below_six_tenths_of_the_largest_capacity_are_frugal(tmp_path, capacities, kinds):
    tree(tmp_path, {CAPACITY.format(place): capacity for place, capacity in enumerate(capacities)})

    assert core_kinds(set(range(8)), tmp_path) == kinds


def test_intels_two_kinds_are_named_and_threads_of_one_core_count_once(tmp_path):
    tree(tmp_path, {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-6,8"})
    siblings = {0: "0-1", 1: "0-1", 2: "2-3", 3: "2-3"}
    topology = "sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    tree(tmp_path, {topology.format(place): pair for place, pair in siblings.items()})

    assert core_kinds(set(range(9)), tmp_path) == (2, 4)
    assert core_kinds({0, 4}, tmp_path) == (1, 1)


@pytest.mark.parametrize("allowed", [{0, 1}, {4, 5}])
def test_a_process_held_to_one_kind_of_core_sees_one_kind(tmp_path, allowed):
    tree(tmp_path, {"sys/devices/cpu_core/cpus": "0-3", "sys/devices/cpu_atom/cpus": "4-7"})

    assert core_kinds(allowed, tmp_path) is None


class Kernel:
    """Windows' kernel32, as far as it fills the two structures; `worked` is what its functions return."""

    def __init__(self, *, worked=1):
        self._worked = worked

    def GetCurrentProcess(self):  # noqa: N802 - Windows' own name
        return 2**64 - 1  # its pseudo handle, -1

    def K32GetProcessMemoryInfo(self, process, counters, size):  # noqa: N802
        raw = bytearray(80)
        raw[0:4] = (80).to_bytes(4, "little")
        raw[8:16] = (150 * 2**20).to_bytes(8, "little")  # PeakWorkingSetSize
        raw[16:24] = (90 * 2**20).to_bytes(8, "little")  # WorkingSetSize
        raw[72:80] = (70 * 2**20).to_bytes(8, "little")  # PrivateUsage
        assert (process.value, size.value, counters._obj.cb) == (2**64 - 1, 80, 80)
        ctypes.memmove(counters, bytes(raw), len(raw))
        return self._worked

    def GlobalMemoryStatusEx(self, status):  # noqa: N802
        assert status._obj.length == ctypes.sizeof(windows.MemoryStatus) == 64
        ctypes.memmove(status, (64).to_bytes(4, "little") + bytes(4) + (16 * 2**30).to_bytes(8, "little"), 16)
        return self._worked


@pytest.mark.skipif(sys.maxsize < 2**32, reason="the bytes are those of a 64-bit process")
def test_windows_structures_lie_as_its_reference_has_them():
    assert windows.peak_working_set_bytes(Kernel()) == 150 * 2**20
    assert windows.memory_bytes(Kernel()) == 16 * 2**30


def test_windows_functions_that_fail_or_are_not_there_give_nothing():
    assert windows.peak_working_set_bytes(Kernel(worked=0)) is None
    assert windows.memory_bytes(Kernel(worked=0)) is None
    assert windows.peak_working_set_bytes() is None
    assert chip("win32").memory_bytes is None


def test_under_an_emulator_nothing_of_the_machine_beneath_is_told_as_the_devices(monkeypatch):
    monkeypatch.setattr("edgeml_runtime.qemu.emulator", lambda: "qemu-aarch64")

    found = environment(1, system="linux")

    assert found.emulator == "qemu-aarch64"
    assert (found.memory_bytes, found.governor, found.performance_cores, found.efficiency_cores) == (None,) * 4
