"""`edgeml bench --host`: a real OpenSSH client, a device that is really there, and rows that say what they are."""

import json
import os
import sys

import pytest

import ssh_server
from edgeml.store import Store
from edgeml.targets import profile
from edgeml.targets.emulator import emulator
from test_bench import PAIRS, two_variants
from tiny.commands import edgeml

pytestmark = pytest.mark.real
COMMON = ("--repeats", 20, "--threads", 1, "--json")


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with two variants and their data."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("EDGEML_CONFIG", str(tmp_path / "config"))
    store = Store(tmp_path / "artifacts")
    two_variants(store)
    header, *rows = PAIRS.splitlines(keepends=True)
    (tmp_path / "pairs.tsv").write_text(header + "".join(rows) * 4)
    return store


def bench(device, *arguments):
    path = f"{device.client}:{os.environ['PATH']}"
    return edgeml("bench", *arguments, "--data", "pairs.tsv", "--host", device.host, *COMMON, PATH=path)


def lines(done, schema="measurement"):
    found = [json.loads(line) for line in done.out.splitlines()]
    return [one for one in found if one["schema"] == f"edgeml.{schema}/1"]


@pytest.fixture
def laptop(tmp_path):
    """A device whose programs are this machine's own."""
    with ssh_server.device(tmp_path) as device:
        for name in ("python3", f"python3.{sys.version_info.minor}"):
            device.program(name, f'exec {sys.executable} "$@"')
        yield device


def test_a_device_that_is_real_gives_measured_rows(here, laptop):
    done = bench(laptop, "tiny/onnx-int8", "--baseline", "tiny/onnx-fp32", "--max-size", "1MB")

    assert done.code == 0, done.err
    assert {(one["how"], one["target"]) for one in lines(done)} == {("measured", "laptop")}
    assert {"spearman", "latency", "memory_peak"} <= {one["metric"] for one in lines(done)}
    assert [one["verdict"] for one in lines(done, "verdict")] == ["pass"]
    assert "first contact with pi@device" in done.err
    assert not list(here.root.rglob("*.part"))


def test_clean_leaves_nothing_behind(here, laptop):
    assert bench(laptop, "tiny/onnx-int8", "--clean").code == 0

    assert not list((laptop.home / ".cache").rglob("*.onnx"))
    assert not (laptop.home / ".cache" / "edgeml" / "bench").exists()


def test_a_profile_that_contradicts_the_device_is_refused(here, laptop):
    error, hint = bench(laptop, "tiny/onnx-int8", "--target", "pi5").refusal

    assert error.startswith("pi@device is no Raspberry Pi 5: ")
    assert hint


def test_a_changed_host_key_is_refused_with_what_to_do(here, laptop):
    laptop.change_host_key()

    error, hint = bench(laptop, "tiny/onnx-int8").refusal

    assert "key" in error
    assert "ssh-keygen -R" in hint


def test_a_virtual_pi_gives_rows_of_aarch64_that_are_emulated_and_have_no_times(here, emulator_cache, tmp_path):
    pi5 = emulator(profile("pi5"), "onnx")
    with ssh_server.virtual_pi(tmp_path, pi5.qemu, pi5.root, cpu=pi5.cpu) as pi:
        done = bench(pi, "tiny/onnx-int8", "--target", "pi5")

    assert done.code == 0, done.err
    assert {(one["how"], one["target"]) for one in lines(done)} == {("emulated", "pi5")}
    assert {one["environment"]["machine"] for one in lines(done)} == {"aarch64"}
    assert {one["environment"]["device"] for one in lines(done)} == {ssh_server.PI_5}
    assert all(one["environment"]["emulator"].startswith("qemu") for one in lines(done))
    assert not [one for one in lines(done) if one["unit"] in ("ms", "MiB", "J") or "/s" in one["unit"]]
    assert {"latency", "memory", "energy"} <= {one["metric"] for one in lines(done, "absent")}
