"""What is read from compiled libraries, the wheel that they become, and the compilers that make them."""

from __future__ import annotations

import base64
import csv
import hashlib
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from edgeml.crossbuild import fit, llama
from edgeml.crossbuild.elf import X86_64, dot_products, read_library
from edgeml.crossbuild.toolchain import Toolchain, install
from edgeml.crossbuild.wheel import WheelName, libraries_in, member_of, write_wheel
from edgeml.download import runtime_wheels
from edgeml.errors import EdgemlError
from edgeml.progress import silent
from edgeml.targets import profile
from edgeml.wheels import cached_wheels
from tiny.elf import NOP, SDOT, library

# As GNU as writes them.
DOTS = {
    "sdot v0.4s, v1.16b, v2.16b": 0x4E829420,
    "sdot v31.2s, v30.8b, v29.8b": 0x0E9D97DF,
    "udot v0.4s, v1.16b, v2.16b": 0x6E829420,
    "sdot v0.4s, v1.16b, v2.4b[0]": 0x4F82E020,
    "sdot v0.4s, v1.16b, v18.4b[3]": 0x4FB2E820,
    "udot v0.2s, v1.8b, v2.4b[1]": 0x2FA2E020,
}
OTHERS = {
    "nop": NOP,
    "add v0.4s, v1.4s, v2.4s": 0x4EA28420,
    "fmla v0.4s, v1.4s, v2.4s": 0x4E22CC20,
    "smmla v0.4s, v1.16b, v2.16b": 0x4E82A420,
    "usdot v0.4s, v1.16b, v2.16b": 0x4E829C20,
    "usdot v0.4s, v1.16b, v2.4b[0]": 0x4F82F020,
    "smlal v0.4s, v1.4h, v2.4h": 0x0E628020,
}
PLAIN, FAST = f"libggml-cpu-{llama.PLAIN}.so", f"libggml-cpu-{llama.DOT_PRODUCTS}.so"
GOOD = {"libllama.so": library(needs=("libm.so.6", PLAIN)), PLAIN: library(), FAST: library([NOP, SDOT])}


@pytest.mark.parametrize("name", DOTS)
def test_a_dot_product_instruction_is_counted(name: str) -> None:
    assert dot_products(struct.pack("<III", NOP, DOTS[name], NOP)) == 1


@pytest.mark.parametrize("name", OTHERS)
def test_no_other_instruction_is_taken_for_one(name: str) -> None:
    assert dot_products(struct.pack("<I", OTHERS[name])) == 0


def test_a_library_says_what_it_needs_and_only_its_code_is_counted() -> None:
    found = read_library(library([SDOT, NOP, SDOT], glibc=("GLIBC_2.17", "GLIBC_2.9", "GCC_3.0", "GLIBC_2.27")))
    assert (found.machine, found.glibc, found.needs, found.dot_products) == (183, (2, 27), ("libc.so.6",), 2)
    assert found.page_bytes == 65536


@pytest.mark.skipif(sys.platform != "linux", reason="its libraries are no ELF files")
def test_a_library_of_this_machine_is_read_as_its_linker_wrote_it() -> None:
    import msgspec._core

    content = Path(msgspec._core.__file__).read_bytes()
    assert "libc.so.6" in read_library(content).needs
    assert read_library(content).glibc >= (2, 14)
    assert read_library(content).page_bytes >= 4096


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF\x01\x01" + bytes(60), library()[:90], library()[:-1]])
def test_what_is_no_whole_64_bit_library_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="library"):
        read_library(content)


def test_the_same_members_give_the_same_wheel_whose_record_holds(tmp_path: Path) -> None:
    name = WheelName.parse("a_model-1.0-py3-none-manylinux_2_27_aarch64.whl")
    members = {"b/lib/libb.so": b"b" * 999, "a.py": b"a", f"{name.info}/METADATA": b"Name: a-model\n"}
    (tmp_path / "again").mkdir()
    path = write_wheel(tmp_path, name, members, generator="tests")
    again = write_wheel(tmp_path / "again", name, dict(reversed(members.items())), generator="tests")
    assert path.read_bytes() == again.read_bytes()
    with zipfile.ZipFile(path) as wheel:
        record = list(csv.reader(wheel.read(f"{name.info}/RECORD").decode().splitlines()))
        for member, digest, size in record[:-1]:
            sha256 = hashlib.sha256(wheel.read(member)).digest()
            assert digest == f"sha256={base64.urlsafe_b64encode(sha256).rstrip(b'=').decode()}"
            assert int(size) == len(wheel.read(member))
        assert record[-1] == [f"{name.info}/RECORD", "", ""]
        assert {row[0] for row in record} == set(wheel.namelist())
        assert "Tag: py3-none-manylinux_2_27_aarch64\n" in wheel.read(f"{name.info}/WHEEL").decode()


