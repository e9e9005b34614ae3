"""What deb, rpm and apk call things, and when they run which step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

USERADD = "useradd --system --user-group --no-create-home --home-dir /var/lib/edgeml --shell /usr/sbin/nologin edgeml"
SYSTEMD, OPENRC = "systemd", "openrc"


class Dialect(NamedTuple):
    """One kind of package, as nfpm names it.

    `at_least` is a package from a version on; `pythons` the interpreters of which one must be there; `libraries` what
    brings a shared library, by its name; `libc` the C library from a version on. `others` are what the steps need.
    `steps` are shell lines, by nfpm's names of scripts, which call configure, retire, forget and purge. `version`
    makes one of a version and a digest. `repair` is the command that runs a failed step again.
    """

    kind: str
    at_least: Callable[[str, str], str]
    pythons: Callable[[tuple[str, ...]], str]
    libraries: Mapping[str, str]
    libc: Callable[[str], str]
    others: tuple[str, ...]
    steps: Mapping[str, str]
    version: Callable[[str, str], str]
    repair: str
    add_user: str = USERADD
    services: str = SYSTEMD


def plus(version: str, digest: str) -> str:
    """`1+0a1b2c3d`: above every version below 2, and another one wherever a byte differs."""
    return f"{version}+{digest}"
