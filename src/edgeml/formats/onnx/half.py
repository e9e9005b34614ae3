"""fp16: weights and sums in half precision between inputs and outputs in single precision."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgeml.formats.onnx.graph import load, save

if TYPE_CHECKING:
    from onnx import ModelProto

LARGEST = 65504.0  # that half precision holds


def write_half(source: Path, target: Path) -> int:
    """`target` in half precision; how many weights were too large for it and were clipped."""
    import warnings

    from onnxruntime.transformers.float16 import convert_float_to_float16

    model = load(source)
    clipped = _clipped(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of every number that it clips or rounds to zero
        made = convert_float_to_float16(model, keep_io_types=True, max_finite_val=LARGEST, disable_shape_infer=True)
    save(made, target)
    return clipped


def _clipped(model: ModelProto) -> int:
    from onnx import TensorProto, numpy_helper

    tensors = (one for one in model.graph.initializer if one.data_type == TensorProto.FLOAT and one.dims)
    arrays = (numpy_helper.to_array(one) for one in tensors)  # a lone number is a bound or a mask, not a weight
    return sum(int((np.abs(array) > LARGEST).sum()) for array in arrays if array.size > 1)
