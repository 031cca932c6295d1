"""Convolution layers as matrix products: the same function of the same weights, and faster for batches.

onnxruntime's Conv takes the examples of a batch one by one; Gemm takes them all at once. `to_gemm` rewrites the
convolutional part of an ONNX graph, layer by layer, in one of two forms:

dense
    One Gemm of the whole input with the layer's Toeplitz matrix. Its rows are the layer's answers to unit impulses.
im2col
    Gather makes each window a row, and one Gemm multiplies all of them with the kernels.

dense multiplies by many zeros, im2col copies every number ``kernel / stride`` times: small layers are dense, large ones
im2col (`DENSE_ROWS`). Both keep the weights in the file as they are, by name and shape: the matrices are written as
operations on them, which onnxruntime carries out once, when it loads the file.

For finite inputs the two lowerings differ by rounding. A NaN or an infinity spreads further through a dense layer: zero
times it is NaN.

Shapes: B batch, C and K channels in and out, L and M length in and out, T taps of the kernel. Between layers the
activations are stored channels last, (B, L, C), so that a window is a few whole rows. Knows nothing of torch.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from google.protobuf.message import Message
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

Lowering: TypeAlias = Literal["conv", "gemm"]
"""What convolution layers become in a file: ``conv`` keeps them as Conv, ``gemm`` applies `to_gemm`."""

LOWERINGS: Final[tuple[Lowering, ...]] = ("gemm", "conv")
DEFAULT_LOWERING: Final[Lowering] = "gemm"
"""Measured by ``benchmarks/export_lowering.py``: no slower for one example, 2.4 to 2.7 times as fast for a thousand."""

DENSE_ROWS: Final = 256
"""Largest input (C * L) of a layer that is written dense; measured by ``benchmarks/export_lowering.py``."""


def to_gemm(model: ModelProto, *, dense_rows: int = DENSE_ROWS) -> int:
    """Rewrite the model's convolution layers in place; returns how many were rewritten.

    It rewrites every chain of one-dimensional Conv and Relu nodes that begins with the Unsqueeze of an input (B, L) to
    (B, 1, L). A Conv elsewhere, one with groups, and one whose lengths the file does not state remain as they are.
    ``dense_rows=0`` writes every layer as im2col.
    """
    graph = model.graph
    chains = [chain for node in graph.node if (chain := _chain_from(graph, node)) is not None]
    for chain in chains:
        _put(graph, chain, _write(chain, dense_rows))
    return sum(len(chain.layers) for chain in chains)


# ---- reading the graph -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """One Conv whose shapes are known, and whether a Relu follows it."""

    conv: NodeProto
    relu: bool
    in_shape: tuple[int, ...]
    """Shape of the input, (C, L)."""
    out_shape: tuple[int, ...]
    """Shape of the output, (K, M)."""
    kernel: int

    @property
    def name(self) -> str:
        return self.conv.output[0]

    @property
    def attributes(self) -> dict[str, Any]:
        """The Conv's attributes, with defaults for the omitted ones."""
        stated = {attribute.name: helper.get_attribute_value(attribute) for attribute in self.conv.attribute}
        return {"strides": (1,), "dilations": (1,), "pads": (0, 0), "kernel_shape": (self.kernel,)} | stated

    def taps(self) -> np.ndarray:
        """The positions of the padded input that each output position reads, (M, T)."""
        (stride,), (dilation,) = self.attributes["strides"], self.attributes["dilations"]
        taps_MT: np.ndarray = stride * np.arange(self.out_shape[1])[:, np.newaxis] + dilation * np.arange(self.kernel)
        return taps_MT


@dataclass(frozen=True)
class _Chain:
    """Layers and all of their nodes, from (B, L) to (B, K * M), or to (B, K, M) where nothing flattens it."""

    source: str
    layers: tuple[_Layer, ...]
    nodes: tuple[NodeProto, ...]
    flattened: bool


