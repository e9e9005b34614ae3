"""What an image stands on: Python and its libraries, from packages of this machine's Debian, and nothing else.

No shell, no package manager, no certificates. What was packed is told where scanners of images look for it.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from edgeml.bundles.image.layers import Entry, Layer, write_layer
from edgeml.children import started
from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources.apt import check_apt, fetch_packages, unpack
from edgeml.store import cache_folder, scratch_folder, take_place
from edgeml_runtime.bundle import Bundle
from edgeml_runtime.records import read_record, write_record
from edgeml_runtime.types import Record

USER = 65532  # "nonroot" in images without a distribution
STATE = "var/lib/edgeml"  # the one folder that the user of an image may write, once a volume is there
ARCHITECTURES = {"aarch64": "arm64", "x86_64": "amd64"}  # as kernels and as Debian and OCI call them
_PACKAGES = ("base-files", "python3", "libstdc++6", "libgomp1")
# Of what these depend on: packages that install packages, and those of Python's modules for terminals, NIS and DBM.
_LEFT_OUT = re.compile(
    r"debconf|dpkg|libacl1|libmd0|libpcre2-8-0|libselinux1|mawk|perl-base|tar"
    r"|libreadline8.*|readline-common|libncursesw6|libtinfo6|libdb5\.3.*"
    r"|libnsl2|libtirpc.*|libgssapi-krb5-2|libk5crypto3|libkrb5.*|libkeyutils1|libcom-err2"
)
_KEPT = re.compile(
    r"usr/bin/python3[^/]*|(usr/)?lib(64)?/.+|etc/os-release|usr/share/common-licenses/.+"
    r"|usr/share/doc/[^/]+(/copyright)?"
)
_DROPPED = re.compile(
    r".*/gconv/.*|usr/lib/(systemd|valgrind|tmpfiles\.d|mime|binfmt\.d)/.*|usr/lib/python3/.*"
    r"|usr/lib/python3\.\d+/(config-|ensurepip/|idlelib/|lib2to3/|pydoc_data/|test/|tkinter/|turtledemo/).*"
    r"|usr/lib/python3\.\d+/lib-dynload/(_curses|_dbm|nis|readline).*"
)
_PYTHON = re.compile(r"python(3\.\d+)")
_HINT = "edgeml download --image --target {target}"


class Base(Record, frozen=True, kw_only=True):
    """The lowest layer: its Python (`3.11`), the release and the packages (`libc6 2.36-9`) that it is made of."""

    architecture: str
    python: str
    release: str
    packages: tuple[str, ...]
    layer: Layer


def base_folder(architecture: str) -> Path:
    """Where the base of one architecture is kept: `base.json`, and its layer under the name of its digest."""
    return cache_folder() / "image" / architecture


def architecture_of(machine: str, target: str) -> str:
    """What Debian and OCI call a machine; refused where images do not run on it."""
    if machine not in ARCHITECTURES:
        hint = "for a Mac, name --target arm64-linux: containers run Linux there, too"
        raise EdgemlError(f"no image is made for {target}, a machine of kind {machine}", hint=hint)
    return ARCHITECTURES[machine]


def prepare_base(architecture: str, progress: Progress) -> Base:
    """The newest base of an architecture, fetched and kept (16 MB); one that was there is replaced.

    Raises EdgemlError where apt is missing, reaches no source, or has no packages of that architecture.
    """
    check_apt()
    goal = base_folder(architecture)
    with scratch_folder(goal) as space:
        made, tree, packages = space / "made", space / "tree", space / "packages"
        made.mkdir()
        found = fetch_packages(_PACKAGES, architecture, packages, step="download Python", progress=progress)
        used = [package for package in found if not _LEFT_OUT.fullmatch(package.name.partition("_")[0])]
        for number, package in enumerate(used):
            progress("unpack Python", number, len(used))
            unpack(package, tree, lambda name: bool(_KEPT.fullmatch(name)) and not _DROPPED.fullmatch(name))
        controls = {package.name.partition("_")[0]: _control(package) for package in used}
        progress("write the layer", 0, 1)
        base = Base(
            architecture=architecture,
            python=_python(tree),
            release=_release(tree),
            packages=tuple(sorted(f"{name} {_version(control)}" for name, control in controls.items())),
            layer=write_layer([*_system(controls), *_files(tree), *_links(tree)], made),
        )
        progress("write the layer", 1, 1)
        write_record(made / "base.json", base)
        take_place(made, goal, space / "replaced")
    return base


def base_for(bundle: Bundle) -> Base:
    """The base that is here for a bundle; refused with what to do where none is, or its Python has no wheels."""
    architecture = architecture_of(bundle.machine, bundle.target)
    path = base_folder(architecture) / "base.json"
    if not path.is_file():
        hint = _HINT.format(target=bundle.target)
        raise EdgemlError(f"what an image for {bundle.target} stands on is not here", hint=hint)
    base = read_record(path, Base)
    if not any(file.path.startswith("wheels/") for file in bundle.files):
        raise EdgemlError("an image needs the wheels of its packages", hint="leave --no-wheels out")
    if base.python not in bundle.python:
        message = f"the image's Python is {base.python}, and the wheels are for {' and '.join(bundle.python)}"
        name = "onnx" if "/onnx-" in bundle.variant else "gguf"
        hint = f"edgeml download --runtime {name} --target {bundle.target} --python {base.python}"
        raise EdgemlError(message, hint=hint)
    return base


def _files(tree: Path) -> Iterator[Entry]:
    for path in tree.rglob("*"):
        name = path.relative_to(tree).as_posix()
        if path.is_symlink():
            yield Entry(name=name, content=str(path.readlink()))
        elif path.is_file():
            yield Entry(name=name, content=path, mode=0o755 if path.stat().st_mode & 0o100 else 0o644)


def _links(tree: Path) -> Iterator[Entry]:
    """Where a release has everything below /usr, the names by which programs ask for their loader."""
    for name in ("lib", "lib64"):
        if not (tree / name).exists() and (tree / "usr" / name).exists():
            yield Entry(name=name, content=f"usr/{name}", mode=0o777)


def _system(controls: dict[str, str]) -> Iterator[Entry]:
    texts = {
        "etc/passwd": f"root:x:0:0:root:/:/sbin/nologin\nedgeml:x:{USER}:{USER}:edgeml:/tmp:/sbin/nologin\n",
        "etc/group": f"root:x:0:\nedgeml:x:{USER}:\n",
        **{f"var/lib/dpkg/status.d/{name}": control for name, control in controls.items()},
    }
    yield from (Entry(name=name, content=text.encode()) for name, text in texts.items())
    yield Entry(name="tmp", mode=0o1777)
    yield Entry(name=STATE, mode=0o700, owner=USER)


def _release(tree: Path) -> str:
    lines = (tree / "usr/lib/os-release").read_text(encoding="utf-8").splitlines()
    return next(line.partition("=")[2].strip('"') for line in lines if line.startswith("PRETTY_NAME="))


def _python(tree: Path) -> str:
    (version,) = {found[1] for path in (tree / "usr/bin").iterdir() if (found := _PYTHON.fullmatch(path.name))}
    return version


def _control(package: Path) -> str:
    with started(["dpkg-deb", "-f", str(package)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as child:
        said = child.communicate()[0]
    if child.returncode:
        raise EdgemlError(f"{package.name} does not tell its version", hint="run it again")
    return said


def _version(control: str) -> str:
    return next(line.partition(": ")[2] for line in control.splitlines() if line.startswith("Version: "))
