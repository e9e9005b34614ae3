"""A device's own side of a deployment with an endpoint: whatever ends a switch, what was before comes back."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from edgeml_runtime.deployment import installer
from edgeml_runtime.device import ANSWER
from test_deploy import endpoint

POWER_GOES = '[ "$2" != restart ] || kill -9 $PPID'  # in the moment that the new version is to be served
BLOCKS = '[ "$2" != restart ] || { echo x > "$HOME/came"; cat "$HOME/go"; }'


class Computer(NamedTuple):
    """A home of its own, where systemd is a program that says yes, and an address where an endpoint is ready."""

    home: Path
    port: int

    @property
    def root(self) -> Path:
        """Where it is installed."""
        return self.home / "tiny"

    def systemd(self, script: str = "") -> None:
        """What `systemctl` does beside writing down what it was asked."""
        path = self.home / "bin" / "systemctl"
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "$*" >> "$HOME/asked"\n{script}\n')
        path.chmod(0o755)

    def ask(self, number: int, **more: Any) -> dict[str, Any]:
        """What asks for a version, whose files all lie there."""
        files = {"run.sh": "", "bundle.json": "{}", "variant/model": f"weights {number}"}
        sums = "".join(f"{hashlib.sha256(text.encode()).hexdigest()}  {name}\n" for name, text in files.items())
        told = {}
        for name, text in (files | {"SHA256SUMS": sums}).items():
            digest = hashlib.sha256(text.encode()).hexdigest()
            told[name] = (digest, len(text))
            path = self.home / ".cache/edgeml/bench/files" / digest
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        ask = {"root": str(self.root), "token": os.urandom(4).hex(), "who": "me", "files": told, "keep": False}
        ask |= {"version": told["SHA256SUMS"][0], "service": False, "settings": None, "test_s": 20.0, "ready_s": 5.0}
        return ask | {"lacks": [digest for digest, _ in told.values()]} | more

    def starts(self, command: str, ask: dict[str, Any]) -> subprocess.Popen[bytes]:
        """A process that carries it out."""
        environment = os.environ | {"HOME": str(self.home), "PATH": f"{self.home}/bin:{os.environ['PATH']}"}
        call = [sys.executable, "-m", "edgeml_runtime.deployment.installer", command]
        child = subprocess.Popen(call, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert child.stdin
        child.stdin.write(json.dumps(ask).encode() + b"\n")
        child.stdin.close()
        return child

    def does(self, command: str, ask: dict[str, Any]) -> Any:
        """Its answer; None where it was ended before."""
        with self.starts(command, ask) as child:
            assert child.stdout
            said = child.stdout.read()
        return json.loads(said.removeprefix(ANSWER)) if child.returncode == 0 else None

    @property
    def state(self) -> dict[str, str | None]:
        """Its links, its endpoint's settings, and whether a switch is under way."""
        links = {name: (self.root / name) for name in (installer.CURRENT, installer.PREVIOUS)}
        told = {name: path.readlink().name if path.is_symlink() else None for name, path in links.items()}
        serve = self.root / "serve.toml"
        told["settings"] = serve.read_text() if serve.exists() else None
        return told | {"under way": "yes" if (self.root / "switching").exists() else "no"}


@pytest.fixture(scope="module")
def _first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Computer]:
    folder = tmp_path_factory.mktemp("installer")
    with endpoint(folder / "www") as port:
        made = Computer(folder / "home", port)
        made.home.mkdir()
        made.systemd()
        ask = made.ask(1, service=True, settings=f"port = {port}\n")
        assert made.does("install", ask)["outcome"] == "deployed"
        shutil.copytree(made.home, folder / "first", symlinks=True)
        yield made


@pytest.fixture
def computer(_first: Computer) -> Computer:
    """A computer with a first version in use, and its endpoint."""
    shutil.rmtree(_first.home)
    shutil.copytree(_first.home.with_name("first"), _first.home, symlinks=True)
    return _first


def cut(computer: Computer) -> dict[str, str | None]:
    """The power goes amid the switch to a second version with other settings; what was before."""
    before = computer.state
    computer.systemd(POWER_GOES)
    assert computer.does("install", computer.ask(2, settings="port = 1\n")) is None
    assert computer.state["under way"] == "yes"
    assert computer.state["current"] != before["current"]
    computer.systemd()
    return before


def test_after_a_power_cut_amid_a_switch_the_next_deployment_begins_from_what_was_before(computer: Computer) -> None:
    before = cut(computer)
    told = computer.does("install", computer.ask(2, settings="port = 1\n", ready_s=0.01))

    assert (told["outcome"], told["before"], told["after"]) == ("rolled back", before["current"], before["current"])
    assert computer.state == before


def test_after_a_power_cut_amid_a_switch_there_is_no_older_version_than_before_to_roll_back_to(
    computer: Computer,
) -> None:
    before = cut(computer)
    told = computer.does("rollback", computer.ask(2))

    assert (told["reason"], told["before"]) == ("there is no previous version", before["current"])
    assert computer.state == before
    asked = (computer.home / "asked").read_text().splitlines()
    assert asked[-1] == "--user start edgeml-tiny.service"


def test_a_first_service_whose_switch_was_cut_is_gone_again(tmp_path: Path) -> None:
    computer = Computer(tmp_path / "home", 1)
    computer.home.mkdir()
    computer.systemd(POWER_GOES)
    assert computer.does("install", computer.ask(1, service=True, settings="port = 1\n")) is None
    (unit,) = (computer.home / ".config/systemd/user").iterdir()
    computer.systemd()
    computer.does("rollback", computer.ask(1))

    assert not unit.exists()
    assert computer.state == {"current": None, "previous": None, "settings": None, "under way": "no"}
    assert "--user disable edgeml-tiny.service" in (computer.home / "asked").read_text().splitlines()


def test_an_attempt_that_is_abandoned_amid_its_switch_is_undone(computer: Computer) -> None:
    before = computer.state
    for name in ("came", "go"):
        os.mkfifo(computer.home / name)
    computer.systemd(BLOCKS)
    ask = computer.ask(2)
    with computer.starts("install", ask) as attempt:
        (computer.home / "came").read_text()
        computer.systemd()
        assert computer.does("abandon", ask) == {}
        assert attempt.wait(10) < 0
    assert computer.state == before


@pytest.mark.parametrize("settings", ["port = ", "port = 1\nhost = 3\n", "port = 1\n"])
def test_an_endpoint_that_is_not_ready_or_has_no_settings_that_can_be_read_is_taken_back(
    computer: Computer, settings: str
) -> None:
    before = computer.state
    told = computer.does("install", computer.ask(2, settings=settings, ready_s=0.01))

    assert told["outcome"] == "rolled back"
    assert told["reason"].startswith(("its endpoint was not ready at ", f"{computer.root}/serve.toml is no TOML: "))
    assert computer.state == before


def test_a_rollback_to_a_version_that_is_not_ready_is_taken_back(computer: Computer) -> None:
    assert computer.does("install", computer.ask(2))["outcome"] == "deployed"
    before = computer.state
    told = computer.does("rollback", computer.ask(1, ready_s=0.0))

    assert told["outcome"] == "rolled back"
    assert computer.state == before
