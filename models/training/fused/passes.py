"""Forward and backward pass of a batch: every layer uses the same product over tiles three times.

Shapes: B batch, E examples (the batch rounded up to whole tiles), T taps, C channels in, K channels out (K classes at
the end). Offsets and strides are those of `layout`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from models.training.fused.compiled import inlined
from models.training.fused.tile import (
    COLUMNS,
    ROWS,
    add,
    multiply_add,
    positive,
    repeated,
    where_positive,
    write,
    write_total,
    zeros,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from models.training.fused.layout import Layer
    from models.training.fused.tile import Tile

    Floats: TypeAlias = NDArray[np.float32]


@inlined
def product(
    tile: Tile,
    a: Floats,
    a_at: int,
    a_row: int,
    a_outer: int,
    a_inner: int,
    b: Floats,
    b_at: int,
    b_outer: int,
    b_inner: int,
    outer: int,
    inner: int,
) -> Tile:
    """Add ``a[r, o, i] * b[o, i, :]``, summed over o and i, to ``tile[r, :]``: a matrix product with a double sum.

    ``a`` and ``b`` are views: ``a_at`` is the offset of the first number, ``a_row``, ``a_outer`` and ``a_inner`` are
    the strides in each direction.
    """
    for _ in range(outer):
        a_place, b_place = a_at, b_at
        for _ in range(inner):
            tile = multiply_add(tile, a, a_place, a_row, b, b_place)
            a_place += a_inner
            b_place += b_inner
        a_at += a_outer
        b_at += b_outer
    return tile


@inlined
def forward(layers: NDArray[np.void], weights: Floats, signals: Floats, examples: int) -> None:
    """Compute the signals of all layers from those of the first: ``relu(W * h + bias)``, the last without ReLU."""
    for index in range(len(layers)):
        at = layers[index]
        row_in, row_out = at.length_in * at.pitch_in, at.length_out * at.pitch_out
        step, tap = at.stride * at.pitch_in, at.pitch_in * at.pitch_out
        for example in range(0, examples, ROWS):
            for position in range(at.length_out):
                window = at.in_at + example * row_in + position * step
                answer = at.out_at + example * row_out + position * at.pitch_out
                for channel in range(0, at.pitch_out, COLUMNS):
                    # [examples, window] x [window, channels out]
                    tile = product(
                        repeated(weights, at.bias_at + channel),
                        signals, window, row_in, at.pitch_in, 1,
                        weights, at.weight_at + channel, tap, at.pitch_out,
                        at.taps, at.channels_in,
                    )  # fmt: skip
                    if index < len(layers) - 1:
                        tile = positive(tile)
                    write(tile, signals, answer + channel, row_out)


@inlined
def logit_gradient(
    layers: NDArray[np.void], signals: Floats, deltas: Floats, y_B: NDArray[np.int64]
) -> tuple[float, int]:
    """Write (softmax - one hot) / B as the last deltas; return mean cross-entropy and number of right answers."""
    at = layers[len(layers) - 1]
    share = np.float32(1 / len(y_B))
    loss, right = 0.0, 0
    for b in range(len(y_B)):
        row = at.out_at + b * at.pitch_out
        best = 0
        for k in range(1, at.channels_out):
            if signals[row + k] > signals[row + best]:
                best = k
        top = signals[row + best]
        total = np.float32(0)
        for k in range(at.channels_out):
            deltas[row + k] = math.exp(signals[row + k] - top)
            total += deltas[row + k]
        scale = share / total
        for k in range(at.channels_out):
            deltas[row + k] *= scale
        deltas[row + y_B[b]] -= share
        loss += math.log(total) - (signals[row + y_B[b]] - top)
        right += best == y_B[b]
    return loss / len(y_B), right


@inlined
def backward(
    layers: NDArray[np.void],
    weights: Floats,
    turned: Floats,
    signals: Floats,
    deltas: Floats,
    gradient: Floats,
    batch: int,
    examples: int,
) -> None:
    """Compute the gradient of all weights, and of all signals but the first, from that of the logits."""
    for index in range(len(layers) - 1, -1, -1):
        at = layers[index]
        weight_gradient(at, signals, deltas, gradient, batch)
        bias_gradient(at, deltas, gradient, examples)
        if index:
            turn(at, weights, turned)
            signal_gradient(at, turned, signals, deltas, examples)


@inlined
def weight_gradient(at: Layer, signals: Floats, deltas: Floats, gradient: Floats, batch: int) -> None:
    """Compute the weights' gradient: [window, examples and positions] x [examples and positions, channels out]."""
    row_in, row_out = at.length_in * at.pitch_in, at.length_out * at.pitch_out
    window = at.taps * at.pitch_in
    for start in range(0, window, ROWS):
        number = min(start, window - ROWS)  # the last tile may compute some rows a second time
        for channel in range(0, at.pitch_out, COLUMNS):
            tile = product(
                zeros(),
                signals, at.in_at + number, 1, row_in, at.stride * at.pitch_in,
                deltas, at.out_at + channel, row_out, at.pitch_out,
                batch, at.length_out,
            )  # fmt: skip
            write(tile, gradient, at.weight_at + number * at.pitch_out + channel, at.pitch_out)


@inlined
def bias_gradient(at: Layer, deltas: Floats, gradient: Floats, examples: int) -> None:
    """Compute the biases' gradient: the sum over examples and positions."""
    for channel in range(0, at.pitch_out, COLUMNS):
        tile = zeros()
        for place in range(0, examples * at.length_out, ROWS):
            tile = add(tile, deltas, at.out_at + place * at.pitch_out + channel, at.pitch_out)
        write_total(tile, gradient, at.bias_at + channel)


@inlined
def turn(at: Layer, weights: Floats, turned: Floats) -> None:
    """Transpose the weights from [tap][channel in][channel out] to [tap][channel out][channel in]."""
    for tap in range(at.taps):
        for k in range(at.channels_out):
            place = at.turned_at + (tap * at.channels_out + k) * at.pitch_in
            weight = at.weight_at + tap * at.pitch_in * at.pitch_out + k
            for c in range(at.channels_in):
                turned[place + c] = weights[weight + c * at.pitch_out]


@inlined
def signal_gradient(at: Layer, turned: Floats, signals: Floats, deltas: Floats, examples: int) -> None:
    """Compute the signals' gradient, summed over the windows that a sample is in.

    Each window gives [examples, channels out] x [channels out, channels in].
    """
    row_in, row_out = at.length_in * at.pitch_in, at.length_out * at.pitch_out
    tap_size = at.channels_out * at.pitch_in
    for example in range(0, examples, ROWS):
        for sample in range(at.length_in):
            first = max(0, (sample - at.taps + at.stride) // at.stride)
            last = min(at.length_out - 1, sample // at.stride)
            tap = sample - first * at.stride
            delta = at.out_at + example * row_out + first * at.pitch_out
            place = at.in_at + example * row_in + sample * at.pitch_in
            for channel in range(0, at.pitch_in, COLUMNS):
                tile = product(
                    zeros(),
                    deltas, delta, row_out, at.pitch_out, 1,
                    turned, at.turned_at + tap * tap_size + channel, -at.stride * tap_size, at.pitch_in,
                    last - first + 1, at.channels_out,
                )  # fmt: skip
                tile = where_positive(tile, signals, place + channel, row_in)
                write(tile, deltas, place + channel, row_in)
