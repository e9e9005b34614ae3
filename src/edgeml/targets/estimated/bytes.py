"""What a model file makes a device do: bytes that a token streams, multiply-adds, and what is held beside the weights.

GGUF files are judged by their tensor table, ONNX graphs by their nodes; no weight is loaded. Two approximations: an
attention's own products are `2 * tokens**2 * width` multiply-adds a layer, and elementwise work counts nothing.
"""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import EdgemlError
from edgeml.formats.gguf.header import Header, Tensor, read_header
from edgeml.formats.onnx.graph import load
from edgeml.targets.estimated.points import Kernels
from edgeml_runtime.types import Record

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

HALF_BYTES = 2  # of a number in llama.cpp's cache of keys and values, unless asked otherwise
# Types that llama.cpp rewrites at load for a family of processors, and how many rows it takes at once:
# `ggml_repack_get_optimal_repack_type` in ggml-cpu/repack.cpp as of llama-cpp-python 0.3.36. Any other stays as it is.
_AVX2 = {"Q4_0": 8, "Q4_K": 8, "IQ4_NL": 8, "MXFP4": 8}
REPACKED: dict[str, dict[str, int]] = {
    "arm64-dotprod": {"Q4_0": 4, "Q8_0": 4, "IQ4_NL": 4, "MXFP4": 4, "Q4_K": 8, "Q5_K": 8, "Q6_K": 8},
    "x86-64-avx2": _AVX2,
    "x86-64-vnni": _AVX2,
}
_FLOATS = ("F32", "F16", "BF16")
_LOOKED_UP = ("token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight")
_TABLE, _HEAD, _EXPERTS = "token_embd.weight", "output.weight", "_exps."
_PRODUCTS = {  # a node's operator, and the place of its weights among what it reads
    "MatMul": 1,
    "Gemm": 1,
    "FusedMatMul": 1,
    "FusedGemm": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
    "QLinearMatMul": 3,
    "Attention": 1,
    "QAttention": 1,
}
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_ATTENTIONS = ("Softmax", "Attention", "QAttention", "MultiHeadAttention")
_KEPT = ("Cast", "DequantizeLinear", "Identity", "QuantizeLinear", "Reshape", "Transpose")  # a weight stays one


class Streams(Record, frozen=True, kw_only=True):
    """What a GGUF file makes a device do.

    `bytes_per_token` are the weights that one token reads, `operations` the multiply-adds of a token in the layers,
    `head_operations` those of the output head, which only a token that is answered needs. `kv_bytes_per_token` is what
    the cache of keys and values grows by with each token, `unused_bytes` what of the file no step reads as a whole.
    `repacked_bytes` are rewritten at load, and `kernels` are those that read a prompt, both for one family of
    processors: by what most weights are.
    """

    bytes_per_token: int
    operations: int
    head_operations: int
    layers: int
    width: int
    kv_bytes_per_token: int
    file_bytes: int
    repacked_bytes: int
    unused_bytes: int
    kernels: Kernels

    def decode_bytes(self, depth: float) -> float:
        """Bytes that a token reads when `depth` tokens stand before it."""
        return self.bytes_per_token + depth * self.kv_bytes_per_token

    def prompt_operations(self, tokens: int, *, causal: bool = True) -> float:
        """Multiply-adds of reading so many tokens at once; a decoder's attend to those before them alone."""
        return tokens * self.operations + (1 if causal else 2) * self.layers * tokens**2 * self.width


class Graph(Record, frozen=True, kw_only=True):
    """What an ONNX graph makes a device do for one input: multiply-adds, and bytes of weights."""

    operations: float
    weight_bytes: int


def gguf_streams(path: Path, integer_kernels: str = "") -> Streams:
    """What a GGUF file makes a device with such kernels (see `Profile`) do, by its header.

    The token table is read a row at a time and counts nothing, unless it is the output head too. Of a mixture of
    experts, those that a token uses count. Raises EdgemlError for a file that is no whole GGUF.
    """
    header = read_header(path)
    tensors = {tensor.name: tensor for tensor in header.tensors}
    tied = _HEAD not in tensors and not _is_encoder(header)
    skipped = [name for name in _LOOKED_UP if name in tensors and not (name == _TABLE and tied)]
    read = [tensor for tensor in header.tensors if tensor.name not in skipped]
    share = _share_of_experts(header)
    head = tensors.get(_HEAD) or (tensors.get(_TABLE) if tied else None)
    blocks = [tensor for tensor in read if len(tensor.shape) > 1 and tensor is not head]
    repacked = [
        one for one in (*blocks, *([tensors[_HEAD]] if _HEAD in tensors else [])) if _is_repacked(one, integer_kernels)
    ]
    return Streams(
        bytes_per_token=round(sum(tensor.size_bytes * _used(tensor, share) for tensor in read)),
        operations=round(sum(tensor.parameters * _used(tensor, share) for tensor in blocks)),
        head_operations=head.parameters if head else 0,
        layers=int(header.own("block_count") or 0),
        width=int(header.own("embedding_length") or 0),
        kv_bytes_per_token=0 if _is_encoder(header) else _kv_bytes(header, path),
        file_bytes=header.size_bytes,
        repacked_bytes=sum(tensor.size_bytes for tensor in repacked),
        unused_bytes=sum(tensors[name].size_bytes for name in skipped),
        kernels=_most_used(blocks, integer_kernels),
    )


def _is_repacked(tensor: Tensor, integer_kernels: str) -> bool:
    rows = REPACKED.get(integer_kernels, {}).get(tensor.type.name)
    return rows is not None and len(tensor.shape) > 1 and tensor.shape[1] % rows == 0