def _chain_from(graph: GraphProto, head: NodeProto) -> _Chain | None:
    """The chain that begins with ``head``; None if that does not add a channel axis to (B, L), or no Conv follows."""
    shapes = _shapes(graph)
    shape = shapes.get(head.output[0], ())
    if head.op_type != "Unsqueeze" or len(shape) != 3 or shape[1] != 1:
        return None
    nodes, layers = [head], list[_Layer]()
    node = _sole_reader(graph, head)
    while node is not None:
        if node.op_type == "Relu" and layers and not layers[-1].relu:
            layers[-1] = replace(layers[-1], relu=True)
        elif (layer := _layer(node, graph, shapes)) is not None:
            layers.append(layer)
        else:
            break
        nodes.append(node)
        node = _sole_reader(graph, node)
    if not layers:
        return None
    flattened = node is not None and _flattens(node, layers[-1], shapes)
    if node is not None and flattened:
        nodes.append(node)
    return _Chain(head.input[0], tuple(layers), tuple(nodes), flattened)


def _layer(node: NodeProto, graph: GraphProto, shapes: Mapping[str, tuple[int, ...]]) -> _Layer | None:
    """The node as a layer; None if it is no Conv, or one that cannot be rewritten."""
    if node.op_type != "Conv" or not {tensor.name for tensor in graph.initializer}.issuperset(node.input[1:]):
        return None
    before, after, weight = (shapes.get(name, ()) for name in (node.input[0], node.output[0], node.input[1]))
    if not len(before) == len(after) == 3 or min(before[1:] + after[1:]) < 1:
        return None
    automatic = any(attribute.name == "auto_pad" and attribute.s != b"NOTSET" for attribute in node.attribute)
    if automatic or weight[1] != before[1]:  # with groups a kernel sees some of the channels only
        return None
    return _Layer(node, relu=False, in_shape=before[1:], out_shape=after[1:], kernel=weight[2])


