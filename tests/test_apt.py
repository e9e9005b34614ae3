"""Packages by the machine's own apt: from an archive on disk, in a state that touches nothing of the machine's."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources.apt import check_apt, configure, failure, fetch_packages, unpack
from tiny.packages import apt_config, write_package

pytestmark = pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt here")


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "archive"
    folder.mkdir()
    monkeypatch.setenv("APT_CONFIG", str(apt_config(tmp_path / "etc", f"copy:{folder}")))
    write_package(folder, "tool", {"usr/bin/tool": "tool", "usr/share/doc/tool": "much"}, depends="library")
    write_package(folder, "library", {"lib/library.so": "library"})
    return folder


def test_packages_of_another_architecture_come_with_all_that_they_need(archive: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    found = fetch_packages(["tool"], "arm64", tmp_path / "work", step="get", progress=lambda *said: heard.append(said))
    assert sorted(path.name.partition("_")[0] for path in found) == ["library", "tool"]
    assert {step for step, _, _ in heard} == {"get: lists", "get"}
    assert all(0 <= done <= total == 100 for _, done, total in heard)


def test_only_the_wanted_files_of_a_package_are_unpacked(archive: Path, tmp_path: Path) -> None:
    unpack(archive / "tool.deb", tmp_path / "goal", lambda name: name.startswith("usr/bin/"))
    assert [path.read_text() for path in (tmp_path / "goal").rglob("*") if path.is_file()] == ["tool"]


def test_a_package_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "no.deb").write_bytes(b"no package")
    with pytest.raises(EdgemlError, match=r"cannot unpack no\.deb"):
        unpack(tmp_path / "no.deb", tmp_path / "goal", lambda name: True)


def test_sources_without_the_architecture_are_told_from_a_network_that_is_not_there(
    archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(EdgemlError, match="do not have what is needed for amd64") as caught:
        fetch_packages(["tool"], "amd64", tmp_path / "work", step="get", progress=silent)
    assert "ports" in caught.value.hint
    away = failure(
        "W: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'\nE: Unable to locate package a", "arm64"
    )
    assert isinstance(away, EdgemlError)
    assert "cannot reach its package sources: Failed to fetch http://x/InRelease" in away.message
    assert "network" in away.hint


def test_a_full_disk_stays_an_error_of_the_disk() -> None:
    for said in ("E: Write error - write (28: No space left on device)", "E: You don't have enough free space in /x/."):
        found = failure(said, "arm64")
        assert isinstance(found, OSError)
        assert found.errno == errno.ENOSPC


def test_the_state_is_private_and_no_hook_of_the_machine_is_left(tmp_path: Path) -> None:
    first = configure(tmp_path / "work", "arm64")
    dumped = subprocess.run(
        ["apt-config", "dump"], env=os.environ | {"APT_CONFIG": str(first)}, capture_output=True, text=True, check=True
    ).stdout
    set_to = dict(line.removesuffix(";").split(" ", 1) for line in dumped.splitlines() if " " in line)
    assert not [name for name in set_to if name.endswith("-Invoke::") or "Post-Invoke-Success::" in name]
    assert set_to["APT::Architecture"] == '"arm64"'
    for name in ("Dir::State", "Dir::State::status", "Dir::State::lists", "Dir::Cache", "Dir::Cache::archives"):
        assert str(tmp_path) in set_to[name]


def test_a_system_without_apt_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgemlError, match="no apt-get and no dpkg-deb"):
        check_apt()
