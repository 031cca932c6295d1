"""Plain SGD and AdamW on one flat vector of weights, and the average of weights over time.

The formulas are those of ``torch.optim.SGD`` and ``torch.optim.AdamW``; the tests compare them. All state is in flat
tensors with names, so that a checkpoint is a handful of arrays. Every operation is done in place.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Protocol

import torch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from models.training.recipes import TrainingRecipe

BETA_1: Final = 0.9
BETA_2: Final = 0.999
EPSILON: Final = 1e-8


class Optimiser(Protocol):
    """An optimiser, which changes weights by a gradient."""

    def update(self, weights: Tensor, gradient: Tensor, step: int, learning_rate: float) -> None:
        """Change ``weights`` in place; ``step`` is 0 at the first update. ``gradient`` may be overwritten."""
        ...

    def state(self) -> Mapping[str, Tensor]:
        """The tensors to keep in a checkpoint, and to copy into when it is loaded."""
        ...


def optimiser_for(recipe: TrainingRecipe, weights: Tensor) -> Optimiser:
    """The recipe's optimiser with fresh state for ``weights``, (P,)."""
    if recipe.optimiser == "adamw":
        return AdamW(weights, recipe.weight_decay)
    return Sgd(weights, recipe.momentum, recipe.weight_decay)


class Sgd:
    """Stochastic gradient descent, with momentum and an L2 penalty if they are not 0."""

    def __init__(self, weights: Tensor, momentum: float, weight_decay: float) -> None:
        self._momentum = momentum
        self._weight_decay = weight_decay
        self._velocity = torch.zeros_like(weights) if momentum else None

    def update(self, weights: Tensor, gradient: Tensor, step: int, learning_rate: float) -> None:  # noqa: ARG002  (the protocol's)
        """Update the weights, as ``Optimiser.update`` describes."""
        if self._weight_decay:
            gradient.add_(weights, alpha=self._weight_decay)
        if self._velocity is not None:
            gradient = self._velocity.mul_(self._momentum).add_(gradient)
        weights.add_(gradient, alpha=-learning_rate)

    def state(self) -> Mapping[str, Tensor]:
        """Arrays to keep in a checkpoint, as ``Optimiser.state`` describes."""
        return {} if self._velocity is None else {"velocity": self._velocity}


class AdamW:
    """Adam with decoupled weight decay (Loshchilov & Hutter, 2019)."""

    def __init__(self, weights: Tensor, weight_decay: float) -> None:
        self._weight_decay = weight_decay
        self._mean = torch.zeros_like(weights)
        self._square = torch.zeros_like(weights)
        self._denominator = torch.empty_like(weights)

    def update(self, weights: Tensor, gradient: Tensor, step: int, learning_rate: float) -> None:
        """Update the weights, as ``Optimiser.update`` describes."""
        if self._weight_decay:
            weights.mul_(1 - learning_rate * self._weight_decay)
        self._mean.lerp_(gradient, 1 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(gradient, gradient, value=1 - BETA_2)
        torch.sqrt(self._square, out=self._denominator)
        self._denominator.div_(math.sqrt(1 - BETA_2 ** (step + 1))).add_(EPSILON)
        weights.addcdiv_(self._mean, self._denominator, value=-learning_rate / (1 - BETA_1 ** (step + 1)))

    def state(self) -> Mapping[str, Tensor]:
        """Arrays to keep in a checkpoint, as ``Optimiser.state`` describes."""
        return {"mean": self._mean, "square": self._square}


class WeightAverage:
    """Exponential moving average of the weights; with decay 0 the weights themselves."""

    def __init__(self, weights: Tensor, decay: float) -> None:
        self._decay = decay
        self.weights = weights.clone() if decay else weights

    def update(self, weights: Tensor, step: int) -> None:
        """Include the weights after the update at ``step`` (0 is the first)."""
        if self._decay:
            self.weights.lerp_(weights, 1 - min(self._decay, (1 + step) / (10 + step)))
