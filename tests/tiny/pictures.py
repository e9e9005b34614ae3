"""Makers of pictures, and of tiny classifiers of them, each in a folder as a hub holds it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

SHAPES = ("circle", "square", "triangle")
SIDE = 32

_VIT = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96, "patch_size": 8}
_CONVNEXT = {"image_size": SIDE, "num_stages": 2, "hidden_sizes": [16, 32], "depths": [1, 1], "initializer_range": 0.2}
SETTINGS: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {**_VIT, "image_size": SIDE, "initializer_range": 0.2},
    "DeiTForImageClassification": {**_VIT, "image_size": SIDE, "initializer_range": 0.2},
    "Dinov2ForImageClassification": {**_VIT, "image_size": SIDE, "initializer_range": 0.2},
    "SwinForImageClassification": {
        "image_size": SIDE,
        "patch_size": 2,
        "embed_dim": 16,
        "depths": [2, 2],
        "num_heads": [2, 4],
        "window_size": 4,
        "initializer_range": 0.2,
    },
    "ConvNextForImageClassification": _CONVNEXT,
    "ConvNextV2ForImageClassification": _CONVNEXT,
    "MobileNetV1ForImageClassification": {"image_size": SIDE, "depth_multiplier": 0.25, "initializer_range": 0.3},
    "RegNetForImageClassification": {
        "embedding_size": 16,
        "hidden_sizes": [16, 32, 32, 32],
        "depths": [1, 1, 1, 1],
        "groups_width": 8,
    },
    "ResNetForImageClassification": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1]},
    "MobileNetV2ForImageClassification": {"image_size": SIDE, "depth_multiplier": 0.25, "initializer_range": 0.3},
}
_RECIPES: dict[str, dict[str, Any]] = {
    "ViTForImageClassification": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": SIDE, "width": SIDE},
        "resample": 2,
    },
    "ResNetForImageClassification": {
        "feature_extractor_type": "ConvNextFeatureExtractor",  # as microsoft/resnet-50 has it
        "size": SIDE,
        "crop_pct": 0.875,
        "resample": 3,
    },
    "MobileNetV2ForImageClassification": {
        "image_processor_type": "MobileNetV2ImageProcessor",
        "size": {"shortest_edge": 40},
        "do_center_crop": True,
        "crop_size": {"height": SIDE, "width": SIDE},
        "resample": 2,
    },
}
# What the first checkpoints of each family have; DeiT's own comes with its name alone.
_RECIPES |= {
    f"{family}ForImageClassification": _RECIPES[f"{like}ForImageClassification"]
    for family, like in (
        *(("DeiT", "ViT"), ("Swin", "ViT"), ("Dinov2", "MobileNetV2"), ("ConvNext", "ResNet")),
        *(("ConvNextV2", "ResNet"), ("RegNet", "ResNet"), ("MobileNetV1", "MobileNetV2")),
    )
}
_NORMAL = {"do_resize": True, "do_normalize": True, "image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.3, 0.2]}


def recipe(architecture: str) -> dict[str, Any]:
    """What the `preprocessor_config.json` of such a model says."""
    return _NORMAL | _RECIPES[architecture]


def image_model(architecture: str) -> Any:
    """A model of that class with random weights, in PyTorch."""
    import torch
    import transformers

    torch.manual_seed(0)
    kind = getattr(transformers, architecture)
    names = dict(enumerate(SHAPES))
    labels = {"id2label": names, "label2id": {name: place for place, name in names.items()}}
    return kind(kind.config_class(**SETTINGS[architecture], **labels))


def save_image_model(model: Any, folder: Path) -> Path:
    """The model's folder."""
    model.eval().save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(recipe(type(model).__name__)))
    return folder


def drawn(shape: str, seed: int, *, size: tuple[int, int] = (48, 40)) -> Any:
    """A picture of one shape somewhere on a noisy ground, in two colours of the seed's."""
    from PIL import Image, ImageDraw

    chance = random.Random(f"{shape} {seed}")
    ground, colour = (tuple(chance.randrange(0, 90) + light for _ in range(3)) for light in (0, 140))
    picture = Image.effect_noise(size, 40).convert("RGB")
    picture = Image.blend(Image.new("RGB", size, ground), picture, 0.15)
    reach = chance.randrange(9, 15)
    x, y = chance.randrange(reach, size[0] - reach), chance.randrange(reach, size[1] - reach)
    box = (x - reach, y - reach, x + reach, y + reach)
    pen = ImageDraw.Draw(picture)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    else:
        pen.polygon([(x, y - reach), (x - reach, y + reach), (x + reach, y + reach)], fill=colour)
    return picture


def picture_folder(folder: Path, each: int, *, seed: int = 0) -> Path:
    """A folder of `each` pictures of every shape, in sub-folders that are their labels."""
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True)
        for number in range(each):
            drawn(shape, seed + number).save(folder / shape / f"{number:04}.png")
    return folder


def image_variant(folder: Path, **fields: Any) -> Path:
    """A variant in ONNX without PyTorch: the mean of each channel of a picture of 8 by 8 is its label's logit."""
    from onnx import helper, save_model

    from edgeml_runtime.records import describe, write_record
    from edgeml_runtime.types import Audit, File, Pixels, VariantManifest
    from tiny.graphs import graph_model

    folder.mkdir(parents=True)
    node = helper.make_node("ReduceMean", ["pixel_values"], ["logits"], axes=[2, 3], keepdims=0)
    graph = graph_model([node], {"pixel_values": ["batch", 3, 8, 8]}, {"logits": ["batch", 3]}, {})
    save_model(graph, folder / "model.onnx")
    own = {
        "name": "tiny/onnx-fp32",
        "model": "pypi:tiny-model==1.0",
        "scheme": "onnx:fp32",
        "task": "image-classification",
        "architecture": "TinyModel",
        "weights": "model.onnx",
        "files": describe(folder),
        "source_files": (File(path="model.safetensors", size_bytes=1, sha256="0" * 64),),
        "audit": Audit(parameters=1, bits_per_weight=32, tensor_types={"FLOAT": 1}, share_quantized=0, earned=True),
        "labels": ("red", "green", "blue"),
        "pixels": Pixels(
            height=8, width=8, resample="bilinear", scale=1 / 255, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)
        ),
    }
    write_record(folder / "variant.json", VariantManifest(**own | fields))
    return folder
