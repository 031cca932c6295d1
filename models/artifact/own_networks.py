"""Recognise published versions that are a network of this project, as its pipeline exports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import onnx
from google.protobuf.message import DecodeError

from models.artifact.graph_values import input_values
from models.networks.architectures import ARCHITECTURES

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.artifact.artifact import Manifest

_INPUT: Final = ("x", (40,))
_OUTPUTS: Final = {("logits", (10,)), ("probabilities", (10,))}
_BY_ROWS: Final = frozenset(
    ("Add", "Conv", "Flatten", "Gather", "Gemm", "MatMul", "Relu", "Reshape", "Softmax", "Transpose", "Unsqueeze")
)
"""Operators of the exports: they keep the rows of their first input apart, and their other inputs are constant."""
_MOST_BYTES: Final = 16 * 1024 * 1024
"""A larger file cannot be one of these networks."""


def network_of(manifest: Manifest, read: Callable[[], bytes]) -> str | None:
    """The name of the network, a key of ``ARCHITECTURES``; None for any other model, and for one without goldens.

    A manifest can claim anything. So the model must have the networks' inputs and outputs, and compute them from its
    input with the operators of an export and constant weights. ``read`` returns the model's bytes.
    """
    said = manifest.provenance.get("network")
    if not isinstance(said, dict) or not manifest.goldens or manifest.model_bytes > _MOST_BYTES:
        return None
    inputs, outputs = ([(spec.name, spec.shape[1:]) for spec in specs] for specs in (manifest.inputs, manifest.outputs))
    if inputs != [_INPUT] or set(outputs) != _OUTPUTS or not _computes_rows(read()):
        return None
    known = (each for each in ARCHITECTURES.values() if said.get("name") == each.name)
    return next((each.name for each in known if said.get("parameters") == each.parameters), None)


def _computes_rows(model_bytes: bytes) -> bool:
    try:
        model = onnx.ModelProto.FromString(model_bytes)
    except DecodeError:
        return False
    dependent = input_values(model)
    return all(
        node.op_type in _BY_ROWS and not node.domain and dependent.isdisjoint(node.input[1:]) and _keeps_rows(node)
        for node in model.graph.node
        if not dependent.isdisjoint(node.input)
    )


def _keeps_rows(node: onnx.NodeProto) -> bool:
    """Whether the node's attributes leave the first axis unchanged."""
    given = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    if node.op_type == "Gather":
        return bool(given.get("axis", 0) > 0)
    if node.op_type == "Gemm":
        return not given.get("transA", 0)
    if node.op_type == "Transpose":
        return bool(given.get("perm", (1,))[0] == 0)
    if node.op_type in ("Softmax", "Flatten"):
        return given.get("axis", -1 if node.op_type == "Softmax" else 1) in (-1, 1)
    return True
