"""The reference engine: PyTorch's operations with hand-written gradients. See `models.training.backend`.

Shapes: S steps, B batch, L = 40 samples, K = 10 classes, P weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch

from models.data.augmentation import distort
from models.data.dataset import CLASSES
from models.training.torch.gradients import gradients_of
from models.training.torch.optimisers import WeightAverage, optimiser_for

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from models.data.batches import Batches
    from models.training.backend import EngineName
    from models.training.recipes import TrainingRecipe


class TorchEngine:
    """The reference backend: takes steps with PyTorch; a `models.training.backend.Engine`."""

    name: Final[EngineName] = "torch"
    steps_at_once: Final = 1
    distort = staticmethod(distort)

    def __init__(self, recipe: TrainingRecipe, network: nn.Module) -> None:
        self._gradients = gradients_of(network)
        self._optimiser = optimiser_for(recipe, self._gradients.weights)
        self._average = WeightAverage(self._gradients.weights, recipe.ema)
        self._onehot_KK = torch.eye(CLASSES)
        self._answers: list[tuple[Tensor, Tensor]] = []

    def prepare(self) -> None:
        """Do nothing: this engine needs no preparation."""

    def advance(self, batches: Batches, step: int, learning_rate_S: NDArray[np.float64]) -> None:
        """Take the steps of these batches, as `models.training.backend.Engine.advance` describes."""
        weights = self._gradients.weights
        with torch.inference_mode():
            x_SBL, y_SB = torch.from_numpy(batches.x_SBL), torch.from_numpy(batches.y_SB)
            for x_BL, y_B, learning_rate in zip(x_SBL, y_SB, learning_rate_S.tolist(), strict=True):
                onehot_BK = self._onehot_KK[y_B]
                log_p_BK = self._gradients.step(x_BL, onehot_BK)
                self._optimiser.update(weights, self._gradients.gradient, step, learning_rate)
                self._average.update(weights, step)
                self._answers.append((log_p_BK, onehot_BK))
                step += 1

    def scores(self) -> tuple[float, float]:
        """Loss and accuracy of the last steps, as `models.training.backend.Engine.scores` describes."""
        log_p_NK, onehot_NK = (torch.cat(parts) for parts in zip(*self._answers, strict=True))
        self._answers.clear()
        loss = -float((log_p_NK * onehot_NK).sum(1).mean())
        return loss, float((log_p_NK.argmax(1) == onehot_NK.argmax(1)).float().mean())

    def is_finite(self) -> bool:
        """Whether all weights are finite."""
        return bool(self._gradients.weights.isfinite().all())

    def average(self) -> NDArray[np.float32]:
        """Averaged weights, as `models.training.backend.Engine.average` describes."""
        return _array(self._average.weights)

    def store(self, weights_P: NDArray[np.float32], network: nn.Module) -> None:
        """Write weights into a network, as `models.training.backend.Engine.store` describes."""
        self._gradients.store(torch.from_numpy(weights_P), network)

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Arrays to keep in a checkpoint, as `models.training.backend.Engine.state` describes."""
        return {name: _array(tensor) for name, tensor in self._tensors().items()}

    def restore(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Continue from a checkpoint, as `models.training.backend.Engine.restore` describes."""
        for name, tensor in self._tensors().items():
            tensor.copy_(torch.from_numpy(state[name]))

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "weights": self._gradients.weights,
            "average": self._average.weights,
            **{f"optimiser_{name}": tensor for name, tensor in self._optimiser.state().items()},
        }


def _array(tensor: Tensor) -> NDArray[np.float32]:
    copy: NDArray[np.float32] = tensor.numpy().copy()
    return copy
