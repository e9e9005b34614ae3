"""A bundle as two packages for Fedora, openSUSE and their like, in one folder: `dnf install ./NAME.rpms/*.rpm`."""

from __future__ import annotations

from pathlib import Path

from edgeml.bundles.linux.dialect import Dialect, plus
from edgeml.bundles.linux.seal import packages_of, read_packages, same_packages, unpacked

SUFFIX = ".rpms"


def _pythons(versions: tuple[str, ...]) -> str:
    """Every distribution's python3.N package provides python(abi), so that no package's name has to be known."""
    each = [f"python(abi) = {version}" for version in versions]
    return each[0] if len(each) == 1 else f"({' or '.join(each)})"


DIALECT = Dialect(
    kind="rpm",
    at_least=lambda package, version: f"{package} >= {version}",
    pythons=_pythons,
    libraries={name: f"{name}()(64bit)" for name in ("libstdc++.so.6", "libgcc_s.so.1", "libgomp.so.1", "libz.so.1")},
    libc=lambda version: f"libc.so.6(GLIBC_{version})(64bit)",
    others=("/usr/sbin/useradd", "/usr/bin/setpriv"),
    steps={
        # After the files of the version before are gone: at %post they would still lie among the new ones.
        "posttrans": "configure",
        "preremove": '[ "$1" != 0 ] || retire',
        "postremove": '[ "$1" != 0 ] || forget',
    },
    version=plus,
    repair="sudo dnf reinstall it, which tries again",
)


def seal(folder: Path) -> Path:
    """A folder with both packages, beside the bundle's."""
    return packages_of(folder, DIALECT, SUFFIX)


read, same, unpack = read_packages, same_packages, unpacked
