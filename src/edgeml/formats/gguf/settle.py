"""What of the user's wishes and inputs a GGUF conversion uses: the types of single tensors, and an importance matrix.

A matrix that was computed is kept in the request's folder for what was calibrated, named by the digest of all that it
depends on, so that neither a second scheme nor a later command computes it again.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from edgeml.errors import EdgemlError
from edgeml.formats import Calibration, Request
from edgeml.formats.gguf.header import Header
from edgeml.formats.gguf.matrix import Matrix, check_fits, read_matrix
from edgeml.formats.gguf.matrix_child import CHUNK_TOKENS, MatrixJob
from edgeml.formats.gguf.mixtures import DEMANDING_TYPES, MATRIX_TYPES, MIXTURES
from edgeml.formats.gguf.process import CONVERTER, QUANTIZER, compute_matrix, tool_version
from edgeml.formats.gguf.wishes import parse_wish, wished_types
from edgeml.progress import Progress
from edgeml_runtime.records import sha256
from edgeml_runtime.types import Record

ENCODERS = ("bert", "nomic-bert")  # they read a text as a whole, whatever its end


class Settled(Record, frozen=True, kw_only=True):
    """The types that are wished, by tensor; the file of an importance matrix; and what the manifest says of both.

    `calibrated` says whether the matrix was computed on the user's texts.
    """

    types: dict[str, str] = {}
    matrix: Path | None = None
    settings: dict[str, Any] = {}
    calibrated: bool = False


def check_wishes(request: Request) -> None:
    """Raise EdgemlError, before any work, for a wish or a matrix that cannot be read, and for a matrix that is missing.

    Some schemes cannot be made without one.
    """
    for wish in request.wishes.tensor_types:
        parse_wish(wish)
    if request.wishes.imatrix:
        read_matrix(Path(request.wishes.imatrix))
    elif MIXTURES[request.scheme.name].demanding and not request.calibration:
        raise _demanded(str(request.scheme))


def settle(request: Request, model: Path, header: Header, shared: Path, progress: Progress) -> Settled:
    """What is used for a quantized scheme of the GGUF `model`; a matrix is computed where texts are there for it."""
    check_wishes(request)
    mixture = MIXTURES[request.scheme.name]
    types = wished_types(request.wishes.tensor_types, header) if mixture.quantized else {}
    settings: dict[str, Any] = {"tensor_types": types} if types else {}
    demanding = DEMANDING_TYPES & set(types.values())
    if demanding and not (request.wishes.imatrix or request.calibration):
        raise _demanded(f"the tensor type {min(demanding)}")
    if not (mixture.uses_matrix or MATRIX_TYPES & set(types.values())):
        return Settled(types=types, settings=settings)
    if request.wishes.imatrix:
        path = Path(request.wishes.imatrix)
    elif request.calibration:
        path = _computed(request, request.calibration, model, header, shared, progress)
    else:
        return Settled(types=types, settings=settings)
    matrix = read_matrix(path)
    check_fits(matrix, header, str(path))
    settings["imatrix"] = _described(path, matrix)
    return Settled(types=types, matrix=path, settings=settings, calibrated=not request.wishes.imatrix)


def _demanded(what: str) -> EdgemlError:
    message = f"{what} is nothing without an importance matrix: llama.cpp would write garbage"
    return EdgemlError(message, hint="give it text like that which the model will read: --calibration FILE")


def _computed(
    request: Request, calibration: Calibration, model: Path, header: Header, shared: Path, progress: Progress
) -> Path:
    texts = calibration.texts or tuple(" ".join(words) for words in calibration.words)
    if not texts:
        raise EdgemlError(
            f"{calibration.name} has no texts, which GGUF models read", hint="give text: --calibration FILE"
        )
    folder = request.kept or shared
    path = folder / f"imatrix-{_key(request, texts)[:16]}.gguf"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f"{path.name}.{os.getpid()}.part")  # another process may compute the same now
        try:
            encoder = header.architecture in ENCODERS
            job = MatrixJob(
                model=str(model),
                texts=texts,
                name=calibration.name,
                target=str(part),
                threads=threads(),
                encoder=encoder,
            )
            compute_matrix(job, shared, progress=progress)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return path


def threads() -> int:
    """The threads that a matrix is computed with: half as many as there are cores. The sums do not depend on them.

    They wait for each other after every matrix, spinning: where others work too, one too many makes it a hundred times
    slower.
    """
    return max(1, (os.cpu_count() or 1) // 2)


def _key(request: Request, texts: tuple[str, ...]) -> str:
    """The digest of all that a matrix depends on."""
    tools = [tool_version(QUANTIZER), tool_version(CONVERTER) if request.model.format != "gguf" else None]
    files = [[file.path, file.sha256] for file in request.model.files]
    return hashlib.sha256(json.dumps([files, texts, CHUNK_TOKENS, tools]).encode()).hexdigest()


def _described(path: Path, matrix: Matrix) -> dict[str, Any]:
    """What the manifest says of a matrix. `unseen` are experts that no token came to: all columns weigh the same."""
    tokens = max((int(entry.counts.max()) for entry in matrix.entries.values()), default=0)
    said = {
        "sha256": sha256(path),
        "tensors": len(matrix.entries),
        "chunks": matrix.chunks,
        "chunk_tokens": matrix.chunk_tokens,
        "tokens": tokens,
    }
    return said | ({"unseen": matrix.unseen} if matrix.unseen else {})
