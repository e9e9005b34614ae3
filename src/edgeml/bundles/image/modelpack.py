"""The model alone as a CNCF ModelPack artifact, of the image's own layers: weights, what belongs to them, papers.

The media types and the configuration are those of https://github.com/modelpack/model-spec, read 2026-11-27.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgeml.bundles.image.contents import HOME
from edgeml.bundles.image.layers import Layer
from edgeml_runtime.bundle import VARIANT
from edgeml_runtime.records import read_record
from edgeml_runtime.types import VariantManifest

_TYPE = "application/vnd.cncf.model"
_LAYERS = {"weights": "weight", "config": "weight.config", "papers": "doc"}
_INPUTS = {"image-classification": ["image"], "automatic-speech-recognition": ["audio"]}
_ANSWERS = {"feature-extraction": ["embedding"], "sentence-similarity": ["embedding"]}


def model_config(folder: Path, layers: dict[str, Layer]) -> dict[str, Any]:
    """What the artifact tells of the model."""
    manifest = read_record(folder / VARIANT / "variant.json", VariantManifest)
    format, _, scheme = manifest.scheme.partition(":")
    millions = manifest.audit.parameters / 1e6
    told = {"name": manifest.name, "revision": manifest.model}
    return {
        "descriptor": {**told, **({"licenses": [manifest.licence]} if manifest.licence else {})},
        "config": {
            "architecture": manifest.architecture,
            "format": format,
            "paramSize": f"{millions / 1e3:.1f}B" if millions >= 1000 else f"{millions:.1f}M",
            "precision": scheme,
            "capabilities": {
                "inputTypes": _INPUTS.get(manifest.task, ["text"]),
                "outputTypes": _ANSWERS.get(manifest.task, ["text"]),
            },
        },
        "modelfs": {"type": "layers", "diffIds": [layers[part].diff_id for part in _LAYERS]},
    }


def model_manifest(layers: dict[str, Layer], config: dict[str, Any]) -> dict[str, Any]:
    """The artifact's manifest; `config` is the digest and size of its configuration."""
    return {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "artifactType": f"{_TYPE}.manifest.v1+json",
        "config": {"mediaType": f"{_TYPE}.config.v1+json", **config},
        "layers": [
            {
                "mediaType": f"{_TYPE}.{kind}.v1.tar+gzip",
                "digest": layers[part].digest,
                "size": layers[part].size_bytes,
                "annotations": {
                    "org.cncf.model.filepath": f"{HOME}/{VARIANT}" if part != "papers" else HOME,
                    "org.opencontainers.image.title": f"{part}.tar.gz",
                },
            }
            for part, kind in _LAYERS.items()
        ],
    }
