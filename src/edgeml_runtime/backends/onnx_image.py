"""Labels of pictures by an ONNX graph: decoding, resizing and normalising as the variant says, then the graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime as ort

from edgeml_runtime.backends.onnx import open_graph
from edgeml_runtime.errors import EdgemlError
from edgeml_runtime.pixels import numbers
from edgeml_runtime.types import VariantManifest

if TYPE_CHECKING:
    from edgeml_runtime.session import Floats


def open_variant(folder: Path, manifest: VariantManifest, *, threads: int) -> OnnxImageClassifier:
    """Load the graph; raises EdgemlError for a variant that does not say how pictures are read."""
    if manifest.pixels is None:
        raise EdgemlError(f"{manifest.name} does not say how pictures are read", hint="make the variant again")
    import PIL  # noqa: F401 - a package that is missing is named before a figure is taken

    return OnnxImageClassifier(manifest, open_graph(folder / manifest.weights, threads=threads))


class OnnxImageClassifier:
    """An ImageClassifier over a graph that takes pixels (batch, 3, height, width) and gives logits (batch, labels)."""

    def __init__(self, manifest: VariantManifest, session: ort.InferenceSession) -> None:
        self.manifest = manifest
        self._session = session
        self._input = session.get_inputs()[0].name
        self._output = [session.get_outputs()[0].name]

    def classify_images(self, images: Sequence[bytes]) -> Floats:
        """Raw logits, `(len(images), labels)`; raises EdgemlError for a picture that cannot be decoded."""
        assert self.manifest.pixels is not None
        batch = np.stack([numbers(image, self.manifest.pixels) for image in images])
        logits: Floats = self._session.run(self._output, {self._input: batch})[0]
        if logits.shape[-1] != len(self.manifest.labels):
            problem = f"{self.manifest.name} gives {logits.shape[-1]} logits for {len(self.manifest.labels)} labels"
            raise EdgemlError(problem, hint="make the variant again")
        return logits

    def close(self) -> None:
        """Drop the session; ONNX Runtime frees its arena with it."""
        del self._session
