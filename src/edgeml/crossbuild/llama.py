"""llama-cpp-python for AArch64 Linux in one wheel: its kernels once a kind of CPU, of which it loads the fitting ones.

llama.cpp builds them as libraries of their own (`GGML_BACKEND_DL`, `GGML_CPU_ALL_VARIANTS`), as its own releases for
this machine are built. Their names are those of ggml/src/CMakeLists.txt.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeml.crossbuild.elf import AARCH64, Library, read_library
from edgeml.crossbuild.toolchain import GLIBC, TOOLS, Toolchain
from edgeml.crossbuild.wheel import WheelName, write_wheel
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources.pip import run_pip

PLAIN, DOT_PRODUCTS = "armv8.0_1", "armv8.2_2"  # any AArch64; with dot products and half-precision arithmetic
PAGE_BYTES = 1 << 14  # of Raspberry Pi OS on a Pi 5 (`getconf PAGESIZE`); 4096 elsewhere
BUILT = "edgeml.json"  # beside the wheel's metadata: what it was built with
FLAGS = {
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_DISABLE_FIND_PACKAGE_Git": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    "CMAKE_MODULE_LINKER_FLAGS": "-s",
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",  # one file a library: a wheel holds no links
    "CMAKE_SHARED_LINKER_FLAGS": "-s",
    "GGML_BACKEND_DL": "ON",
    "GGML_CCACHE": "OFF",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_OPENMP": "OFF",  # zig brings no OpenMP library; llama.cpp has threads of its own
    "LLAMA_BUILD_COMMON": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_TOOLS": "OFF",
}
_LLAMA = Path("vendor") / "llama.cpp"
_VARIANTS = Path("ggml") / "src" / "CMakeLists.txt"
_VARIANT = re.compile(r"^ *ggml_add_cpu_backend_variant\((armv[\w.]+).*\)\n", re.MULTILINE)
# What every glibc system has; everything else must be in the wheel.
SYSTEM = {"libc.so.6", "libm.so.6", "libpthread.so.0", "libdl.so.2", "librt.so.1", "ld-linux-aarch64.so.1"}


def recipe() -> dict[str, str]:
    """What decides the bytes of a wheel beside its version: a wheel that was built with the same is not built again."""
    flags = " ".join(f"-D{name}={value}" for name, value in FLAGS.items())
    return {"tools": " ".join(TOOLS), "glibc": _dotted(GLIBC), "cpus": f"{PLAIN} {DOT_PRODUCTS}", "flags": flags}


def fetch(version: str, folder: Path, progress: Progress) -> Path:
    """The source of llama-cpp-python, with llama.cpp in it, in a folder of its own."""
    wanted = f"llama-cpp-python=={version}"
    folder.mkdir()
    command = ["download", "--no-deps", "--no-binary", "llama-cpp-python", "--dest", str(folder), wanted]
    run_pip(command, folder, step=f"fetch the source of {wanted}", progress=progress)
    archive = next(folder.glob("*.tar.gz"))
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    archive.unlink()
    source = folder / archive.name.removesuffix(".tar.gz")
    _drop_variants(source / _LLAMA / _VARIANTS)
    return source


def _drop_variants(path: Path) -> None:
    """Leave only the kinds of CPU that are wanted: llama.cpp has no switch for it, and builds eight."""
    text = path.read_text(encoding="utf-8")
    wanted = (PLAIN, DOT_PRODUCTS)
    if missing := set(wanted) - set(_VARIANT.findall(text)):
        hint = "install a version of llama-cpp-python that edgeml was tried with: pip install llama-cpp-python==0.3.36"
        raise EdgemlError(f"this llama.cpp has no CPU variant {' or '.join(sorted(missing))}", hint=hint)
    path.write_text(_VARIANT.sub(lambda line: line[0] if line[1] in wanted else "", text), encoding="utf-8")


def compiled(source: Path, tools: Toolchain, folder: Path, *, log: Path, progress: Progress) -> dict[str, bytes]:
    """The libraries, by file name. Minutes."""
    step = "prepare the compiler"  # zig builds its C++ library on first use, one minute
    tools.configure(source / _LLAMA, folder, FLAGS, log=log, progress=lambda _, *count: progress(step, *count))
    tools.compile(folder, "llama", step="compile llama.cpp for aarch64", log=log, progress=progress)
    return {path.name: path.read_bytes() for path in sorted((folder / "bin").glob("*.so"))}


def check(libraries: Mapping[str, bytes]) -> dict[str, Library]:
    """What is in the libraries. Raises EdgemlError unless they run on any AArch64 Linux, and fast where they can."""
    found = {name: read_library(content) for name, content in libraries.items()}
    for name, one in found.items():
        foreign = [need for need in one.needs if need not in SYSTEM and need not in found]
        if one.machine != AARCH64 or one.glibc > GLIBC or one.page_bytes < PAGE_BYTES or foreign:
            pages = f"pages of {one.page_bytes} bytes"
            wants = " ".join((f"machine {one.machine}", f"glibc {_dotted(one.glibc)}", pages, *foreign))
            raise _wrong(name, f"it needs {wants}")
        fast = name == f"libggml-cpu-{DOT_PRODUCTS}.so"
        if bool(one.dot_products) != fast:
            raise _wrong(name, f"it holds {one.dot_products} dot-product instructions")
    if missing := {"libllama.so", *(f"libggml-cpu-{cpu}.so" for cpu in (PLAIN, DOT_PRODUCTS))} - set(found):
        raise _wrong(", ".join(sorted(missing)), "it was not built")
    return found


def packed(source: Path, libraries: Mapping[str, bytes], folder: Path, *, version: str, generator: str) -> Path:
    """The wheel: the Python modules as they came, each library once, licences, and what it was built with."""
    glibc = max(one.glibc for one in check(libraries).values())
    platform = f"manylinux_{glibc[0]}_{glibc[1]}_aarch64"
    name = WheelName(name="llama_cpp_python", version=version, python="py3", abi="none", platform=platform)
    modules = [path for path in (source / "llama_cpp").rglob("*") if path.suffix in (".py", ".typed")]
    licences = [source / "LICENSE.md", source / _LLAMA / "LICENSE", *sorted((source / _LLAMA / "licenses").glob("*"))]
    members = {path.relative_to(source).as_posix(): path.read_bytes() for path in modules}
    members |= {f"llama_cpp/lib/{file}": content for file, content in libraries.items()}
    members |= {f"{name.info}/licenses/{path.relative_to(source).as_posix()}": path.read_bytes() for path in licences}
    members[f"{name.info}/METADATA"] = (source / "PKG-INFO").read_bytes()
    members[f"{name.info}/{BUILT}"] = msgspec.json.format(msgspec.json.encode(recipe()), indent=2)
    return write_wheel(folder, name, members, generator=generator)


def _wrong(name: str, why: str) -> EdgemlError:
    return EdgemlError(f"the build went wrong: {name}: {why}", hint="report it; nothing was kept")


def _dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
