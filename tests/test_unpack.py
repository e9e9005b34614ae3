"""Unpacking wheels on a device: which fit, where they go, and that no half of it is ever used."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgeml_runtime import unpack as module
from edgeml_runtime.records import sha256
from edgeml_runtime.unpack import fits, unpack
from tiny.refusals import refusal

HERE = f"cp3{sys.version_info.minor}"
MACHINE = platform.machine()


def wheel(folder, name, content="x"):
    folder.mkdir(exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        archive.writestr(f"{name.partition('-')[0]}.py", content)


@pytest.fixture
def bundle(tmp_path, monkeypatch):
    """A folder with two wheels for this Python and one for another, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = tmp_path / "bundle"
    folder.mkdir()
    wheel(folder / "wheels", "one-1.0-py3-none-any.whl")
    wheel(folder / "wheels", f"two-1.0-{HERE}-{HERE}-linux_{MACHINE}.whl")
    wheel(folder / "wheels", f"two-1.0-cp39-cp39-linux_{MACHINE}.whl", content="old")
    write(folder)
    return folder


def write(folder, **changed):
    wheels = sorted((folder / "wheels").glob("*.whl"))
    files = [{"path": f"wheels/{path.name}", "sha256": sha256(path), "size_bytes": 1} for path in wheels]
    manifest = {"machine": MACHINE, "python": ["3.9", HERE], "files": files} | changed
    (folder / "bundle.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    "tags",
    [
        "py3-none-any",
        "py2.py3-none-any",
        f"{HERE}-{HERE}-linux_{MACHINE}",
        f"{HERE}-{HERE}-manylinux_2_17_{MACHINE}.manylinux2014_{MACHINE}",
        f"cp310-abi3-manylinux_2_17_{MACHINE}",
        f"py3-none-linux_{MACHINE}",
    ],
)
def test_wheels_for_this_machine_fit(tags):
    assert fits(f"package-1.0-{tags}.whl")


@pytest.mark.parametrize(
    "tags",
    [
        f"cp39-cp39-linux_{MACHINE}",
        f"cp399-abi3-linux_{MACHINE}",
        f"{HERE}-{HERE}t-linux_{MACHINE}",
        f"{HERE}-{HERE}-linux_riscv64",
        f"{HERE}-{HERE}-musllinux_1_2_{MACHINE}",
        f"{HERE}-{HERE}-macosx_11_0_{MACHINE}",
        f"{HERE}-{HERE}-manylinux_2_999_{MACHINE}",
    ],
)
def test_wheels_for_another_machine_or_library_do_not_fit(tags):
    assert not fits(f"package-1.0-{tags}.whl")


def test_a_system_without_glibc_takes_only_wheels_without_machine_code(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert fits("package-1.0-py3-none-any.whl")
    assert not fits(f"package-1.0-{HERE}-{HERE}-manylinux_2_17_{MACHINE}.whl")


def test_of_each_package_the_fitting_wheel_is_unpacked_beside_the_bundle(bundle):
    site = unpack(bundle)
    assert site.parent == bundle
    assert sorted(path.name for path in site.iterdir()) == ["one.py", "two.py"]
    assert (site / "two.py").read_text() == "x"
    assert unpack(bundle) == site
    assert len(list(bundle.glob(".site-*"))) == 1


def test_a_bundle_copied_over_an_older_one_unpacks_its_own_wheels(bundle):
    site = unpack(bundle)
    wheel(bundle / "wheels", "one-1.0-py3-none-any.whl", content="new")
    write(bundle)
    assert unpack(bundle) != site
    assert (unpack(bundle) / "one.py").read_text() == "new"


def test_where_the_bundle_cannot_be_written_the_users_cache_is_used(bundle, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    homes = (tmp_path / "file" / "below", tmp_path / "cache")
    digest = sha256(bundle / "wheels" / "one-1.0-py3-none-any.whl")
    site = module._make(homes, ".site", bundle / "wheels", {"one-1.0-py3-none-any.whl": digest})
    assert site == tmp_path / "cache" / ".site"
    assert "can be written" in refusal(module._make, (homes[0], homes[0]), ".site", bundle, {})


def test_a_changed_wheel_is_refused_and_leaves_nothing(bundle):
    wheel(bundle / "wheels", f"two-1.0-{HERE}-{HERE}-linux_{MACHINE}.whl", content="y")
    assert "two-1.0" in refusal(unpack, bundle)
    assert not list(bundle.glob(".site-*"))


def test_a_missing_wheel_is_refused_and_leaves_nothing(bundle):
    (bundle / "wheels" / "one-1.0-py3-none-any.whl").unlink()
    assert "one-1.0" in refusal(unpack, bundle)
    assert not list(bundle.glob(".site-*"))


def test_a_process_that_was_as_quick_is_no_error(tmp_path):
    for name in ("part", "goal"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    assert module._take_name(tmp_path / "part", tmp_path / "goal").joinpath("file").read_text() == "goal"


def test_a_package_without_a_fitting_wheel_is_told_with_what_is_here(bundle):
    wheel(bundle / "wheels", "three-1.0-cp39-cp39-linux_riscv64.whl")
    write(bundle)
    message = refusal(unpack, bundle)
    assert "3.9 or" in message
    assert f"Python 3.{sys.version_info.minor}" in message
    assert MACHINE in message


def test_another_machine_is_told(bundle):
    write(bundle, machine="riscv64")
    assert "on riscv64, and this is" in refusal(unpack, bundle)


def test_a_bundle_without_wheels_needs_no_folder(tmp_path):
    write(tmp_path)
    assert unpack(tmp_path) == tmp_path


@pytest.mark.parametrize("text", ["", "[]", '{"machine": "x"}', '{"machine": 1, "python": [], "files": [1]}'])
def test_a_manifest_that_cannot_be_read_is_a_sentence(tmp_path, text):
    (tmp_path / "bundle.json").write_text(text)
    assert "no bundle's manifest" in refusal(unpack, tmp_path)
    assert "cannot read" in refusal(unpack, tmp_path / "none")


def test_preparing_needs_nothing_but_the_standard_library(bundle):
    source = str(Path(module.__file__).parents[1])
    command = [sys.executable, "-S", "-P", "-m", "edgeml_runtime", "prepare", str(bundle)]
    environment = os.environ | {"PYTHONPATH": source, "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(unpack(bundle)), done.stderr
