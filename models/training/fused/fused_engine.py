"""The engine that runs whole training steps in compiled code. See `models.training.backend`.

The code is compiled once for all networks, on the first use on a machine (some seconds), and cached (`compiled`).
`steps` is the loop, `passes` has the forward and backward pass of a batch, and `updates` changes the weights. All
matrix products are sums over a `tile`, and `layout` puts every number where such sums read it.

Shapes: S steps, P weights in the module's order, Q the same with padding.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from models.networks.modules import CLASSES, LAYER, LENGTH, ConvNet, FullyConnected, conv_lengths
from models.training.fused.distortion import distort
from models.training.fused.layout import Geometry, aligned_zeros, lay_out
from models.training.fused.steps import Network, Update, take_steps

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import nn

    from models.data.batches import Batches
    from models.training.backend import EngineName
    from models.training.recipes import TrainingRecipe

STEPS_AT_ONCE: Final = 100
"""Largest number of steps in one call: some milliseconds, so that Ctrl-C and a progress display are not delayed."""


class FusedEngine:
    """The fused backend: takes steps in compiled code; a `models.training.backend.Engine`.

    Raises TypeError for a network that is neither a ConvNet nor FullyConnected.
    """

    name: Final[EngineName] = "fused"
    steps_at_once: Final = STEPS_AT_ONCE
    distort = staticmethod(distort)

    def __init__(self, recipe: TrainingRecipe, network: nn.Module) -> None:
        layout = lay_out(geometries(network), recipe.batch_size)
        self._place_P = layout.place_P
        self._network = Network(
            layers=layout.layers,
            examples=layout.examples,
            weights=aligned_zeros(layout.weights),
            turned=aligned_zeros(layout.turned),
            signals=aligned_zeros(layout.signals),
            deltas=aligned_zeros(layout.signals),
            gradient=aligned_zeros(layout.weights),
        )
        parameters = [parameter.detach().numpy().ravel() for parameter in network.parameters()]
        self._network.weights[self._place_P] = np.concatenate(parameters)
        self._update = Update(
            adamw=recipe.optimiser == "adamw",
            momentum=float(recipe.momentum),
            weight_decay=float(recipe.weight_decay),
            ema=float(recipe.ema),
            first=aligned_zeros(layout.weights),
            second=aligned_zeros(layout.weights),
            average=self._network.weights.copy() if recipe.ema else self._network.weights,
        )
        self._batch_size = recipe.batch_size
        self._losses, self._rights, self._steps = 0.0, 0, 0

    def prepare(self) -> None:
        """Compile unless the code is cached, as `models.training.backend.Engine.prepare` describes."""
        x_SBL = np.empty((0, self._batch_size, LENGTH), np.float32)
        take_steps(self._network, self._update, x_SBL, np.empty((0, self._batch_size), np.int64), 0, np.empty(0))

    def advance(self, batches: Batches, step: int, learning_rate_S: NDArray[np.float64]) -> None:
        """Take the steps of these batches, as `models.training.backend.Engine.advance` describes."""
        losses, rights = take_steps(self._network, self._update, batches.x_SBL, batches.y_SB, step, learning_rate_S)
        self._losses += losses
        self._rights += rights
        self._steps += len(batches)

    def scores(self) -> tuple[float, float]:
        """Loss and accuracy of the last steps, as `models.training.backend.Engine.scores` describes."""
        scores = self._losses / self._steps, self._rights / (self._steps * self._batch_size)
        self._losses, self._rights, self._steps = 0.0, 0, 0
        return scores

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return bool(np.isfinite(self._network.weights).all())

    def average(self) -> NDArray[np.float32]:
        """Averaged weights, as `models.training.backend.Engine.average` describes."""
        return self._update.average[self._place_P]

    def store(self, weights_P: NDArray[np.float32], network: nn.Module) -> None:
        """Write weights into a network, as `models.training.backend.Engine.store` describes."""
        parameters = list(network.parameters())
        ends = np.cumsum([parameter.numel() for parameter in parameters])
        with torch.no_grad():
            for parameter, part in zip(parameters, np.split(weights_P, ends[:-1]), strict=True):
                parameter.copy_(torch.from_numpy(part).view_as(parameter))

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Arrays to keep in a checkpoint, as `models.training.backend.Engine.state` describes."""
        return {name: array[self._place_P] for name, array in self._arrays().items()}

    def restore(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Continue from a checkpoint, as `models.training.backend.Engine.restore` describes."""
        for name, array in self._arrays().items():
            array[self._place_P] = state[name]

    def _arrays(self) -> dict[str, NDArray[np.float32]]:
        arrays = {"weights": self._network.weights, "average": self._update.average}
        if self._update.adamw:
            return {**arrays, "optimiser_mean": self._update.first, "optimiser_square": self._update.second}
        return {**arrays, "optimiser_velocity": self._update.first} if self._update.momentum else arrays


def geometries(network: nn.Module) -> list[Geometry]:
    """The layers of a network as convolutions. TypeError for modules other than ConvNet and FullyConnected."""
    if isinstance(network, ConvNet):
        *lengths, last = conv_lengths()
        channels = network.channels
        convolutions = [
            Geometry(LAYER.kernel, LAYER.stride, length, channels if index else 1, channels)
            for index, length in enumerate(lengths)
        ]
        return [*convolutions, Geometry(last, 1, last, channels, CLASSES)]
    if isinstance(network, FullyConnected):
        return [Geometry(1, 1, 1, units_in, units_out) for units_in, units_out in pairwise(network.widths)]
    raise TypeError(f"the fused engine does not know {type(network).__name__}; use ConvNet or FullyConnected")
