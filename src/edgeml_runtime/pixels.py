"""From the bytes of a picture's file to the numbers that a model reads, by Pillow and numpy.

The steps are those of Transformers' image processors for Pillow, so that a model sees what it was trained on.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from edgeml_runtime.errors import EdgemlError, why
from edgeml_runtime.types import Pixels

if TYPE_CHECKING:
    from PIL.Image import Image

    from edgeml_runtime.session import Floats


def decoded(content: bytes) -> Image:
    """The picture in a file's bytes, upright and in RGB, of several frames the first.

    Raises EdgemlError for bytes that are no whole picture in a format that Pillow reads.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(io.BytesIO(content)) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        reason = "no format that Pillow knows" if isinstance(error, UnidentifiedImageError) else why(error)
        raise EdgemlError(f"a picture cannot be decoded: {reason}", hint="save it again as PNG or JPEG") from error


def numbers(content: bytes, recipe: Pixels) -> Floats:
    """What a model reads of a picture's file: `(3, height, width)`."""
    picture = _fitted(decoded(content), recipe)
    mean, std = np.array(recipe.mean, np.float32), np.array(recipe.std, np.float32)
    channels = (np.asarray(picture, np.float32) * np.float32(recipe.scale) - mean) / std
    found: Floats = np.ascontiguousarray(channels.transpose(2, 0, 1))
    return found


def _fitted(picture: Image, recipe: Pixels) -> Image:
    """Resized, and cut to size where that is larger, as near the centre as whole pixels allow."""
    from PIL.Image import Resampling

    width, height = _resized(picture, recipe)
    made = picture.resize((width, height), Resampling[recipe.resample.upper()])
    if (width, height) == (recipe.width, recipe.height):
        return made
    left, top = (width - recipe.width) // 2, (height - recipe.height) // 2
    return made.crop((left, top, left + recipe.width, top + recipe.height))


def _resized(picture: Image, recipe: Pixels) -> tuple[int, int]:
    """Width and height before anything is cut off."""
    if recipe.shortest_edge is None:
        height, width = recipe.squeezed or (recipe.height, recipe.width)
        return width, height
    width, height = picture.size
    longer = int(recipe.shortest_edge * max(width, height) / min(width, height))
    return (recipe.shortest_edge, longer) if width <= height else (longer, recipe.shortest_edge)
