"""The memory layout of a network, in which every layer is the same kind of matrix product over tiles.

A layer here is always a convolution. A fully connected layer is the convolution whose one window is all of its input;
so is the linear layer behind the convolutions, with one tap for each of their positions. Signals are kept channel-last,
``[example][sample][channel]``, and weights ``[tap][channel in][channel out]``, so that a window and the weights that it
meets are read in the same order.

Rows are padded with zeros to whole tiles (``pitch``). The padding stays zero through training: its weights are zero, so
its units are zero, and so are its gradients.

Shapes: B batch, P weights in the module's order, Q numbers with the padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from models.training.fused.tile import COLUMNS, ROWS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class Layer(Protocol):
    """One layer for compiled code: its geometry, and the offsets of its numbers in the arrays."""

    taps: int
    stride: int
    length_in: int
    length_out: int
    channels_in: int
    channels_out: int
    pitch_in: int
    """Distance from one sample of the input to the next."""
    pitch_out: int
    """Distance from one position of the output to the next, and from one row of the weights to the next."""
    weight_at: int
    bias_at: int
    turned_at: int
    in_at: int
    out_at: int


LAYER: Final = np.dtype([(field, np.int64) for field in Layer.__annotations__])


@dataclass(frozen=True)
class Geometry:
    """One layer as a convolution without padding; ReLU follows it unless it is the last."""

    taps: int
    stride: int
    length_in: int
    channels_in: int
    channels_out: int

    @property
    def length_out(self) -> int:
        """Number of positions of the window."""
        return (self.length_in - self.taps) // self.stride + 1


@dataclass(frozen=True)
class Layout:
    """The offsets of a network's numbers in the arrays that compiled code works on, and the sizes of these arrays."""

    layers: NDArray[np.void]
    """One `Layer` record for each layer, in order."""
    place_P: NDArray[np.int64]
    """Index in the weights, (Q,), of each number of the module, parameter after parameter."""
    weights: int
    """Q, the size of the weights with padding."""
    turned: int
    """Size of the weights transposed for the backward pass, ``[tap][channel out][channel in]``."""
    signals: int
    """Size of the signals of one batch, input and logits included."""
    examples: int
    """Rows of the signals: the batch size, rounded up to whole tiles."""


def lay_out(geometries: Sequence[Geometry], batch_size: int) -> Layout:
    """The layout of a network whose layers are ``geometries``, for batches of ``batch_size``.

    A module's weight must be ``[channel out][channel in][tap]``, followed by its bias, as it is in torch's
    convolutions, in its linear layers (one tap), and in a linear layer behind a flattened ``(channel, sample)``.
    """
    layers = np.zeros(len(geometries), LAYER)
    examples = _up_to(batch_size, ROWS)
    # Every window has at least as many rows as a tile, so that no product needs a smaller tile at its end.
    pitch_in = max(geometries[0].channels_in, math.ceil(ROWS / geometries[0].taps))
    weights = turned = 0
    signals = _up_to(examples * geometries[0].length_in * pitch_in, COLUMNS)
    in_at, places = 0, []
    for layer, geometry in zip(layers, geometries, strict=True):
        taps, channels_in, channels_out = geometry.taps, geometry.channels_in, geometry.channels_out
        pitch_out = _up_to(channels_out, COLUMNS)
        bias_at = weights + taps * pitch_in * pitch_out
        for field, value in {
            "taps": taps,
            "stride": geometry.stride,
            "length_in": geometry.length_in,
            "length_out": geometry.length_out,
            "channels_in": channels_in,
            "channels_out": channels_out,
            "pitch_in": pitch_in,
            "pitch_out": pitch_out,
            "weight_at": weights,
            "bias_at": bias_at,
            "turned_at": turned,
            "in_at": in_at,
            "out_at": signals,
        }.items():
            layer[field] = value

        out, into, tap = np.ogrid[:channels_out, :channels_in, :taps]
        places += [(weights + (tap * pitch_in + into) * pitch_out + out).ravel(), bias_at + np.arange(channels_out)]
        weights = bias_at + pitch_out
        turned += taps * channels_out * pitch_in
        in_at, signals = signals, signals + examples * geometry.length_out * pitch_out
        pitch_in = pitch_out
    return Layout(layers, np.concatenate(places), weights, turned, signals, examples)


def aligned_zeros(count: int) -> NDArray[np.float32]:
    """Zeros aligned to a cache line, (count,): a vector that lies across two lines costs twice."""
    buffer = np.zeros(count + COLUMNS, np.float32)
    skip = -(buffer.ctypes.data // buffer.itemsize) % COLUMNS
    return buffer[skip : skip + count]


def _up_to(count: int, multiple: int) -> int:
    return math.ceil(count / multiple) * multiple
