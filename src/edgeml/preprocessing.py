"""How a model's own files say that pictures become its input: Transformers' `preprocessor_config.json` as a recipe.

Runs no code and opens no picture. What a recipe cannot say is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from edgeml.errors import EdgemlError
from edgeml_runtime.records import parse_json
from edgeml_runtime.types import Pixels

CONFIG = "preprocessor_config.json"
# Transformers' image processors whose steps a recipe can say. A test compares each with Transformers' own.
PROCESSORS = ("ViT", "DeiT", "Bit", "ConvNext", "MobileNetV1", "MobileNetV2")
_ENDINGS = ("ImageProcessorPil", "ImageProcessorFast", "ImageProcessor", "FeatureExtractor")
_RESAMPLE = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")  # by Pillow's number
_SCALE = 1 / 255  # where a file from before Transformers 4.26 leaves it out
_KEPT_FROM = 384  # pixels from which ConvNext's processor resizes without cropping
_CROP_SHARE = 224 / 256  # of its shorter side, where ConvNext's file leaves it out
_SQUEEZING = ("ViT", "DeiT")  # a plain number means both sides to these, the shorter one to others
_CUTS = "supported: a size, or one with a smaller crop_size"


class _Size(NamedTuple):
    """The size of the input, and what is said of the picture that it is cut out of, if it is."""

    height: int
    width: int
    shortest_edge: int | None = None
    squeezed: tuple[int, int] | None = None


def read_pixels(folder: Path) -> Pixels:
    """The recipe of a model's folder; raises EdgemlError for one that is missing, or that edgeml cannot follow."""
    path = folder / CONFIG
    try:
        config = parse_json(path.read_bytes())
    except (OSError, ValueError) as error:
        hint = f"put the model's {CONFIG} beside its weights"
        raise EdgemlError(f"{folder.name} has no {CONFIG} that can be read", hint=hint) from error
    if not isinstance(config, dict):
        raise EdgemlError(f"{path} holds no settings", hint="download the model again")
    try:
        return _recipe(config, folder.name)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise EdgemlError(f"{path} lacks or misstates {error}", hint="download the model again") from error


def _recipe(config: dict[str, Any], name: str) -> Pixels:
    kind = _kind(config, name)
    if not config.get("do_resize", True):
        raise EdgemlError(f"{name} takes pictures of any size, which edgeml cannot batch", hint="set do_resize")
    normalizes = config.get("do_normalize", True)
    return Pixels(
        **_size(config, kind, name)._asdict(),
        resample=_RESAMPLE[config["resample"]],  # type: ignore[arg-type]
        scale=config.get("rescale_factor", _SCALE) if config.get("do_rescale", True) else 1.0,
        mean=_channels(config["image_mean"]) if normalizes else (0.0, 0.0, 0.0),
        std=_channels(config["image_std"]) if normalizes else (1.0, 1.0, 1.0),
    )


def _kind(config: dict[str, Any], name: str) -> str:
    stated = str(config.get("image_processor_type") or config.get("feature_extractor_type"))
    ending = next((one for one in _ENDINGS if stated.endswith(one)), "")
    kind = stated.removesuffix(ending)
    if kind not in PROCESSORS:
        hint = f"supported: {', '.join(f'{one}ImageProcessor' for one in PROCESSORS)}"
        raise EdgemlError(f"{name} reads pictures by a {stated}, which edgeml cannot follow", hint=hint)
    return kind


def _size(config: dict[str, Any], kind: str, name: str) -> _Size:
    size = config["size"]
    if isinstance(size, int):  # as files from before Transformers 4.26 write it
        size = {"height": size, "width": size} if kind in _SQUEEZING else {"shortest_edge": size}
    if "shortest_edge" not in size:
        whole = (int(size["height"]), int(size["width"]))
        cuts = config.get("do_center_crop", kind == "DeiT")
        return _Size(*_crop(config, whole, name), squeezed=whole) if cuts else _Size(*whole)
    edge = int(size["shortest_edge"])
    if kind == "ConvNext":
        shorter = None if edge >= _KEPT_FROM else int(edge / (config.get("crop_pct") or _CROP_SHARE))
        return _Size(edge, edge, shorter)
    if not config.get("do_center_crop", True):
        raise EdgemlError(f"{name} gives its model pictures of any size, which cannot be batched", hint=_CUTS)
    return _Size(*_crop(config, (edge, edge), name), edge)


def _crop(config: dict[str, Any], whole: tuple[int, int], name: str) -> tuple[int, int]:
    """Height and width of what is cut out of a picture that has at least the size of `whole`."""
    crop = config["crop_size"]
    height, width = (crop, crop) if isinstance(crop, int) else (int(crop["height"]), int(crop["width"]))
    if height > whole[0] or width > whole[1]:
        problem = f"{name} cuts {width} by {height} pixels out of pictures of {whole[1]} by {whole[0]}"
        raise EdgemlError(problem, hint=_CUTS)
    return height, width


def _channels(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
