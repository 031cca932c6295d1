"""The training loop: forward, backward, update and average of each batch, without Python in between."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from models.training.fused.compiled import compiled, inlined
from models.training.fused.passes import backward, forward, logit_gradient
from models.training.fused.updates import adamw, sgd, take_in

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Network(NamedTuple):
    """The arrays that a step works on; `layout.Layout` has their sizes, and the offsets in them."""

    layers: NDArray[np.void]
    examples: int
    weights: NDArray[np.float32]
    turned: NDArray[np.float32]
    signals: NDArray[np.float32]
    deltas: NDArray[np.float32]
    """Gradients of the signals."""
    gradient: NDArray[np.float32]
    """Gradient of the weights."""


class Update(NamedTuple):
    """How a gradient changes the weights: the recipe's optimiser with its state, and the average."""

    adamw: bool
    """Whether the optimiser is AdamW; if not, it is SGD."""
    momentum: float
    weight_decay: float
    ema: float
    first: NDArray[np.float32]
    """AdamW's mean or SGD's velocity."""
    second: NDArray[np.float32]
    """AdamW's mean of squares."""
    average: NDArray[np.float32]
    """Averaged weights; not changed if ``ema`` is 0."""


@compiled
def take_steps(
    network: Network,
    update: Update,
    x_SBL: NDArray[np.float32],
    y_SB: NDArray[np.int64],
    step: int,
    learning_rate_S: NDArray[np.float64],
) -> tuple[float, int]:
    """Take one step with each batch; return the sum of their mean cross-entropies and the number of right answers."""
    losses, rights = 0.0, 0
    for s in range(len(x_SBL)):
        give(network, x_SBL[s])
        forward(network.layers, network.weights, network.signals, network.examples)
        loss, right = logit_gradient(network.layers, network.signals, network.deltas, y_SB[s])
        losses += loss
        rights += right
        backward(
            network.layers,
            network.weights,
            network.turned,
            network.signals,
            network.deltas,
            network.gradient,
            x_SBL.shape[1],
            network.examples,
        )
        if update.adamw:
            adamw(
                network.weights,
                network.gradient,
                update.first,
                update.second,
                update.weight_decay,
                learning_rate_S[s],
                step + s,
            )
        else:
            sgd(
                network.weights,
                network.gradient,
                update.first,
                update.momentum,
                update.weight_decay,
                learning_rate_S[s],
            )
        if update.ema:
            take_in(update.average, network.weights, update.ema, step + s)
    return losses, rights


@inlined
def give(network: Network, x_BL: NDArray[np.float32]) -> None:
    """Copy a batch to where the first layer reads it."""
    at = network.layers[0]
    place = at.in_at
    for b in range(len(x_BL)):
        for sample in range(at.length_in):
            for channel in range(at.channels_in):
                network.signals[place + channel] = x_BL[b, sample * at.channels_in + channel]
            place += at.pitch_in
