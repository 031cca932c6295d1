"""Convolution in plain NumPy: its arithmetic, and its equations written as the sums of the lecture.

This module is an independent reference: it shares neither code nor algorithms with torch or onnxruntime, and is written
to be read, not to be fast. The parity proof compares both of them with it. Everything is computed in the dtype of the
input, so float64 in gives a float64 reference out.

Shapes: B batch, C input channels, K output channels, L and M input and output length, H x W and P x Q input and output
height and width. Kernels are (K, C, kernel) and (K, C, kernel, kernel); biases (K,).

With kernel 3, stride 1 and padding 1 the functions below are exactly
    h[i]    = a(beta + sum over j = 1..3 of w[j] x[i + j - 2])
    h[i, j] = a(beta + sum over m, n = 1..3 of w[m, n] x[i + m - 2, j + n - 2])
with x = 0 outside of the input. Stride s takes every s-th i, dilation d takes d steps between two taps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[np.floating[Any]]
Activation: TypeAlias = Callable[[Array], Array]


# ---- arithmetic --------------------------------------------------------------------------------------------------


def _at_least(field: str, value: int, bound: int) -> None:
    if value < bound:
        raise ValueError(f"{field} must be at least {bound}, got {value}")


@dataclass(frozen=True)
class ConvLayer:
    """The geometry of one convolution layer along one axis."""

    kernel: int
    """Number of taps, at least 1."""
    stride: int = 1
    """Input positions between two neighbouring outputs, at least 1."""
    padding: int = 0
    """Zeros put in front of and behind the input, at least 0."""
    dilation: int = 1
    """Input positions between two neighbouring taps, at least 1."""

    def __post_init__(self) -> None:
        _at_least("kernel", self.kernel, 1)
        _at_least("stride", self.stride, 1)
        _at_least("padding", self.padding, 0)
        _at_least("dilation", self.dilation, 1)

    @property
    def span(self) -> int:
        """Input positions from the first tap to the last, both included: D (M - 1) + 1."""
        return self.dilation * (self.kernel - 1) + 1

    def output_length(self, length: int) -> int:
        """Length of the output for an input of ``length``; ValueError if the kernel does not fit into it."""
        _at_least("length", length, 1)
        padded = length + 2 * self.padding
        if self.span > padded:
            raise ValueError(
                f"length must be at least {self.span - 2 * self.padding} for kernel {self.kernel}, "
                f"padding {self.padding} and dilation {self.dilation}, got {length}"
            )
        return (padded - self.span) // self.stride + 1


def output_length(length: int, kernel: int, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> int:
    """How many outputs a convolution gives along one axis.

    With T inputs and a kernel of M taps: T - M + 1; with P zeros at either end T - M + 2P + 1; in general, with stride
    S and dilation D, floor((T + 2P - D (M - 1) - 1) / S) + 1. ValueError if an argument is out of bounds, or if not
    even one position of the kernel fits into the padded input.
    """
    return ConvLayer(kernel, stride, padding, dilation).output_length(length)


def receptive_field(layers: Iterable[ConvLayer]) -> int:
    """How many neighbouring inputs one unit of the last layer can see; 1 for no layers at all.

    Each layer adds (span - 1) times the product of the strides before it. Padding changes where a field lies, not how
    wide it is.
    """
    field, step = 1, 1
    for layer in layers:
        field += (layer.span - 1) * step
        step *= layer.stride
    return field


def weight_count(in_channels: int, out_channels: int, kernel: int | tuple[int, ...], *, bias: bool = True) -> int:
    """Parameters of a convolution layer: C_in * C_out * kernel size, and one bias for each output channel.

    ``kernel`` is one length for one dimension, or a length for each dimension. The length of the input does not matter:
    every position shares the same weights.
    """
    _at_least("in_channels", in_channels, 1)
    _at_least("out_channels", out_channels, 1)
    taps = 1
    for length in (kernel,) if isinstance(kernel, int) else kernel:
        _at_least("kernel", length, 1)
        taps *= length
    return in_channels * out_channels * taps + (out_channels if bias else 0)


# ---- the equations -----------------------------------------------------------------------------------------------


def identity(x: Array) -> Array:
    """Return ``x`` unchanged: no activation."""
    return x


def relu(x: Array) -> Array:
    """ReLU: max(0, x) of each element; same shape and dtype."""
    return np.maximum(x, x.dtype.type(0))


def softmax(logits_BK: Array) -> Array:
    """Probabilities along the last axis, each row summing to 1; safe for logits of any size."""
    shifted_BK: Array = logits_BK - logits_BK.max(axis=-1, keepdims=True)
    exp_BK: Array = np.exp(shifted_BK)
    probabilities_BK: Array = exp_BK / exp_BK.sum(axis=-1, keepdims=True)
    return probabilities_BK


def linear(x_BI: Array, weight_OI: Array, bias_O: Array, activation: Activation = identity) -> Array:
    """A fully connected layer: h[o] = a(beta[o] + sum over i of w[o, i] x[i]); (B, I) -> (B, O)."""
    _rank("x", x_BI, 2)
    _rank("weight", weight_OI, 2)
    if x_BI.shape[1] != weight_OI.shape[1]:
        raise ValueError(f"x must have {weight_OI.shape[1]} features, as weight has, got {x_BI.shape[1]}")
    weight_OI, bias_O = weight_OI.astype(x_BI.dtype), _bias(bias_O, weight_OI.shape[0], x_BI.dtype)
    return activation(bias_O + x_BI @ weight_OI.T)


def convolve_1d(
    x_BCL: Array,
    weight_KCT: Array,
    bias_K: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    activation: Activation = identity,
) -> Array:
    """Convolution in one dimension: (B, C, L) -> (B, K, M).

    h[k, i] = a(beta[k] + sum over channels c and taps j of w[k, c, j] x[c, S i + D j - P]). Taps count from 0
    here, so that kernel 3 with padding 1 reads x[i-1], x[i], x[i+1]. ValueError if shapes disagree.
    """
    _rank("x", x_BCL, 3)
    _rank("weight", weight_KCT, 3)
    _same_channels(x_BCL, weight_KCT)
    layer = ConvLayer(weight_KCT.shape[2], stride, padding, dilation)
    batch, channels, length = x_BCL.shape
    out_channels, out_length = weight_KCT.shape[0], layer.output_length(length)
    weight_KCT = weight_KCT.astype(x_BCL.dtype)
    bias_K = _bias(bias_K, out_channels, x_BCL.dtype)

    padded_BCL = np.pad(x_BCL, ((0, 0), (0, 0), (padding, padding)))
    h_BKM = np.empty((batch, out_channels, out_length), x_BCL.dtype)
    for k in range(out_channels):
        for i in range(out_length):
            pre_B = np.full(batch, bias_K[k])
            for c in range(channels):
                for j in range(layer.kernel):
                    pre_B += weight_KCT[k, c, j] * padded_BCL[:, c, stride * i + dilation * j]
            h_BKM[:, k, i] = pre_B
    return activation(h_BKM)


def convolve_2d(
    x_BCHW: Array,
    weight_KCMN: Array,
    bias_K: Array | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    activation: Activation = identity,
) -> Array:
    """Convolution in two dimensions: (B, C, H, W) -> (B, K, P, Q).

    h[k, i, j] = a(beta[k] + sum over c, m, n of w[k, c, m, n] x[c, S i + D m - P, S j + D n - P]). The kernel may be of
    any height and width; stride, padding and dilation are the same along both. ValueError if shapes disagree.
    """
    _rank("x", x_BCHW, 4)
    _rank("weight", weight_KCMN, 4)
    _same_channels(x_BCHW, weight_KCMN)
    rows = ConvLayer(weight_KCMN.shape[2], stride, padding, dilation)
    columns = ConvLayer(weight_KCMN.shape[3], stride, padding, dilation)
    batch, channels, height, width = x_BCHW.shape
    out_channels, out_height, out_width = (
        weight_KCMN.shape[0],
        rows.output_length(height),
        columns.output_length(width),
    )
    weight_KCMN = weight_KCMN.astype(x_BCHW.dtype)
    bias_K = _bias(bias_K, out_channels, x_BCHW.dtype)

    padded_BCHW = np.pad(x_BCHW, ((0, 0), (0, 0), (padding, padding), (padding, padding)))
    h_BKPQ = np.empty((batch, out_channels, out_height, out_width), x_BCHW.dtype)
    for k in range(out_channels):
        for i in range(out_height):
            for j in range(out_width):
                pre_B = np.full(batch, bias_K[k])
                for c in range(channels):
                    for m in range(rows.kernel):
                        for n in range(columns.kernel):
                            x_B = padded_BCHW[:, c, stride * i + dilation * m, stride * j + dilation * n]
                            pre_B += weight_KCMN[k, c, m, n] * x_B
                h_BKPQ[:, k, i, j] = pre_B
    return activation(h_BKPQ)


def toeplitz(
    weight_KCT: Array,
    bias_K: Array | None,
    in_length: int,
    *,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> tuple[Array, Array]:
    """A convolution layer as the matrix of a fully connected one: convolution is a special case.

    Returns (matrix, bias) of shapes (K*M, C*L) and (K*M,), in the dtype of ``weight``, for inputs and outputs flattened
    channel by channel. Row (k, i) holds the kernel of channel k, moved to position i, and zeros elsewhere: the same few
    weights in every row, which is what weight sharing means.
    """
    _rank("weight", weight_KCT, 3)
    layer = ConvLayer(weight_KCT.shape[2], stride, padding, dilation)
    out_channels, channels, kernel = weight_KCT.shape
    out_length = layer.output_length(in_length)
    matrix_KMCL = np.zeros((out_channels, out_length, channels, in_length), weight_KCT.dtype)
    for i in range(out_length):
        for j in range(kernel):
            position = stride * i + dilation * j - padding
            if 0 <= position < in_length:
                matrix_KMCL[:, i, :, position] = weight_KCT[:, :, j]
    matrix = matrix_KMCL.reshape(out_channels * out_length, channels * in_length)
    return matrix, np.repeat(_bias(bias_K, out_channels, weight_KCT.dtype), out_length)


def _rank(name: str, array: Array, rank: int) -> None:
    if array.ndim != rank:
        raise ValueError(f"{name} must have {rank} dimensions, got shape {array.shape}")


def _same_channels(x: Array, weight: Array) -> None:
    if x.shape[1] != weight.shape[1]:
        raise ValueError(f"x must have {weight.shape[1]} channels, as weight has, got {x.shape[1]}")


def _bias(bias_K: Array | None, count: int, dtype: np.dtype[Any]) -> Array:
    if bias_K is None:
        return np.zeros(count, dtype)
    if bias_K.shape != (count,):
        raise ValueError(f"bias must have shape ({count},), got {bias_K.shape}")
    return bias_K.astype(dtype)
