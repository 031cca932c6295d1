"""The networks in plain NumPy and float64: an independent reference for the parity proof.

It computes logits and probabilities from a table of weights and the description of an architecture, by the equations in
``convolution``, and shares nothing with torch or onnxruntime.

Shapes: B batch, C channels, L length, K classes, I units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from models.networks.convolution import Array, convolve_1d, linear, relu, softmax

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from models.networks.architectures import Architecture

Weights: TypeAlias = "Mapping[str, NDArray[Any]]"

_STRIDE: Final = 2  # of all three convolution layers, as the lecture's table has it


def logits(architecture: Architecture, weights: Weights, x_BL: NDArray[Any]) -> Array:
    """The logits of a network: (B, 40) -> (B, 10) float64, for any dtype of the weights and of the input.

    ``weights`` has the names and shapes of the torch module's ``state_dict``. ValueError if a weight is missing,
    unexpected, or of the wrong shape.
    """
    layers = _layers(architecture)
    expected = {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    if set(weights) != expected:
        raise ValueError(
            f"weights of {architecture.name} must be {', '.join(sorted(expected))}, got {', '.join(sorted(weights))}"
        )
    *hidden, last = layers
    if architecture.kind == "conv":
        h_BI = _convolutions(hidden, weights, x_BL)
    else:
        h_BI = x_BL.astype(np.float64)
        for layer in hidden:
            h_BI = linear(h_BI, weights[f"{layer}.weight"], weights[f"{layer}.bias"], activation=relu)
    return linear(h_BI, weights[f"{last}.weight"], weights[f"{last}.bias"])


def probabilities(architecture: Architecture, weights: Weights, x_BL: NDArray[Any]) -> Array:
    """The softmax of `logits`: (B, 40) -> (B, 10) float64, each row summing to 1."""
    return softmax(logits(architecture, weights, x_BL))


def _layers(architecture: Architecture) -> list[str]:
    """The names of the layers in order, the last one linear."""
    if architecture.widths is None:
        return ["conv1", "conv2", "conv3", "linear"]
    return [*(f"hidden{i}" for i in range(1, len(architecture.widths) - 1)), "output"]


def _convolutions(layers: list[str], weights: Weights, x_BL: NDArray[Any]) -> Array:
    h_BCL: Array = x_BL.astype(np.float64)[:, np.newaxis, :]
    for layer in layers:
        weight, bias = weights[f"{layer}.weight"], weights[f"{layer}.bias"]
        h_BCL = convolve_1d(h_BCL, weight, bias, stride=_STRIDE, activation=relu)
    batch, channels, length = h_BCL.shape
    return h_BCL.reshape(batch, channels * length)
