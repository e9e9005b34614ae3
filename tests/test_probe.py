"""A device says what it is: read from one that is there, and from what others would say."""

import ast
import json
import os
import platform
import sys
import time
from pathlib import Path

import pytest

import ssh_server
from edgeml.errors import EdgemlError
from edgeml.targets import emulator, profile
from edgeml.targets.recognition import contradictions, recognised
from edgeml.targets.ssh.connection import Connection
from edgeml.targets.ssh.probe import probe, read
from edgeml_runtime import facts, machine

# A Raspberry Pi OS whose programs are for 32 bits under a kernel for 64, as it was the default until 2023.
PI_4_32 = {
    "machine": "aarch64",
    "userland_bits": 32,
    "system": "Linux 6.6.31+rpt-rpi-v8",
    "pythons": ["3.11"],
    "home": "home",
    "model": "Raspberry Pi 4 Model B Rev 1.4",
    "release": "Raspbian GNU/Linux 12 (bookworm)",
    "cpu_part": "0xd08",
    "cpu_features": ["fp", "asimd", "evtstrm", "crc32", "cpuid"],
    "cores": 4,
    "memory_bytes": 3_975_352_320,
    "memory_available_bytes": 3_100_000_000,
    "disk_free_bytes": 20_000_000_000,
    "page_bytes": 4096,
    "libc": "glibc 2.36",
    "governor": "ondemand",
    "throttled": "throttled=0x50005",
    "emulator": None,
    "unix_time_s": 1.7e9,
}


@pytest.fixture
def device(tmp_path):
    with ssh_server.device(tmp_path) as found:
        yield found


def ask(device):
    with Connection(device.host, options=device.options) as connection:
        return probe(connection)


def told(**different):
    return read(json.dumps(PI_4_32 | different).encode(), where="a Pi")


def program(folder, name, script):
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def test_a_device_says_of_itself_what_its_own_python_knows(device):
    found = ask(device)

    assert found.machine == platform.machine()
    assert found.system == f"{platform.system()} {platform.release()}"
    assert found.userland_bits == 64
    assert f"3.{sys.version_info.minor}" in found.pythons
    assert found.home == f"{device.folder}/home"
    assert found.cores == machine.cores()
    assert found.memory_bytes == machine.chip().memory_bytes
    assert set(machine.cpu_features()) <= set(found.cpu_features)
    assert found.page_bytes == os.sysconf("SC_PAGE_SIZE")
    assert found.libc == os.confstr("CS_GNU_LIBC_VERSION")
    assert found.memory_available_bytes < found.memory_bytes
    assert found.emulator is None
    assert abs(found.unix_time_s - time.time()) < 60


def test_all_is_asked_in_one_call(device):
    ask(device)

    assert device.connections == len(device.commands) == 1


def test_free_disk_is_that_where_the_cache_will_be(tmp_path):
    with ssh_server.device(tmp_path, disk_bytes=1 << 20) as device:
        assert 0 < ask(device).disk_free_bytes <= 1 << 20


def test_a_device_without_python_is_refused_with_how_to_install_it(tmp_path):
    with ssh_server.device(tmp_path, setup="mount -t tmpfs none /usr/local/bin") as device:
        (device.programs / "python3").unlink()
        device.program("sh", 'exec /bin/sh "$@"')
        device.environment["PATH"] = str(device.programs)

        with pytest.raises(EdgemlError, match="pi@device has no python3") as caught:
            ask(device)
    assert "sudo apt install python3" in caught.value.hint


def test_a_python_of_the_users_own_counts_though_nobody_logged_in(device):
    (device.home / ".local/bin").mkdir(parents=True)
    program(device.home / ".local/bin", "python3.99", "echo Python 3.99.0")

    assert "3.99" in ask(device).pythons


def test_a_python_that_does_not_work_is_refused_in_its_own_words(device):
    device.program("python3", "echo 'xcode-select: note: No developer tools were found' >&2; exit 1")

    with pytest.raises(EdgemlError, match="No developer tools were found"):
        ask(device)


def test_32_bit_programs_under_a_64_bit_kernel_are_told_and_contradict_the_board():
    found = told()

    assert (found.machine, found.userland_bits) == ("aarch64", 32)
    assert any("32" in reason for reason in contradictions(profile("pi4"), found))


@pytest.mark.parametrize(
    ("said", "bits"),
    [
        ("throttled=0x50005", ("under_voltage", "throttled", "had_under_voltage", "had_throttled")),
        ("50005", ("under_voltage", "throttled", "had_under_voltage", "had_throttled")),
        ("throttled=0x0", ()),
        ("VCHI initialization failed", None),
        (None, None),
    ],
)
def test_the_firmwares_bits_are_named_and_a_refusal_of_the_firmware_is_no_bits(said, bits):
    assert told(throttled=said).throttled == bits


def test_what_cannot_be_read_is_refused():
    with pytest.raises(EdgemlError, match="cannot be read"):
        read(b"Welcome", where="a Pi")
    with pytest.raises(EdgemlError, match="userland_bits"):
        told(userland_bits="many")


def test_a_python_counts_by_what_it_says_not_by_its_name(tmp_path):
    program(tmp_path, "python3.12", "echo Python 3.12.4")
    program(tmp_path, "python3.13", "echo 'pyenv: python3.13: command not found' >&2; exit 127")
    program(tmp_path, "python3-config", "echo Python 3.14.0")
    program(tmp_path, "python3", "echo Python 3.9.2")

    own = f"3.{sys.version_info.minor}"
    assert set(facts.pythons(f"{tmp_path}:/nowhere")) == {"3.9", "3.12", own}


def test_a_mac_is_asked_by_its_own_words(tmp_path, monkeypatch):
    answer = (
        "hw.model: Mac14,2\nhw.memsize: 17179869184\nmachdep.cpu.brand_string: Apple M2\n"
        "hw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\nhw.optional.arm.FEAT_SME: 0"
    )
    program(tmp_path, "sysctl", f"echo '{answer}'")
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin")
    monkeypatch.setattr(platform, "system", lambda: "Darwin")

    found = read(json.dumps(facts.facts()).encode(), where="a Mac")

    assert found.model == "Apple M2"
    assert found.memory_bytes == 16 << 30
    assert found.cpu_features == ("asimddp", "i8mm")
    assert found.memory_available_bytes is None


def test_the_script_needs_nothing_but_an_old_python():
    text = Path(facts.__file__).read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 7))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}

    assert imported <= set(sys.stdlib_module_names)


@pytest.mark.real
def test_an_emulated_board_is_told_as_one_and_is_never_taken_for_a_real_one(tmp_path, emulator_cache):
    pi = emulator.emulator(profile("pi5"), "onnx")
    with ssh_server.virtual_pi(tmp_path, pi.qemu, pi.root, cpu=pi.cpu) as device:
        found = ask(device)

    assert (found.machine, found.userland_bits, found.cpu_part) == ("aarch64", 64, "0xd0b")
    assert recognised(found).name == "pi5"
    assert found.throttled == ()
    assert found.emulator
