"""A bundle folder as it lies on a device: finding its parts and proving that every byte is the one that was packed.

Knows nothing of how a bundle is made, and opens no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.records import describe_file, read_record, verify
from edgeml_runtime.types import Bundle, File

MANIFEST = "bundle.json"
GOLDENS = "goldens.json"
SUMS = "SHA256SUMS"
VARIANT = "variant"
WHEELS = "wheels/"
SITE = ".site-"  # how the folder's name begins that holds the packages of unpacked wheels


def read_bundle(folder: Path) -> Bundle:
    """The bundle in a folder."""
    if not (folder / MANIFEST).is_file():
        raise EdgemlError(f"{folder} is no bundle: it has no {MANIFEST}", hint="name the folder that run.sh lies in")
    return read_record(folder / MANIFEST, Bundle)


def variant_folder(folder: Path) -> Path:
    """The variant's folder, given a bundle's or its own."""
    for found in (folder / VARIANT, folder):
        if (found / "variant.json").is_file():
            return found
    raise EdgemlError(f"{folder} holds no variant", hint="name a bundle's folder, or one with variant.json")


def checksums(files: Iterable[File]) -> str:
    """The text of SHA256SUMS, as `sha256sum -c` reads it, sorted by path."""
    return "".join(f"{file.sha256}  {file.path}\n" for file in sorted(files, key=lambda file: file.path))


def check_files(folder: Path, *, tick: Callable[[int], None] | None = None) -> Bundle:
    """The bundle in a folder, once SHA256SUMS, `bundle.json` and every file agree.

    Raises EdgemlError naming the first file that is missing or changed. Files that came later are not looked at, nor
    are wheels missed whose packages are there in their stead.
    """
    bundle = read_bundle(folder)
    everything = (*bundle.files, describe_file(folder / MANIFEST, MANIFEST))
    stated, expected = _read(folder / SUMS).splitlines(), checksums(everything).splitlines()
    differing = sorted(set(stated) ^ set(expected))
    if differing:
        name = differing[0].partition("  ")[2] or SUMS
        raise EdgemlError(f"{SUMS} and {MANIFEST} disagree on {name}", hint="copy the bundle again")
    verify(folder, lying(folder, bundle), tick=tick)
    return bundle


def lying(folder: Path, bundle: Bundle) -> tuple[File, ...]:
    """The files that must lie in a bundle's folder: all, or all but the wheels, once only their packages were kept."""
    if (folder / WHEELS).exists() or not any(folder.glob(f"{SITE}*")):
        return bundle.files
    return tuple(file for file in bundle.files if not file.path.startswith(WHEELS))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EdgemlError(f"cannot read {path}: {error}", hint="copy the bundle again") from error
