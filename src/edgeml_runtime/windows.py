"""What Windows tells of the machine's memory and of this process's.

There is no /proc and no counter of energy that needs no driver: of a run on Windows the peak is known, and energy only
by an outside meter's log. Source: Microsoft's Win32 reference: GetProcessMemoryInfo with PROCESS_MEMORY_COUNTERS_EX
(psapi.h), GlobalMemoryStatusEx with MEMORYSTATUSEX (sysinfoapi.h). Not yet run on Windows: the structures' layout and
what is read from them are tested on bytes made by hand.
"""

from __future__ import annotations

import ctypes
from typing import Any

_DWORD, _SIZE, _ULONGLONG = ctypes.c_uint32, ctypes.c_size_t, ctypes.c_uint64


class MemoryCounters(ctypes.Structure):
    """`PROCESS_MEMORY_COUNTERS_EX`; sizes in bytes."""

    _fields_ = (
        ("cb", _DWORD),
        ("page_fault_count", _DWORD),
        ("peak_working_set_size", _SIZE),
        ("working_set_size", _SIZE),
        ("quota_peak_paged_pool_usage", _SIZE),
        ("quota_paged_pool_usage", _SIZE),
        ("quota_peak_non_paged_pool_usage", _SIZE),
        ("quota_non_paged_pool_usage", _SIZE),
        ("pagefile_usage", _SIZE),
        ("peak_pagefile_usage", _SIZE),
        ("private_usage", _SIZE),
    )


class MemoryStatus(ctypes.Structure):
    """`MEMORYSTATUSEX`; sizes in bytes."""

    _fields_ = (
        ("length", _DWORD),
        ("memory_load", _DWORD),
        ("total_physical", _ULONGLONG),
        ("available_physical", _ULONGLONG),
        ("total_page_file", _ULONGLONG),
        ("available_page_file", _ULONGLONG),
        ("total_virtual", _ULONGLONG),
        ("available_virtual", _ULONGLONG),
        ("available_extended_virtual", _ULONGLONG),
    )


def peak_working_set_bytes(kernel: Any = None) -> int | None:
    """The most memory of this process that was ever resident, mapped files included; None where it is not told."""
    own = kernel or _kernel()
    if own is None:
        return None
    found = MemoryCounters(cb=ctypes.sizeof(MemoryCounters))
    process = ctypes.c_void_p(own.GetCurrentProcess())
    if not own.K32GetProcessMemoryInfo(process, ctypes.byref(found), _DWORD(ctypes.sizeof(found))):
        return None
    return found.peak_working_set_size or None


def memory_bytes(kernel: Any = None) -> int | None:
    """The machine's memory; None where it is not told."""
    own = kernel or _kernel()
    found = MemoryStatus(length=ctypes.sizeof(MemoryStatus))
    if own is None or not own.GlobalMemoryStatusEx(ctypes.byref(found)):
        return None
    return found.total_physical or None


def _kernel() -> Any:
    if not hasattr(ctypes, "WinDLL"):
        return None
    kernel = ctypes.WinDLL("kernel32")
    kernel.GetCurrentProcess.restype = ctypes.c_void_p
    return kernel
