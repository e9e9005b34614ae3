"""What a runtime's compiled files want of the device, read from the files themselves."""

from __future__ import annotations

import re
from pathlib import Path

from edgeml.bundles.linux.dialect import Dialect
from edgeml.crossbuild.elf import MAGIC, Library, read_library
from edgeml.errors import EdgemlError

# Parts of the C library; musl has them all in one.
_LIBC = re.compile(r"(libc|libm|libdl|librt|libpthread|libutil|libc\.musl-.*|ld-linux.*)\.so\.\d+")


def libraries_of(root: Path, dialect: Dialect) -> tuple[str, ...]:
    """The packages that hold the libraries which those below `root` need and do not bring. Empty for Python alone.

    Raises EdgemlError for a library of which no package is known.
    """
    found = {path.name: library for path in sorted(root.rglob("*.so*")) if (library := _library(path))}
    if not found:
        return ()
    needed = sorted({name for library in found.values() for name in library.needs} - found.keys())
    wanted = [name for name in needed if not _LIBC.fullmatch(name)]
    for name in wanted:
        if name not in dialect.libraries:
            raise EdgemlError(f"the runtime needs {name}, and no package is known that has it", hint="use --as dir")
    glibc = max(library.glibc for library in found.values())
    return (dialect.libc(".".join(map(str, glibc))), *(dialect.libraries[name] for name in wanted))


def _library(path: Path) -> Library | None:
    content = path.read_bytes()
    return read_library(content) if content.startswith(MAGIC) else None
