"""Find what in an ONNX graph depends on the values of the inputs, and not only on their shapes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

_ONNX_DOMAINS: Final = ("", "ai.onnx", "ai.onnx.ml")
_OF_SHAPES: Final = ("Shape", "Size")
"""Operators whose outputs depend on the shape of their input only."""
_SIZES: Final[Mapping[str, tuple[int, ...]]] = {
    "AffineGrid": (1,),
    "BlackmanWindow": (0,),
    "CenterCropPad": (1,),
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "DFT": (1,),
    "Expand": (1,),
    "HammingWindow": (0,),
    "HannWindow": (0,),
    "MaxUnpool": (2,),
    "MelWeightMatrix": (0, 1),
    "OneHot": (1,),
    "Pad": (1,),
    "Range": (0, 1, 2),
    "Resize": (1, 2, 3),
    "STFT": (1, 3),
    "Tile": (1, 2),
    "Upsample": (1,),
}
"""Operators whose output can have more elements than their inputs, and the inputs whose values say how many."""


def input_values(model: onnx.ModelProto) -> frozenset[str]:
    """Names of the values that depend on the values of the model's inputs, the inputs among them."""
    constants = {tensor.name for tensor in model.graph.initializer}
    found = {value.name for value in model.graph.input} - constants
    for node in model.graph.node:  # ONNX requires topological order
        depends = node.op_type not in _OF_SHAPES and not found.isdisjoint(node.input)
        if depends or _has_subgraph(node):
            found.update(node.output)
    return frozenset(found)


def time_follows_from_shapes(model: onnx.ModelProto) -> bool:
    """Whether the shapes of the inputs bound the time of a run.

    They do not if a node contains a subgraph (Loop, If, Scan), or if input values decide how many elements a node makes
    (a Range up to the input, for example). They may not for operators outside of the ONNX domains.
    """
    dependent = input_values(model)
    for node in model.graph.node:
        if node.domain not in _ONNX_DOMAINS or _has_subgraph(node):
            return False
        sizes = [node.input[at] for at in _SIZES.get(node.op_type, ()) if at < len(node.input)]
        if not dependent.isdisjoint(sizes):
            return False
    return True


def _has_subgraph(node: onnx.NodeProto) -> bool:
    return any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
