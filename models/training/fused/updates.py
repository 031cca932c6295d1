"""Optimisers and the average of weights: the formulas of `models.training.torch.optimisers`, compiled.

Every array is (Q,) float32: weights with their padding, which stays zero.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from models.training.fused.compiled import inlined
from models.training.torch.optimisers import BETA_1, BETA_2, EPSILON

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float32]


@inlined
def sgd(
    weights: Floats, gradient: Floats, velocity: Floats, momentum: float, weight_decay: float, learning_rate: float
) -> None:
    """Stochastic gradient descent with momentum and an L2 penalty; ``velocity`` does not change without momentum."""
    rate, decay, kept = np.float32(learning_rate), np.float32(weight_decay), np.float32(momentum)
    if momentum:
        for i in range(len(weights)):
            velocity[i] = velocity[i] * kept + (gradient[i] + decay * weights[i])
            weights[i] -= rate * velocity[i]
    else:
        for i in range(len(weights)):
            weights[i] -= rate * (gradient[i] + decay * weights[i])


@inlined
def adamw(
    weights: Floats,
    gradient: Floats,
    mean: Floats,
    square: Floats,
    weight_decay: float,
    learning_rate: float,
    step: int,
) -> None:
    """Adam with decoupled weight decay; ``step`` is 0 at the first update."""
    kept = np.float32(1 - learning_rate * weight_decay)
    rate = np.float32(learning_rate / (1 - BETA_1 ** (step + 1)))
    root = np.float32(np.sqrt(1 - BETA_2 ** (step + 1)))
    new, old_square, new_square = np.float32(1 - BETA_1), np.float32(BETA_2), np.float32(1 - BETA_2)
    epsilon = np.float32(EPSILON)
    for i in range(len(weights)):
        mean[i] += new * (gradient[i] - mean[i])
        square[i] = square[i] * old_square + new_square * gradient[i] * gradient[i]
        weights[i] = weights[i] * kept - rate * (mean[i] / (np.sqrt(square[i]) / root + epsilon))


@inlined
def take_in(average: Floats, weights: Floats, decay: float, step: int) -> None:
    """Move the average towards the weights after the update at ``step`` (0 is the first)."""
    new = np.float32(1 - min(decay, (1 + step) / (10 + step)))
    for i in range(len(weights)):
        average[i] += new * (weights[i] - average[i])
