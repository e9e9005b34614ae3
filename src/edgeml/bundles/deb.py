"""A bundle as two packages for Debian, Ubuntu and Raspberry Pi OS, in one folder: `apt install ./NAME.debs/*.deb`."""

from __future__ import annotations

from pathlib import Path

from edgeml.bundles.linux.dialect import Dialect, plus
from edgeml.bundles.linux.seal import packages_of, read_packages, same_packages, unpacked

SUFFIX = ".debs"
DIALECT = Dialect(
    kind="deb",
    at_least=lambda package, version: f"{package} (>= {version})",
    pythons=lambda versions: " | ".join(f"python{version}" for version in versions),
    libraries={
        "libstdc++.so.6": "libstdc++6",
        "libgcc_s.so.1": "libgcc-s1",
        "libgomp.so.1": "libgomp1",
        "libz.so.1": "zlib1g",
    },
    libc=lambda version: f"libc6 (>= {version})",
    others=("passwd",),  # adds the user
    steps={
        "postinstall": '[ "$1" != configure ] || configure',
        "preremove": '[ "$1" != remove ] || retire',
        "postremove": 'case "$1" in\n    remove) forget ;;\n    purge) purge ;;\nesac',
    },
    version=plus,
    repair="sudo dpkg --configure -a tries again",
)


def seal(folder: Path) -> Path:
    """A folder with both packages, beside the bundle's."""
    return packages_of(folder, DIALECT, SUFFIX)


read, same, unpack = read_packages, same_packages, unpacked
