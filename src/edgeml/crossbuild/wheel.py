"""A wheel as a file: written so that the same members give the same bytes, and read without being installed."""

from __future__ import annotations

import base64
import hashlib
import re
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml_runtime.types import Record

# PEP 427: name, version, an optional build number, then the tags.
_NAME = re.compile(
    r"(?P<name>[^-]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_LIBRARY = re.compile(r"[^/]+\.so(\.\d+)*")
_EARLIEST = (1980, 1, 1, 0, 0, 0)  # a ZIP file knows no time before


class WheelName(Record, frozen=True, kw_only=True):
    """What a wheel's file name says of it, the tags as they stand there."""

    name: str
    version: str
    python: str
    abi: str
    platform: str

    @classmethod
    def parse(cls, file_name: str) -> WheelName:
        """Read the name of a wheel's file."""
        found = _NAME.fullmatch(file_name)
        if not found:
            hint = "it must be NAME-VERSION-PYTHON-ABI-PLATFORM.whl, as pip wheel names it"
            raise EdgemlError(f"{file_name} is not named as a wheel is", hint=hint)
        return cls(**found.groupdict())

    @property
    def tag(self) -> str:
        """Python, ABI and platform, as the file WHEEL repeats them."""
        return f"{self.python}-{self.abi}-{self.platform}"

    @property
    def package(self) -> str:
        """The package's name as the index writes it."""
        return re.sub(r"[-_.]+", "-", self.name).lower()

    @property
    def info(self) -> str:
        """The folder of its metadata."""
        return f"{self.name}-{self.version}.dist-info"

    def __str__(self) -> str:
        return f"{self.name}-{self.version}-{self.tag}.whl"


def write_wheel(folder: Path, name: WheelName, members: Mapping[str, bytes], *, generator: str) -> Path:
    """A wheel of these members, with its WHEEL and RECORD: each file once, in order, at one fixed time."""
    about = f"Wheel-Version: 1.0\nGenerator: {generator}\nRoot-Is-Purelib: false\nTag: {name.tag}\n"
    everything = {**members, f"{name.info}/WHEEL": about.encode()}
    record = f"{name.info}/RECORD"
    lines = [f"{member},{_digest(everything[member])},{len(everything[member])}" for member in sorted(everything)]
    path = folder / str(name)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as wheel:
        for member in sorted(everything):
            wheel.writestr(_entry(member), everything[member])
        wheel.writestr(_entry(record), "\n".join([*lines, f"{record},,", ""]).encode())
    return path


def libraries_in(path: Path) -> dict[str, bytes]:
    """Every shared library in a wheel, by its path there. Raises EdgemlError when the file is no whole wheel."""
    with _opened(path) as wheel:
        return {name: wheel.read(name) for name in wheel.namelist() if _LIBRARY.fullmatch(name.rpartition("/")[2])}


def member_of(path: Path, name: str) -> bytes | None:
    """One file of a wheel; None where it has no such file."""
    with _opened(path) as wheel:
        return wheel.read(name) if name in wheel.namelist() else None


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        wheel = zipfile.ZipFile(path)
        broken = wheel.testzip()
    except FileNotFoundError as error:
        raise EdgemlError(f"there is no {path}", hint="check the path") from error
    except (zipfile.BadZipFile, zlib.error, IsADirectoryError) as error:
        raise EdgemlError(f"{path.name} is no wheel: {error}", hint="build or copy it again") from error
    if broken:
        wheel.close()
        raise EdgemlError(f"{path.name} is damaged: {broken}", hint="build or copy it again")
    return wheel


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EARLIEST)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system = 3  # Unix, wherever this runs
    entry.external_attr = (0o100755 if _LIBRARY.fullmatch(name.rpartition("/")[2]) else 0o100644) << 16
    return entry


def _digest(content: bytes) -> str:
    digest = hashlib.sha256(content).digest()
    return f"sha256={base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"
