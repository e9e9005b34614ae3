"""A device that is not there: what it is made of, what is refused, and what real libraries do on its processor."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from edgeml.download import emulated_device
from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.sources.pip import run_pip
from edgeml.targets import emulated, local, profile, profiles
from edgeml.targets.emulator import check_possible, cpuinfo, emulator, made_once, python_of, qemu_file, root_folder
from edgeml.targets.emulator_parts import prepare
from edgeml.wheels import cached_wheels, requirements, wheel_folder
from edgeml_runtime import qemu
from test_interrupt import SAID, both, ended, needs_proc, running, started, stuck_server
from tiny.commands import inside, tree
from tiny.jobs import pair_job
from tiny.packages import apt_config
from tiny.variants import onnx_variant
from tiny.wheels import write_wheel

PI4, PI5 = profile("pi4"), profile("pi5")
EMULATED = [found for found in profiles() if found.emulated_cpu]
ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00"
AARCH64, X86_64 = b"\xb7\x00", b"\x3e\x00"

possible = pytest.mark.skipif(
    (platform.system(), platform.machine()) != ("Linux", "x86_64"), reason="devices are emulated on Linux on x86-64"
)
has_apt = pytest.mark.skipif(not (shutil.which("apt-get") and shutil.which("dpkg-deb")), reason="no apt here")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def parts(cache: Path) -> Callable[[str], None]:
    """Puts a script in the emulator's place, and a root that holds the name of a Python."""

    def put(script: str) -> None:
        write_program(qemu_file(), script)
        write_program(root_folder() / "usr/bin/python3.11", "")
        (root_folder() / "lib").mkdir()

    return put


def write_program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def put_wheels(format: str, *, but: str = "") -> None:
    folder = wheel_folder(PI5, "3.11", format)
    for wanted in requirements(format):
        name, _, version = wanted.partition("==")
        if name != but:
            package = name.replace("-", "_")
            write_wheel(folder, {f"{package}/__init__.py": b""}, name=name, version=version)


@pytest.mark.parametrize("target", EMULATED, ids=lambda found: found.name)
def test_the_processor_that_is_shown_is_the_one_that_is_emulated(target) -> None:
    shown = [dict(line.split("\t: ") for line in one.splitlines()) for one in cpuinfo(target, 3).split("\n\n") if one]
    assert [one["processor"] for one in shown] == ["0", "1", "2"]
    for one in shown:
        assert one["CPU part"] == target.cpu_part
        assert one["Features"].split() == list(target.cpu_features)
    assert ("asimddp" in target.cpu_features) == (target.emulated_cpu == "cortex-a76")
    assert target.emulated_cpu != "max"  # it knows every instruction, and so would hide those that a device lacks


def test_what_cannot_be_emulated_is_refused_with_what_can(monkeypatch: pytest.MonkeyPatch) -> None:
    done = inside("download", "--emulator", "--target", "laptop")
    assert done.code == 3
    assert done.refusal[1] == f"these can be emulated: {', '.join(found.name for found in EMULATED)}"
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(EdgemlError, match="this is Darwin on arm64") as caught:
        check_possible(PI5)
    assert "--host" in caught.value.hint


@possible
def test_a_cache_that_a_search_path_cannot_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "a:b"))
    with pytest.raises(EdgemlError, match="a folder with a colon in its name") as caught:
        emulator(PI5, "onnx")
    assert "EDGEML_CACHE" in caught.value.hint


@possible
def test_what_is_missing_is_named_with_the_command_that_gets_it(parts: Callable[[str], None]) -> None:
    with pytest.raises(EdgemlError, match="emulator of a Raspberry Pi 5 is not here yet") as caught:
        emulator(PI5, "onnx")
    assert caught.value.hint == "edgeml download --emulator --target pi5"
    parts("")
    put_wheels("onnx-image", but="pillow")
    with pytest.raises(EdgemlError, match="pillow") as caught:
        emulator(PI5, "onnx-image")
    assert caught.value.hint == "edgeml download --emulator --runtime onnx-image --target pi5"
    put_wheels("gguf", but="llama-cpp-python")
    with pytest.raises(EdgemlError, match="llama-cpp-python") as caught:
        emulator(PI5, "gguf")
    assert caught.value.hint == "edgeml runtime build --target pi5"


def test_of_two_that_make_the_same_folder_the_second_takes_that_of_the_first(tmp_path: Path) -> None:
    def make(folder: Path) -> None:
        (folder / "whose").write_text("second")
        made_once(tmp_path / "goal", lambda other: (other / "whose").write_text("first"))

    assert (made_once(tmp_path / "goal", make) / "whose").read_text() == "first"
    assert [path.name for path in tmp_path.glob("goal*")] == ["goal"]


