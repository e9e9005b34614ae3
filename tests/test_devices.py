"""Devices under a name: met over SSH, kept in the user's configuration, taken by `--host`."""

import json
import os
import re
from datetime import UTC, datetime

import pytest

import ssh_server
from edgeml.devices import add, config_folder, devices, host_of, remove
from edgeml.errors import EdgemlError
from edgeml.targets import own_name, profile
from edgeml.targets.ssh.probe import concerns
from edgeml.targets.types import Device, Probe
from tiny.commands import inside

NOW_S = datetime(2026, 1, 1, tzinfo=UTC).timestamp()


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A device that a plain `ssh` finds under `pi@device`."""
    monkeypatch.setenv("EDGEML_CONFIG", str(tmp_path / "config"))
    with ssh_server.device(tmp_path) as found:
        monkeypatch.setenv("PATH", f"{found.client}:{os.environ['PATH']}")
        yield found


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEML_CONFIG", str(tmp_path / "config"))
    return tmp_path / "config"


def told(**facts):
    return Probe(machine="aarch64", userland_bits=64, system="Linux 6.12", pythons=("3.11",), home="home", **facts)


def test_a_device_that_was_met_is_kept_with_what_it_turned_out_to_be(device):
    added, found = add("kitchen", device.host)

    assert added.host == device.host
    assert profile(added.target).name == own_name()
    assert found.home == f"{device.folder}/home"
    assert devices() == [added]
    assert host_of("kitchen") == added


def test_what_is_no_name_goes_to_ssh_as_it_is(config):
    for text in ("pi@10.0.0.7", "ssh://pi@10.0.0.7:2222", "alias-of-my-config"):
        assert host_of(text) == Device(name=text, host=text)


def test_a_device_that_cannot_be_reached_is_not_kept(device):
    device.lets_in = "password"

    with pytest.raises(EdgemlError, match="lets nobody in"):
        add("kitchen", device.host)
    assert devices() == []


def test_a_device_that_is_not_what_it_should_be_is_not_kept(device):
    with pytest.raises(EdgemlError, match=f"{device.host} is no Raspberry Pi 5"):
        add("kitchen", device.host, profile("pi5"))
    assert devices() == []


def test_a_name_stays_with_its_device_until_it_is_removed(device):
    add("kitchen", device.host)
    add("kitchen", device.host)

    with pytest.raises(EdgemlError, match=f"kitchen is already {device.host}") as caught:
        add("kitchen", "pi@elsewhere")
    assert "edgeml devices remove kitchen" in caught.value.hint
    assert remove("kitchen").host == device.host
    assert devices() == []


@pytest.mark.parametrize("name", ["pi@device", "a/b", "-x", "", "a b"])
def test_a_name_that_could_be_a_host_is_refused_before_anything_is_asked(config, name):
    with pytest.raises(EdgemlError, match="cannot name a device"):
        add(name, "pi@device")


def test_an_unknown_name_cannot_be_removed_and_the_nearest_is_named(device):
    with pytest.raises(EdgemlError, match="unknown device") as caught:
        remove("kitchen")
    assert "edgeml devices add" in caught.value.hint

    add("kitchen", device.host)
    with pytest.raises(EdgemlError, match="unknown device") as caught:
        remove("kitchn")
    assert "did you mean kitchen?" in caught.value.hint


def test_a_broken_file_of_devices_is_refused_by_its_name(config):
    config.mkdir()
    (config / "devices.json").write_text('{"schema": "edgeml.devices/2"}')

    with pytest.raises(EdgemlError, match=r"devices\.json has schema"):
        devices()


def test_names_lie_in_the_users_configuration(monkeypatch, tmp_path):
    monkeypatch.delenv("EDGEML_CONFIG")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert config_folder() == tmp_path / "edgeml"
    monkeypatch.delenv("XDG_CONFIG_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert config_folder() == tmp_path / "home/.config/edgeml"


@pytest.mark.parametrize(
    ("facts", "word"),
    [
        ({"emulator": "qemu-aarch64-static"}, "never called measured"),
        ({"throttled": ("under_voltage", "had_under_voltage")}, "throttles now \\(under_voltage\\)"),
        ({"disk_free_bytes": 90_000_000}, "90 MB of free disk"),
        ({"unix_time_s": NOW_S - 3600}, "3600 s behind"),
        ({"unix_time_s": NOW_S + 90}, "90 s ahead of"),
    ],
)
def test_what_would_spoil_a_measurement_is_said_when_a_device_is_met(facts, word):
    (text,) = concerns(told(**facts), NOW_S)

    assert re.search(word, text)


def test_a_device_in_order_gives_no_concern():
    facts = {"throttled": ("had_throttled",), "disk_free_bytes": 20_000_000_000, "unix_time_s": NOW_S + 2}

    assert concerns(told(**facts), NOW_S) == []


def test_the_command_line_adds_lists_and_removes(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    done = inside("devices", "add", "kitchen", device.host, "--json")
    assert done.code == 0, done.err
    assert [json.loads(line)["schema"] for line in done.out.splitlines()] == ["edgeml.device/1", "edgeml.probe/1"]
    shown = inside("devices").out
    assert re.search(rf"^kitchen +{device.host} +\S+$", shown, re.MULTILINE)
    assert json.loads(inside("devices", "list", "--json").out)["name"] == "kitchen"
    assert inside("devices", "remove", "kitchen").code == 0
    assert "no device has a name yet" in inside("devices").err


def test_a_device_is_shown_with_what_decides_what_runs_on_it(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    shown = inside("devices", "add", "kitchen", device.host).out

    assert re.search(r"^machine +\w+, 64-bit programs$", shown, re.MULTILINE)
    assert re.search(r"^memory +[\d.]+ GB, [\d.]+ GB available$", shown, re.MULTILINE)
    assert re.search(r"^Python +(3\.\d+(, )?)+$", shown, re.MULTILINE)


def test_a_first_contact_needs_consent_on_the_command_line_too(device, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    device.forget_host_key()

    done = inside("devices", "add", "kitchen", device.host)
    assert done.code == 3
    assert "--accept-new" in done.refusal[1]
    assert inside("devices", "add", "kitchen", device.host, "--accept-new").code == 0
