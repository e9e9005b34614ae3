"""A bundle folder as it lies on a device: finding its parts and proving that every byte is the one that was packed.

Knows nothing of how a bundle is made, and opens no model.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from edgeml_runtime.errors import EdgemlError, why
from edgeml_runtime.records import describe_file, read_record, verify
from edgeml_runtime.types import File, Record

MANIFEST = "bundle.json"
GOLDENS = "goldens.json"
SUMS = "SHA256SUMS"
VARIANT = "variant"
WHEELS = "wheels/"
SITE = ".site-"  # begins the folders of unpacked wheels that `edgeml_runtime.unpack` makes, which can import nothing


class Bundle(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.bundle/1"):
    """`bundle.json`: one variant with all that runs it on one target.

    `files` are all of the bundle's but `bundle.json` and `SHA256SUMS`, which follow from them. `python` are the
    versions that its wheels serve; a bundle without wheels runs on any from 3.11. `parts` are the digests of its
    `model` and its `runtime`, each of which may be replaced alone.
    """

    name: str
    variant: str
    model: str
    target: str
    kind: str
    runtime: str
    files: tuple[File, ...]
    machine: str
    python: tuple[str, ...]
    licence: str | None = None
    parts: dict[str, str] = {}
    version: str = "1"


class Goldens(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.goldens/1"):
    """`goldens.json`: what a variant answered where it was packed, and how near another machine must come.

    An encoder has one vector a text, a classifier its logits, compared by cosine; `texts` are the names of pictures,
    and `token_counts` their bytes, where it reads those. A decoder has `tokens`, the beginning of each text, and
    `top_tokens`, the likeliest successor at each of their positions, compared by the share that agrees. `minimum`
    bounds the worst cosine, or that share; `reason` says why it is what it is. `greedy` is for the reader: it may well
    differ on another processor.
    """

    texts: tuple[str, ...]
    synthetic: bool
    token_counts: tuple[int, ...]
    minimum: float
    reason: str
    vectors: tuple[tuple[float, ...], ...] = ()
    tokens: tuple[tuple[int, ...], ...] = ()
    top_tokens: tuple[tuple[int, ...], ...] = ()
    greedy: str | None = None


class SelfTest(Record, frozen=True, kw_only=True, tag_field="schema", tag="edgeml.selftest/1"):
    """A self-test that passed: files that are intact, texts that were answered, and how well the answers agree.

    `read` says what the `texts` are, where they are none.
    """

    bundle: str
    files: int
    texts: int
    agreement: float
    minimum: float
    read: str = "texts"


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
        raise EdgemlError(f"cannot read {path}: {why(error)}", hint="copy the bundle again") from error