def _most_used(blocks: list[Tensor], integer_kernels: str) -> Kernels:
    counts: Counter[Kernels] = Counter()
    for tensor in blocks:
        plain: Kernels = "float" if tensor.type.name in _FLOATS else "plain"
        counts["repacked" if _is_repacked(tensor, integer_kernels) else plain] += tensor.parameters
    return counts.most_common(1)[0][0] if counts else "float"


def _is_encoder(header: Header) -> bool:
    return header.own("pooling_type") is not None or header.own("attention.causal") is False


def _share_of_experts(header: Header) -> float:
    count, used = header.own("expert_count"), header.own("expert_used_count")
    return used / count if count and used else 1.0


def _used(tensor: Tensor, share: float) -> float:
    return share if _EXPERTS in tensor.name else 1.0


def _kv_bytes(header: Header, path: Path) -> int:
    heads, width = header.own("attention.head_count"), header.own("embedding_length")
    layers = int(header.own("block_count") or 0)
    if not isinstance(heads, int) or not heads or not width:
        raise EdgemlError(f"{path} does not say how wide its attention is", hint="make the GGUF file again")
    size = width / heads
    both = (header.own("attention.key_length") or size) + (header.own("attention.value_length") or size)
    grouped = header.own("attention.head_count_kv")
    if grouped is None:  # one for all layers, or an array with one a layer, or as many as there are heads
        name = f"{header.architecture}.attention.head_count_kv"
        grouped = read_header(path, arrays=(name,)).metadata.get(name) or heads
    total = sum(grouped) if isinstance(grouped, list) else grouped * layers
    return int(total * both * HALF_BYTES)


def onnx_graph(path: Path, *, tokens: int | None = None, pixels: tuple[int, int] | None = None) -> Graph:
    """What an ONNX graph makes a device do for one text of so many tokens, or one picture of `pixels` (height, width).

    Raises EdgemlError where a convolution's output size cannot be told.
    """
    model = load(path, weights=False)
    graph = model.graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    _follow(graph, shapes)
    products = [(node, _weights(node, shapes)) for node in graph.node if node.op_type in _PRODUCTS]
    attentions = sum(node.op_type in _ATTENTIONS for node in graph.node)
    convolutions = [node for node in graph.node if node.op_type in _CONVOLUTIONS]
    made = _made(model, convolutions, pixels, path) if convolutions else {}
    if (
        pixels and attentions and convolutions
    ):  # a picture that is read as a text of patches, with one token before them
        tokens = math.prod(made[convolutions[0].output[0]][2:]) + 1
    operations = float((tokens or 1) * sum(math.prod(shape) for _, shape in products if shape))
    widths = Counter(shape[-2] for _, shape in products if len(shape) > 1)
    if tokens and widths:
        operations += 2 * attentions * tokens**2 * widths.most_common(1)[0][0]
    for node in convolutions:  # a kernel holds its group's channels alone
        kernel = shapes.get(node.input[_CONVOLUTIONS[node.op_type]], ())
        operations += math.prod(made[node.output[0]]) * math.prod(kernel[1:])
    return Graph(operations=operations, weight_bytes=sum(_size(tensor) for tensor in graph.initializer))


def _follow(graph: GraphProto, shapes: dict[str, tuple[int, ...]]) -> None:
    """Give a weight's shape to what is made of it alone, such as its numbers after they were dequantized."""
    for node in graph.node:
        if node.op_type in _KEPT and node.input and node.input[0] in shapes and math.prod(shapes[node.input[0]]) > 1:
            shape = shapes[node.input[0]]
            shapes[node.output[0]] = shape[::-1] if node.op_type == "Transpose" and len(shape) == 2 else shape


def _weights(node: NodeProto, shapes: dict[str, tuple[int, ...]]) -> tuple[int, ...]:
    place = _PRODUCTS[node.op_type]
    return shapes.get(node.input[place], ()) if len(node.input) > place else ()


def _made(
    model: ModelProto, nodes: list[NodeProto], pixels: tuple[int, int] | None, path: Path
) -> dict[str, tuple[int, ...]]:
    """The size of what each of these nodes makes of one picture."""
    sizes = _inferred(model, pixels)
    for node in nodes:
        if node.output[0] not in sizes:
            message = f"the size of what {node.name or node.op_type} makes cannot be told from {path}"
            raise EdgemlError(message, hint="measure it on the device")
    return sizes


def _inferred(model: ModelProto, pixels: tuple[int, int] | None) -> dict[str, tuple[int, ...]]:
    """The sizes of all that the graph makes of one picture, as far as they can be told."""
    from onnx import shape_inference

    copy = type(model)()
    copy.CopyFrom(model)
    for item in copy.graph.input:
        dims = item.type.tensor_type.shape.dim
        wanted = (1, dims[1].dim_value or 3, *pixels) if pixels and len(dims) == 4 else (1,) * len(dims)
        for dim, size in zip(dims, wanted, strict=False):
            if not dim.dim_value:
                dim.dim_value = size
    inferred = shape_inference.infer_shapes(copy, strict_mode=False).graph
    return {item.name: _dims(item) for item in (*inferred.value_info, *inferred.output) if _dims(item)}


def _dims(item: Any) -> tuple[int, ...]:
    dims = tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)
    return dims if all(dims) else ()


def _size(tensor: Any) -> int:
    from onnx import helper

    size: int = math.prod(tensor.dims) * int(helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize)
    return size