@pytest.mark.parametrize("name", ["llama.whl", "a-1-py3-none-any.zip", "a-b-c-1-py3-none-any.whl", "a-1-py3-none.whl"])
def test_a_file_that_is_not_named_as_a_wheel_is_refused(name: str) -> None:
    with pytest.raises(EdgemlError, match="not named as a wheel"):
        WheelName.parse(name)


def test_a_damaged_or_missing_wheel_is_refused_in_one_sentence(tmp_path: Path) -> None:
    name = WheelName.parse("a-1-py3-none-any.whl")
    path = write_wheel(tmp_path, name, {"liba.so": library()}, generator="tests")
    assert member_of(path, "no.txt") is None
    content = path.read_bytes()
    crc = struct.pack("<I", zlib.crc32(library()))
    path.write_bytes(content.replace(crc, bytes(4)))
    with pytest.raises(EdgemlError, match="is damaged: liba"):
        libraries_in(path)
    path.write_bytes(content[:60] + bytes(9) + content[69:])
    with pytest.raises(EdgemlError, match="is no wheel"):
        libraries_in(path)
    path.write_bytes(b"no wheel")
    with pytest.raises(EdgemlError, match="is no wheel"):
        libraries_in(path)
    path.unlink()
    with pytest.raises(EdgemlError, match="there is no"):
        libraries_in(path)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({FAST: library()}, "0 dot-product"),
        ({PLAIN: library([SDOT])}, "1 dot-product"),
        ({PLAIN: library(glibc=("GLIBC_2.38",))}, "glibc 2.38"),
        ({PLAIN: library(machine=X86_64)}, "machine 62"),
        ({PLAIN: library(page_bytes=4096)}, "pages of 4096"),
        ({PLAIN: library(needs=("libc.so.6", "libgomp.so.1"))}, "libgomp.so.1"),
        ({PLAIN: None}, f"{PLAIN}: it was not built"),
    ],
)
def test_a_build_that_would_not_run_everywhere_and_fast_is_refused(changed: dict[str, bytes], why: str) -> None:
    libraries = {name: content for name, content in (GOOD | changed).items() if content}
    llama.check(GOOD)
    with pytest.raises(EdgemlError, match="the build went wrong") as caught:
        llama.check({**libraries, "libllama.so": library()})
    assert why in caught.value.message


def test_the_wheel_holds_each_library_once_and_its_tag_is_the_glibc_that_it_needs(tmp_path: Path) -> None:
    path = llama.packed(_source(tmp_path), GOOD, tmp_path, version="0.3.36", generator="tests")
    assert path.name == "llama_cpp_python-0.3.36-py3-none-manylinux_2_17_aarch64.whl"
    assert set(libraries_in(path)) == {f"llama_cpp/lib/{name}" for name in GOOD}
    with zipfile.ZipFile(path) as wheel:
        names = {name.rpartition("/")[2] for name in wheel.namelist()} - set(GOOD)
    assert names == {"__init__.py", "py.typed", "LICENSE.md", "LICENSE", "METADATA", "WHEEL", "RECORD", llama.BUILT}
    newer = {**GOOD, PLAIN: library(glibc=("GLIBC_2.27",))}
    assert "2_27" in llama.packed(_source(tmp_path), newer, tmp_path, version="0.3.36", generator="tests").name


def test_only_the_wanted_kinds_of_cpu_are_compiled_and_a_llama_cpp_without_them_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "CMakeLists.txt"
    lines = [f"    ggml_add_cpu_backend_variant({name})\n" for name in ("armv8.0_1", "armv8.2_2    DOTPROD")]
    other = "        ggml_add_cpu_backend_variant(armv9.2_2    DOTPROD SVE)\n"
    path.write_text("".join([lines[0], other, lines[1], "add_library(x)\n"]))
    llama._drop_variants(path)
    assert path.read_text() == "".join([*lines, "add_library(x)\n"])
    path.write_text(other)
    with pytest.raises(EdgemlError, match="no CPU variant"):
        llama._drop_variants(path)


