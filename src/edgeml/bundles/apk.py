"""A bundle as two packages for Alpine Linux, in one folder: `apk add --allow-untrusted NAME.apks/*.apk`.

Alpine's C library is musl. A wheel that was compiled for glibc does not load there, so a bundle with one is refused.
"""

from __future__ import annotations

from pathlib import Path

from edgeml.bundles.linux.dialect import OPENRC, Dialect
from edgeml.bundles.linux.seal import packages_of, read_packages, same_packages, unpacked
from edgeml.errors import EdgemlError

SUFFIX = ".apks"


def _python(versions: tuple[str, ...]) -> str:
    """Alpine has one Python a release, and its dependencies know no alternatives."""
    if len(versions) > 1:
        raise EdgemlError("an Alpine package serves one Python version", hint="download the wheels of one alone")
    return f"python3~{versions[0]}"


DIALECT = Dialect(
    kind="apk",
    at_least=lambda package, version: f"{package}>={version}",
    pythons=_python,
    libraries={
        "libstdc++.so.6": "libstdc++",
        "libgcc_s.so.1": "libgcc",
        "libgomp.so.1": "libgomp",
        "libz.so.1": "zlib",
    },
    libc=lambda version: "musl",  # noqa: ARG005 - its versions are not glibc's
    others=("setpriv",),
    steps={
        "postinstall": "configure",
        "apk.postupgrade": "configure",
        "preremove": "retire",
        "postremove": "forget",
    },
    version=lambda version, digest: f"{version}_p{int(digest, 16)}",  # apk knows no +
    repair="apk fix tries again",
    add_user=("{ addgroup -S edgeml; adduser -S -D -H -h /var/lib/edgeml -s /sbin/nologin -G edgeml edgeml; }"),
    services=OPENRC,
)


def seal(folder: Path) -> Path:
    """A folder with both packages, beside the bundle's. Raises EdgemlError where a wheel is for glibc."""
    foreign = [path.name.partition("-")[0] for path in sorted(folder.glob("wheels/*.whl")) if "manylinux" in path.name]
    if foreign:
        # Of the libraries that run models neither has a wheel for musl, while others do: so those are named.
        name = next((name for name in foreign if name.startswith(("onnxruntime", "llama"))), foreign[0])
        what = f"Alpine Linux cannot run {name}: its wheel is for glibc, and Alpine has musl"
        raise EdgemlError(what, hint="use --as oci, since a container brings a C library of its own")
    return packages_of(folder, DIALECT, SUFFIX)


read, same, unpack = read_packages, same_packages, unpacked