@possible
def test_what_gets_the_parts_of_ones_own_profile_names_its_file(parts: Callable[[str], None]) -> None:
    own = replace(PI5, name="mine", file="mine.yaml", chosen_gb=4.0)
    with pytest.raises(EdgemlError) as caught:
        emulator(own, "onnx")
    assert caught.value.hint == "edgeml download --emulator --target mine.yaml:4gb"
    parts("")
    with pytest.raises(EdgemlError) as caught:
        emulator(own, "onnx")
    assert caught.value.hint.endswith("--target mine.yaml:4gb")


@possible
def test_devices_share_all_but_what_describes_their_processor_and_are_made_once(parts: Callable[[str], None]) -> None:
    parts("")
    put_wheels("onnx")
    pi5, pi4 = emulator(PI5, "onnx"), emulator(PI4, "onnx")
    assert pi5.site == pi4.site
    assert {path.name for path in pi5.site.glob("*/__init__.py")} == {"__init__.py"}
    for one in (pi5, pi4):
        assert (one.root / "usr").samefile(root_folder() / "usr")
        assert (one.root / "proc/cpuinfo").read_text() == cpuinfo(one.profile, os.cpu_count() or 1)
        assert (one.root / "proc/device-tree/model").read_text().startswith(one.profile.title)
        assert one.command()[4:8] == [str(qemu_file()), "-cpu", one.profile.emulated_cpu, "-L"]
    made = [path.stat().st_ino for path in (pi5.root, pi5.site)]
    again = emulator(PI5, "onnx")
    assert [path.stat().st_ino for path in (again.root, again.site)] == made
    put_wheels("gguf")
    assert emulator(PI5, "gguf").site != pi5.site