def _flattens(node: NodeProto, layer: _Layer, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether the node reshapes (B, K, M) to (B, K * M)."""
    return node.op_type in ("Reshape", "Flatten") and shapes.get(node.output[0], ())[1:] == (prod(layer.out_shape),)


def _shapes(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    """The shapes that the file states; -1 for a free axis."""
    shapes = {
        info.name: tuple(
            axis.dim_value if axis.HasField("dim_value") else -1 for axis in info.type.tensor_type.shape.dim
        )
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    return shapes | {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}


def _sole_reader(graph: GraphProto, node: NodeProto) -> NodeProto | None:
    """The only node that reads the output of ``node``; None if the output is used elsewhere too."""
    (name,) = node.output
    readers = [other for other in graph.node if name in other.input]
    if len(readers) != 1 or readers[0].input[0] != name or any(info.name == name for info in graph.output):
        return None
    return readers[0]


# ---- writing the graph -------------------------------------------------------------------------------------------


class _Writer:
    """Collects nodes and integer constants in the order in which they are written; a node is named like its output."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []

    def node(self, op_type: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:  # noqa: ANN401 - ONNX's
        self.nodes.append(helper.make_node(op_type, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Sequence[int] | np.ndarray) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def reshape(self, source: str, shape: Sequence[int], output: str) -> str:
        return self.node("Reshape", [source, self.constant(f"{output}_shape", shape)], output)

    def zeros(self, shape: Sequence[int], output: str) -> str:
        zero = numpy_helper.from_array(np.zeros(1, np.float32))
        return self.node("ConstantOfShape", [self.constant(f"{output}_shape", shape)], output, value=zero)


def _write(chain: _Chain, dense_rows: int) -> _Writer:
    writer = _Writer()
    h, width = chain.source, chain.layers[0].in_shape[1]  # (rows, width), examples or windows in the rows
    for layer in chain.layers:
        is_last = layer is chain.layers[-1]
        units = prod(layer.in_shape)
        if units <= dense_rows:
            h = h if width == units else writer.reshape(h, (-1, units), f"{layer.name}_rows")
            h = _write_dense(writer, layer, h, channels_last=not is_last)
            width = prod(layer.out_shape)
        else:
            h = _write_im2col(writer, layer, h)
            width = layer.out_shape[0]
            if is_last:
                h = writer.reshape(h, (-1, *reversed(layer.out_shape)), f"{layer.name}_channels_last")
                h = writer.node("Transpose", [h], f"{layer.name}_channels_first", perm=(0, 2, 1))
                h = writer.reshape(h, (-1, prod(layer.out_shape)), f"{layer.name}_flat")
    if not chain.flattened:
        writer.reshape(h, (-1, *chain.layers[-1].out_shape), f"{chain.layers[-1].name}_unflattened")
    writer.nodes[-1].name = writer.nodes[-1].output[0] = chain.nodes[-1].output[0]
    return writer


def _write_dense(writer: _Writer, layer: _Layer, h: str, *, channels_last: bool) -> str:
    """Write a layer as one Gemm: (B, L * C) -> (B, M * K), or (B, K * M) without ``channels_last``.

    The layer itself computes its matrix: row i is its answer to an input that is 1 at i and 0 elsewhere, and the bias
    is its answer to zeros.
    """
    name, (weight, *bias) = layer.name, layer.conv.input[1:]
    (channels, length), units = layer.in_shape, prod(layer.in_shape)
    impulses = writer.node("EyeLike", [writer.zeros((units, units), f"{name}_grid")], f"{name}_eye")
    impulses = writer.reshape(impulses, (units, length, channels), f"{name}_impulses_channels_last")
    impulses = writer.node("Transpose", [impulses], f"{name}_impulses", perm=(0, 2, 1))
    silence = writer.zeros((1, channels, length), f"{name}_silence")

    def answer(what: str, inputs: Sequence[str], shape: Sequence[int]) -> str:
        answered = writer.node("Conv", inputs, f"{name}_{what}_channels_first", **layer.attributes)
        if channels_last:
            answered = writer.node("Transpose", [answered], f"{name}_{what}_channels_last", perm=(0, 2, 1))
        return writer.reshape(answered, shape, f"{name}_{what}")

    matrix = answer("matrix", [impulses, weight], (units, prod(layer.out_shape)))
    offset = answer("offset", [silence, weight, *bias], (prod(layer.out_shape),))
    return _write_gemm(writer, layer, [h, matrix, offset])


def _write_im2col(writer: _Writer, layer: _Layer, h: str) -> str:
    """Write a layer as Gather and Gemm: (B, L * C), split into rows in any way, -> (B * M, K)."""
    name, (weight, *bias) = layer.name, layer.conv.input[1:]
    (channels, length), pads = layer.in_shape, layer.attributes["pads"]
    h = writer.reshape(h, (-1, length, channels), f"{name}_input")
    if any(pads):
        axis = writer.constant(f"{name}_pad_axis", (1,))
        h = writer.node("Pad", [h, writer.constant(f"{name}_pads", pads), "", axis], f"{name}_padded")
    windows = writer.node("Gather", [h, writer.constant(f"{name}_taps", layer.taps())], f"{name}_windows", axis=1)
    windows = writer.reshape(windows, (-1, layer.kernel * channels), f"{name}_rows")
    kernels = writer.node("Transpose", [weight], f"{name}_kernels", perm=(2, 1, 0))
    matrix = writer.reshape(kernels, (layer.kernel * channels, layer.out_shape[0]), f"{name}_matrix")
    return _write_gemm(writer, layer, [windows, matrix, *bias])


def _write_gemm(writer: _Writer, layer: _Layer, inputs: Sequence[str]) -> str:
    h = writer.node("Gemm", inputs, f"{layer.name}_sums")
    return writer.node("Relu", [h], f"{layer.name}_activations") if layer.relu else h


def _put(graph: GraphProto, chain: _Chain, writer: _Writer) -> None:
    """Replace the chain's nodes by the written ones; drop shapes and constants that only the old ones used."""
    gone = {node.output[0] for node in chain.nodes}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] == chain.nodes[0].output[0]:
            nodes += writer.nodes
        if node.output[0] not in gone:
            nodes.append(node)
    read = {name for node in nodes for name in node.input}
    infos = [info for info in graph.value_info if info.name not in gone or info.name in read]
    fed = {name for node in chain.nodes for name in node.input}
    constants = [tensor for tensor in graph.initializer if tensor.name in read or tensor.name not in fed]
    _refill(graph.node, nodes)
    _refill(graph.value_info, infos)
    _refill(graph.initializer, constants + writer.constants)


def _refill(field: Any, items: Sequence[Message]) -> None:  # noqa: ANN401 - protobuf's container, of these items
    copies = [copy.deepcopy(item) for item in items]  # some of them lie in the field itself
    del field[:]
    field.extend(copies)
