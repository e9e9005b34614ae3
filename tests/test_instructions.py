"""Instructions that an inference takes on a device's processor: counted where they can be, absent where not."""

from __future__ import annotations

import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import pytest

from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.targets import profile
from edgeml.targets.instructions import count_instructions, prepare_counter
from edgeml_runtime.types import Absent, Samples
from tiny.commands import inside, tree
from tiny.jobs import pair_job
from tiny.variants import onnx_variant

PI5 = profile("pi5")


def test_without_what_counts_they_are_absent_with_the_command_that_gets_it(tmp_path: Path) -> None:
    found = count_instructions(pair_job(tmp_path), PI5, "onnx", progress=silent)
    assert isinstance(found, Absent)
    assert (found.metric, found.target) == ("instructions", "pi5")
    assert found.hint == "edgeml download --emulator --count-instructions --target pi5"


def test_what_counts_them_belongs_to_an_emulated_device() -> None:
    done = inside("download", "--count-instructions", "--target", "laptop")
    assert done.refusal[0].endswith("nothing here runs its programs")


def test_without_a_compiler_nothing_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EdgemlError, match="no C compiler"):
        prepare_counter(PI5, progress=silent)
    assert tree(tmp_path) == {}


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_plugin_compiles_without_a_warning(tmp_path: Path) -> None:
    source = str(files("edgeml.targets") / "instructions.c")
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror", "-pedantic", "-std=c11"]
    subprocess.run(["cc", *flags, "-o", tmp_path / "plugin.so", source], check=True)
    assert b"qemu_plugin_install" in (tmp_path / "plugin.so").read_bytes()


@pytest.mark.real
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_a_longer_text_takes_more_instructions_and_a_second_count_agrees(emulator_cache: Path, tmp_path: Path) -> None:
    try:
        prepare_counter(PI5, progress=silent)
    except EdgemlError as error:
        if "takes no plugins" not in error.message:  # as Debian's does from 13 on
            raise
        pytest.skip(error.message)
    folder = onnx_variant(tmp_path / "variant", max_tokens=512).path
    short, again, long = (
        count_instructions(pair_job(folder, words=words), PI5, "onnx", progress=silent) for words in (20, 20, 80)
    )
    assert all(isinstance(one, Samples) and one.how == "emulated" for one in (short, again, long))
    assert 0 < short.values[0] < long.values[0]
    assert again.values[0] == pytest.approx(short.values[0], rel=0.1)