@possible
def test_an_emulator_of_this_machine_is_used_where_it_is_new_enough(
    parts: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts("")
    own = tmp_path / "bin/qemu-aarch64"
    monkeypatch.setenv("PATH", f"{own.parent}:/usr/bin:/bin")
    write_program(own, "echo qemu-aarch64 version 8.2.1")
    shutil.rmtree(qemu_file().parent)
    assert prepare(PI5, progress=silent) == "3.11"
    assert qemu_file().samefile(own)
    own.unlink()  # it was uninstalled
    write_program(own.with_name("qemu-aarch64-static"), "echo qemu-aarch64 version 5.2.0")
    monkeypatch.setenv("PATH", f"{own.parent}:{tmp_path}")
    (tmp_path / "sh").symlink_to("/bin/sh")
    with pytest.raises(EdgemlError, match="this system has no apt-get"):
        prepare(PI5, progress=silent)


@possible
def test_an_instruction_that_the_device_lacks_is_refused_by_the_library_that_was_at_work(
    parts: Callable[[str], None], tmp_path: Path
) -> None:
    parts('echo "  File \\"${PYTHONPATH#*:}/onnxruntime/__init__.py\\", line 1 in <module>" >&2; kill -ILL $$')
    put_wheels("onnx")
    version = dict(wanted.split("==") for wanted in requirements("onnx"))["onnxruntime"]
    with pytest.raises(EdgemlError) as caught:
        emulated.run(pair_job(tmp_path, trace=True), PI5, "onnx", progress=silent)
    assert caught.value.message == (
        f"onnxruntime {version} needs instructions that a Raspberry Pi 5 (Cortex-A76) lacks: "
        "its process died of SIGILL under emulation"
    )


@possible
def test_any_other_end_is_told_as_that_of_a_worker_here(parts: Callable[[str], None], tmp_path: Path) -> None:
    parts("echo out of memory >&2; kill -KILL $$")
    put_wheels("onnx")
    with pytest.raises(EdgemlError, match="died of SIGKILL") as caught:
        emulated.run(pair_job(tmp_path, trace=True), PI5, "onnx", progress=silent)
    assert "out of memory" in caught.value.hint


@possible
def test_an_outcome_is_never_taken_for_a_measurement_and_nothing_of_this_python_reaches_the_device(
    parts: Callable[[str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONHASHSEED", "7")
    parts(
        f'env | grep ^PYTHON >{tmp_path}/seen; ls "${{PYTHONPATH%:*}}" >>{tmp_path}/seen; '
        f'PYTHONPATH="${{PYTHONPATH%:*}}" exec {sys.executable} -P -m edgeml_runtime.worker'
    )
    put_wheels("onnx")
    outcome = emulated.run(pair_job(onnx_variant(tmp_path / "variant").path, trace=True), PI5, "onnx", progress=silent)
    assert outcome.environment.emulator == "qemu-aarch64"
    paths, packages = (tmp_path / "seen").read_text().splitlines()
    assert paths.startswith("PYTHONPATH=")
    assert paths.endswith(f":{emulator(PI5, 'onnx').site}")
    assert packages == "edgeml_runtime"


def test_an_emulator_is_seen_from_inside_by_the_program_that_the_kernel_names(tmp_path: Path) -> None:
    assert qemu.emulator() is None
    programs = {"python": AARCH64, "qemu-aarch64-static": X86_64}
    for name, machine in programs.items():
        (tmp_path / name).write_bytes(ELF + machine)
    for name in ("self", "thread-self"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "exe").symlink_to(tmp_path / "python")
    assert qemu.emulator(tmp_path) is None
    (tmp_path / "thread-self/exe").unlink()
    assert qemu.emulator(tmp_path) is None  # not every kernel has it
    (tmp_path / "thread-self/exe").symlink_to(tmp_path / "qemu-aarch64-static")
    assert qemu.emulator(tmp_path) == "qemu-aarch64-static"
    (tmp_path / "self/exe").unlink()
    (tmp_path / "self/exe").symlink_to(tmp_path / "qemu-aarch64-static")
    assert qemu.emulator(tmp_path) is None


@possible
@has_apt
@needs_proc
@both
def test_interrupted_in_the_midst_of_fetching_nothing_is_left(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(tmp_path)
    with stuck_server() as address:
        monkeypatch.setenv("APT_CONFIG", str(apt_config(tmp_path / "etc", address)))
        done = ended(started("download", "--emulator"), number, "download ", child="apt-get")
    assert (done.code, done.out) == (130, "")
    assert done.err.strip("\n").splitlines()[-2:] == SAID
    assert tree(cache) == {}
    assert not list(cache.rglob("*.part"))
    assert running() == []


@pytest.mark.real
@possible
@has_apt
def test_everything_comes_from_packages_and_a_second_time_nothing_is_fetched(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = emulated_device(PI5, "onnx")
    size = sum(path.lstat().st_size for path in (cache / "emulator").rglob("*") if path.is_file())
    assert size < 300e6  # stated as about 200 MB
    assert {path.name for path in (cache / "emulator").iterdir()} == {
        "qemu",
        "root",
        device.root.name,
        device.site.name,
    }
    monkeypatch.setenv("APT_CONFIG", str(apt_config(tmp_path / "etc", "copy:/nowhere")))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert emulated_device(PI5, "onnx") == device


@pytest.mark.real
@pytest.mark.parametrize("target", ["pi5", "pi4"])
def test_the_real_libraries_compute_there_what_they_compute_here(
    emulator_cache: Path, tmp_path: Path, target: str
) -> None:
    asked, device = pair_job(onnx_variant(tmp_path / "variant").path, trace=True), profile(target)
    emulated_device(device, "onnx")
    there, here = emulated.run(asked, device, "onnx", progress=silent), local.run(asked, progress=silent)
    seen = there.environment
    assert (seen.machine, seen.emulator) == ("aarch64", qemu_file().resolve().name)
    assert seen.device == f"{device.title}, emulated"
    assert ("asimddp" in seen.cpu_features) == (target == "pi5")
    assert (seen.memory_bytes, seen.governor) == (None, None)
    assert seen.libraries["onnxruntime"] == here.environment.libraries["onnxruntime"]
    for one, other in zip(there.trace, here.trace, strict=True):
        np.testing.assert_allclose(*(np.frombuffer(array.data, "<f4") for array in (one, other)), atol=1e-6)


@pytest.fixture(scope="session")
def onnxruntime_1_21(emulator_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages of a device with onnxruntime 1.21.0, known to stop on a Pi 4 (microsoft/onnxruntime#23957)."""
    python, folder = python_of(root_folder()), tmp_path_factory.mktemp("old")
    platforms = [word for name in PI5.wheel_platforms for word in ("--platform", name)]
    wanted = [*platforms, "--python-version", python, "--only-binary=:all:", "--no-deps", "--dest", str(folder)]
    try:
        run_pip(["download", *wanted, "onnxruntime==1.21.0"], folder, step="download", progress=silent)
    except EdgemlError as error:
        pytest.skip(error.message)
    others = [path for path in cached_wheels(PI5, python, "onnx") if not path.name.startswith("onnxruntime-")]
    for wheel in [*folder.glob("*.whl"), *others]:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder / "site")
    return folder / "site"


@pytest.mark.real
def test_a_runtime_that_stops_on_a_real_raspberry_pi_4_is_caught(onnxruntime_1_21: Path, tmp_path: Path) -> None:
    asked = pair_job(onnx_variant(tmp_path / "variant").path, trace=True)
    with pytest.raises(EdgemlError) as caught:
        emulated.run_on(emulator(PI4, "onnx")._replace(site=onnxruntime_1_21), asked, progress=silent)
    assert caught.value.message == (
        "onnxruntime 1.21.0 needs instructions that a Raspberry Pi 4 (Cortex-A72) lacks: "
        "its process died of SIGILL under emulation"
    )
    there = emulated.run_on(emulator(PI5, "onnx")._replace(site=onnxruntime_1_21), asked, progress=silent)
    assert there.environment.libraries["onnxruntime"] == "1.21.0"
