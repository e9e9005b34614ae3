"""Makers of wheels: real ones that pip takes, and bad ones that no build tool would write."""

from __future__ import annotations

import base64
import hashlib
import stat
import zipfile
from pathlib import Path

_METADATA = "Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nLicense: MIT\n"
_WHEEL = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


def write_wheel(
    folder: Path,
    files: dict[str, bytes],
    *,
    name: str = "a-model",
    version: str = "1.0",
    tag: str = "py3-none-any",
    links: dict[str, str] | None = None,
    recorded: dict[str, bytes] | None = None,
) -> Path:
    """A wheel with these files, links, and a RECORD of the bytes in `recorded` where they differ from the files'."""
    folder.mkdir(parents=True, exist_ok=True)
    plain = name.replace("-", "_")
    info = f"{plain}-{version}.dist-info"
    meta = {f"{info}/METADATA": _METADATA.format(name=name, version=version).encode(), f"{info}/WHEEL": _WHEEL.encode()}
    everything = {**files, **meta, f"{info}/LICENSE": b"the text of a licence"}
    path = folder / f"{plain}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, content in everything.items():
            wheel.writestr(member, content)
        for member, goal in (links or {}).items():
            wheel.writestr(_link(member), goal)
        wheel.writestr(f"{info}/RECORD", _record({**everything, **(recorded or {})}))
    return path


def _link(name: str) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


def _record(files: dict[str, bytes]) -> str:
    digests = {name: hashlib.sha256(content).digest() for name, content in files.items()}
    texts = {name: base64.urlsafe_b64encode(digest).rstrip(b"=").decode() for name, digest in digests.items()}
    return "".join(f"{name},sha256={text},{len(files[name])}\n" for name, text in texts.items())
