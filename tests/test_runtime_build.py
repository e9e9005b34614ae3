"""The verb: what is built for, what is taken instead, where it lies afterwards, and what is refused."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from edgeml.crossbuild import llama
from edgeml.crossbuild.wheel import WheelName, write_wheel
from edgeml.download import emulated_device, runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.runtime import build
from edgeml.store import cache_folder
from edgeml.targets import own_name, profile
from edgeml.wheels import requirements, shared_wheel, wheel_folder
from tiny.commands import inside
from tiny.elf import SDOT, X86_64, library
from tiny.wheels import write_wheel as index_wheel

WANTED = next(one for one in requirements("gguf") if one.startswith("llama-cpp-python=="))
VERSION = WANTED.partition("==")[2]
PLAIN, FAST = f"libggml-cpu-{llama.PLAIN}.so", f"libggml-cpu-{llama.DOT_PRODUCTS}.so"
BOTH = {"libllama.so": library(), PLAIN: library(), FAST: library([SDOT, SDOT])}
ONE = {"libllama.so": library(needs=("libc.so.6", "libgomp.so.1")), "libggml-cpu.so": library([SDOT])}
Made = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("real"):
        return
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path / "cache"))
    for key, value in {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null", "PIP_FIND_LINKS": str(tmp_path)}.items():
        monkeypatch.setenv(key, value)


@pytest.fixture
def made(tmp_path: Path) -> Made:
    def wheel(
        libraries: dict[str, bytes], *, tag: str = "linux_aarch64", name: str = "llama_cpp_python",
        version: str = VERSION, built_with: dict[str, str] | None = None, python: str = "py3",
    ) -> Path:  # fmt: skip
        parsed = WheelName(name=name, version=version, python=python, abi="none", platform=tag)
        members = {f"llama_cpp/lib/{file}": content for file, content in libraries.items()}
        if built_with is not None:
            members[f"{parsed.info}/{llama.BUILT}"] = json.dumps(built_with).encode()
        (tmp_path / "made").mkdir(exist_ok=True)
        return write_wheel(tmp_path / "made", parsed, members, generator="tests")

    return wheel


def lying(target: str) -> list[str]:
    found = profile(target)
    folders = [wheel_folder(found, python, "gguf") for python in found.python]
    return sorted({path.name for folder in folders for path in folder.glob("*") if path.suffix != ".lock"})


def test_a_wheel_with_kernels_for_both_kinds_of_cpu_serves_every_arm_linux(made: Made) -> None:
    path = made(BOTH)
    found = build(profile("pi5"), wheel=path)
    assert {"pi3", "pi4", "pi5", "pi-zero2w"} <= set(found.targets)
    assert (found.cpus, found.dot_products, found.glibc) == ((llama.PLAIN, llama.DOT_PRODUCTS), 2, "2.17")
    assert (found.size_bytes, found.seconds, found.built_with) == (path.stat().st_size, None, {})
    assert found.warnings == ()
    for target in found.targets:
        assert lying(target) == [path.name]


def test_a_wheel_that_was_compiled_on_a_pi_5_serves_no_pi_4(made: Made) -> None:
    found = build(profile("pi5"), wheel=made(ONE))
    assert found.targets == ("pi5",)
    assert lying("pi4") == []
    assert found.warnings == ("the device must have libgomp.so.1: the wheel does not bring them",)
    with pytest.raises(EdgemlError, match="lacks the dot-product instructions") as caught:
        build(profile("pi4"), wheel=made(ONE))
    assert caught.value.hint.startswith("edgeml runtime build --target pi4")
    assert lying("pi4") == []


def test_what_cannot_be_told_from_here_is_a_warning(made: Made) -> None:
    plain = {"libllama.so": library(glibc=("GLIBC_2.38",)), "libggml-cpu.so": library(page_bytes=4096)}
    newer, pages, slower = build(profile("pi5"), wheel=made(plain)).warnings
    assert newer.startswith("it needs glibc 2.38")
    assert pages.startswith("it does not load where memory pages have 16384 bytes")
    assert slower.startswith("it holds no dot-product instructions")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "other"}, "is not llama-cpp-python=="),
        ({"version": "0.0.1"}, "is not llama-cpp-python=="),
        ({"tag": "linux_x86_64"}, "is not for Raspberry Pi 5"),
        ({"tag": "manylinux_2_28_armv7l"}, "is not for Raspberry Pi 5"),
        ({"tag": "musllinux_1_2_aarch64"}, "is not for Raspberry Pi 5"),
        ({"tag": "macosx_14_0_arm64"}, "is not for Raspberry Pi 5"),
        ({"python": "cp311"}, "is not for Raspberry Pi 5"),
        ({"libraries": {"libllama.so": library(machine=X86_64)}}, "libllama.so is for another processor"),
        ({"libraries": {"libother.so": library()}}, "holds no libllama.so"),
        ({"libraries": {"libllama.so": b"no"}}, "holds no 64-bit library"),
        ({"libraries": {**BOTH, PLAIN: library([SDOT])}, "for": "pi4"}, "lacks the dot-product"),
    ],
)
def test_a_wheel_of_one_s_own_that_does_not_fit_is_refused(
    made: Made, changed: dict[str, object], message: str
) -> None:
    target = profile(str(changed.pop("for", "pi5")))
    path = made(changed.pop("libraries", BOTH), **changed)
    with pytest.raises(EdgemlError, match=message):
        build(target, wheel=path)
    assert lying(target.name) == []


def test_a_mac_takes_a_wheel_that_was_built_on_one(made: Made) -> None:
    found = build(profile("apple-silicon"), wheel=made({}, tag="macosx_14_0_arm64"))
    assert (found.targets, found.glibc, found.cpus) == (("apple-silicon",), None, ())


def test_the_same_is_not_built_twice_and_serves_every_python(made: Made) -> None:
    path = made(BOTH, tag="manylinux_2_17_aarch64", built_with=llama.recipe())
    first = build(profile("pi5"), wheel=path)
    path.unlink()
    assert build(profile("pi4")) == first
    folder = wheel_folder(profile("pi5"), "3.99", "gguf")
    for name, version in (one.split("==") for one in requirements("gguf") if one != WANTED):
        index_wheel(folder, {}, name=name, version=version)
    runtime_wheels(profile("pi5"), "gguf", python="3.99")  # needs no index
    assert [one.name for one in folder.glob("llama*")] == [path.name]


def test_the_command_says_that_nothing_was_built_and_what_is_there(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # room for every column, whatever this terminal has
    path = made(BOTH, built_with=llama.recipe())
    arguments = ["runtime", "build", "--target", "pi5", "--artifacts", tmp_path / "artifacts"]
    assert "nothing to build" not in inside(*arguments, "--wheel", path).err
    done = inside(*arguments, "--json")
    assert done.err.startswith("nothing to build: the wheel is there already")
    record = json.loads(done.out)
    assert (record["schema"], record["file"], record["dot_products"]) == ("edgeml.runtime/1", path.name, 2)
    assert "seconds" not in record
    table = inside(*arguments).out
    assert "armv8.0_1 armv8.2_2" in table
    assert "warning" not in table


@pytest.mark.parametrize(("built_with", "force"), [({"flags": "other"}, False), (llama.recipe(), True)])
def test_what_was_built_otherwise_or_is_to_be_is_built_again_and_what_is_there_stays_when_that_fails(
    made: Made, built_with: dict[str, str], force: bool
) -> None:
    old = made(BOTH, built_with=built_with)
    build(profile("pi5"), wheel=old)
    with pytest.raises(EdgemlError, match="pip cannot get ninja"):  # the index is empty
        build(profile("pi5"), force=force)
    assert lying("pi5") == lying("pi4") == [old.name]
    assert not list(cache_folder().glob("runtime-build*.part"))


def test_a_wheel_of_one_s_own_is_kept_and_not_replaced_for_other_targets(made: Made) -> None:
    own = made(ONE)
    build(profile("pi5"), wheel=own)
    assert build(profile("pi5")).file == own.name
    built = made(BOTH, tag="manylinux_2_17_aarch64", built_with=llama.recipe())
    assert "pi5" not in build(profile("pi4"), wheel=built).targets
    assert (lying("pi4"), lying("pi5")) == ([built.name], [own.name])
    build(profile("pi5"), wheel=built)
    assert lying("pi5") == [built.name]


def test_only_arm_linux_is_built_for_and_the_hint_says_how_to_get_another() -> None:
    for target in {"apple-silicon", "laptop"} - {own_name()}:
        with pytest.raises(EdgemlError, match="only for 64-bit Arm Linux") as caught:
            build(profile(target))
        assert "--wheel" in caught.value.hint
    if own_name() == "laptop":
        with pytest.raises(EdgemlError, match="own compiler") as caught:
            build(profile(None))
        assert caught.value.hint == "edgeml download --runtime gguf"


def test_a_host_on_which_the_compiler_is_not_tried_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Windows")
    with pytest.raises(EdgemlError, match="cannot be cross-compiled on Windows") as caught:
        build(profile("pi5"))
    assert "WSL" in caught.value.hint
    assert not list(cache_folder().glob("runtime-build*.part"))


@pytest.mark.real
@pytest.mark.parametrize(("target", "words"), [("pi4", ("NEON",)), ("pi5", ("NEON", "DOTPROD", "FP16_VA"))])
def test_the_built_wheel_runs_on_each_cpu_with_the_kernels_that_it_has(target: str, words: Sequence[str]) -> None:
    device = profile(target)
    if shared_wheel(device, "gguf", WANTED) is None:
        pytest.skip("not built on this machine: edgeml runtime build --target pi5")
    emulator = emulated_device(device, "gguf")
    code = "from edgeml_runtime.backends.gguf_model import library; print(library().llama_print_system_info().decode())"
    source = Path(__file__).parent.parent / "src"
    environment = os.environ | {"PYTHONPATH": f"{emulator.site}{os.pathsep}{source}"}
    done = subprocess.run(emulator.command("-c", code), env=environment, capture_output=True, text=True, check=True)
    known = ("NEON", "DOTPROD", "FP16_VA", "SVE", "MATMUL_INT8")
    assert {name for name in known if f"{name} = 1" in done.stdout} == set(words)
    assert done.stderr == ""
