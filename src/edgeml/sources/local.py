"""Models that lie on this machine already: a folder, or a file. Reads them where they are and copies nothing."""

from __future__ import annotations

from os.path import realpath
from pathlib import Path

from edgeml.errors import EdgemlError
from edgeml.progress import Progress
from edgeml.sources import Consent, Fetched
from edgeml.sources.contents import (
    README,
    WEIGHT_ENDINGS,
    Card,
    Choice,
    check_sides,
    choose,
    gguf_parts,
    read_card,
    roots,
)
from edgeml.sources.headers import check_shards, check_weights
from edgeml.sources.receipts import Tally
from edgeml.types import ModelRef
from edgeml_runtime.records import describe_file


def fetch(ref: ModelRef, *, consent: Consent, progress: Progress) -> Fetched:
    """The files of the model at a path, checked and digested; the digests are what pins it."""
    path = Path(realpath(Path(ref.id).expanduser()))
    if not path.exists():
        raise EdgemlError(f"there is no {path}", hint="check the path; a hub model is written hf:org/name")
    folder, choice = _chosen(path, consent)
    check_sides(folder, choice, consent=consent, where=str(path))
    check_weights(folder, choice.weights)
    check_shards(folder, choice.files)
    card = read_card(folder) if README in choice.files else Card()  # not one that lies beside by chance
    tally = Tally(progress, "digest", sum((folder / name).stat().st_size for name in choice.files))
    return Fetched(
        ref=ModelRef(source="local", id=str(path)),
        path=folder,
        files=tuple(describe_file(folder / name, name, tick=tally.add) for name in sorted(choice.files)),
        format=choice.format,
        licence=card.licence,
        task=card.task,
    )


def _chosen(path: Path, consent: Consent) -> tuple[Path, Choice]:
    """The folder and its files; a file stands for itself with the small files beside it."""
    if path.is_dir():
        names = _names(path)
        inner = [root for root in roots(names) if root]
        if len(inner) == len(roots(names)) == 1 and inner[0] != "onnx":
            raise EdgemlError(f"{path} holds its model in {inner[0]}", hint=f"write {path / inner[0]}")
        return path, choose(names, consent=consent, where=str(path))
    return path.parent, choose(_with_company(path), consent=consent, where=str(path))


def _with_company(path: Path) -> list[str]:
    """A weight file and what belongs to it: a GGUF its other parts, others their tokenizer and settings."""
    if path.suffix == ".gguf":
        return gguf_parts(path.name, [beside.name for beside in path.parent.glob("*.gguf")])
    beside = _names(path.parent)
    modules = [name for name in beside if "/" in name and path.suffix == ".safetensors"]
    sides = [name for name in beside if not name.endswith(WEIGHT_ENDINGS)]
    external = [name for name in beside if name.startswith(path.name)]
    return [*sides, *modules, *external]


def _names(folder: Path) -> list[str]:
    # Two levels hold every model; a mistaken home folder is not searched through.
    paths = (*folder.glob("*"), *folder.glob("*/*"))
    return [path.relative_to(folder).as_posix() for path in paths if path.is_file()]