def test_the_compilers_are_told_the_target_and_zig_s_own_words_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CXXFLAGS", "CMAKE_TOOLCHAIN_FILE"):  # meant for this machine
        monkeypatch.setenv(name, "mine")
    said = _answering(tmp_path / "tools" / "ziglang" / "zig", 'printf "%s\\n" "$@" $CXXFLAGS $CMAKE_TOOLCHAIN_FILE')
    tools = Toolchain(tmp_path)
    script = tools.script("c++", Path("/a folder"))
    tools._run([str(script), "-march=armv8.2-a+dotprod+fp16", "a b"], said, "x", silent)
    flags = ["-target", "aarch64-linux-gnu.2.28", "-ffile-prefix-map=/a folder=."]
    assert said.read_text().splitlines() == ["c++", *flags, "-mcpu=generic+v8_2a+dotprod+fullfp16", "a b"]


def test_progress_counts_what_is_compiled_and_a_failure_says_the_compiler_s_own_words(tmp_path: Path) -> None:
    log = _answering(tmp_path / "tools" / "bin" / "ninja", "echo '[1/2] Building a'; echo 'a.c:1: error: no'; exit 1")
    steps: list[tuple[str, int, int]] = []
    with pytest.raises(EdgemlError, match="compile it failed: ") as caught:
        Toolchain(tmp_path).compile(
            tmp_path, "all", step="compile it", log=log, progress=lambda *one: steps.append(one)
        )
    assert steps == [("compile it", 0, 0), ("compile it", 1, 2)]
    assert caught.value.message.endswith("a.c:1: error: no")
    assert str(log) in caught.value.hint
    log.unlink()
    _answering(tmp_path / "tools" / "bin" / "ninja", "echo 'fatal: No space left on device'; exit 1")
    with pytest.raises(OSError, match="No space left"):
        Toolchain(tmp_path).compile(tmp_path, "all", step="compile it", log=log, progress=silent)


def test_an_interrupted_build_asks_ninja_to_end_its_compilers(tmp_path: Path) -> None:
    ended = tmp_path / "ended"
    script = f"sleep 60 & trap 'kill $!; touch {ended}; exit' TERM; echo '[1/2] Building a'; wait"
    log = _answering(tmp_path / "tools" / "bin" / "ninja", script)

    def interrupt(step: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Toolchain(tmp_path).compile(tmp_path, "all", step="compile it", log=log, progress=interrupt)
    assert ended.exists()


@pytest.mark.real
def test_the_real_compiler_writes_dot_products_only_where_the_cpu_has_them(tmp_path: Path) -> None:
    tools = install(tmp_path / "toolchain", silent)
    source, made = tmp_path / "dot.c", tmp_path / "libdot.so"
    source.write_text(
        "int dot(const signed char *a, const signed char *b)"
        "{ int s = 0; for (int i = 0; i < 64; i++) s += a[i] * b[i]; return s; }\n"
    )
    found = {}
    for march in ("armv8-a", "armv8.2-a+dotprod+fp16"):
        flags = [f"-march={march}", "-O3", "-shared", "-fPIC", "-s", "-o", str(made), str(source)]
        tools._run([str(tools.script("cc")), *flags], tmp_path / "log", "compile", silent)
        found[march] = read_library(made.read_bytes())
    assert [one.dot_products > 0 for one in found.values()] == [False, True]
    assert all(one.machine == 183 and one.glibc <= (2, 28) for one in found.values())


@pytest.mark.real
def test_the_dot_products_of_a_real_library_are_found(tmp_path: Path) -> None:
    runtime_wheels(profile("pi5"), "onnx", python="3.11")
    wheel = next(path for path in cached_wheels(profile("pi5"), "3.11", "onnx") if "onnxruntime" in path.name)
    found = {name: read_library(content) for name, content in libraries_in(wheel).items()}
    assert max(one.dot_products for one in found.values()) > 4000  # 4898 in 1.32.0
    assert all(one.glibc <= (2, 28) for one in found.values())
    assert fit.newest(found) == (2, 28)


def _source(folder: Path) -> Path:
    source = folder / "source"
    files = [
        "llama_cpp/__init__.py",
        "llama_cpp/py.typed",
        "LICENSE.md",
        "vendor/llama.cpp/LICENSE",
        "PKG-INFO",
        "x.py",
    ]
    for name in files:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text(name)
    return source


def _answering(path: Path, script: str) -> Path:
    """A program in the place of a tool; the log that its words go to."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path.parents[2] / "log"
