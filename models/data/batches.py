"""The batches of a run: the examples of each step, their order and their distortion. NumPy only.

Shapes: S steps, B batch, N = S B examples of an epoch, L = 40 samples.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from models.data.augmentation import Distortions
    from models.data.dataset import Examples
    from models.training.recipes import TrainingRecipe


@dataclass(frozen=True)
class Batches:
    """The batches of consecutive steps."""

    x_SBL: NDArray[np.float32]
    y_SB: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.x_SBL)


class Epochs:
    """The batch of any step, as a function of the recipe's seed and the step, so the step is the only state.

    Each epoch is shuffled and gathered once, and distorted by ``distort``. A remainder that does not fill a batch is
    left out.
    """

    def __init__(
        self,
        train: Examples,
        recipe: TrainingRecipe,
        distort: Callable[[NDArray[np.float32], Distortions], NDArray[np.float32]],
    ) -> None:
        self._train, self._distort = train, distort
        self._seed, self._batch_size, self._augmentation = recipe.seed, recipe.batch_size, recipe.augmentation
        self._steps_per_epoch = len(train) // recipe.batch_size
        self._epoch = -1
        self._batches = Batches(np.empty((0, 0, 0), np.float32), np.empty((0, 0), np.int64))

    def is_first_of_epoch(self, step: int) -> bool:
        """Whether an epoch begins with ``step``."""
        return step % self._steps_per_epoch == 0

    def steps_left(self, step: int) -> int:
        """Number of steps left in the epoch of ``step``, which counts too."""
        return self._steps_per_epoch - step % self._steps_per_epoch

    def batches(self, step: int, count: int) -> Batches:
        """The batches of ``count`` steps beginning with ``step`` (0 is the first), all within one epoch."""
        epoch, position = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._batches = self._gather(epoch)
            self._epoch = epoch
        steps = slice(position, position + count)
        return Batches(self._batches.x_SBL[steps], self._batches.y_SB[steps])

    def _gather(self, epoch: int) -> Batches:
        random = np.random.default_rng([self._seed, epoch])
        order_N = random.permutation(len(self._train))[: self._steps_per_epoch * self._batch_size]
        x_NL = self._train.x_BL[order_N]
        if self._augmentation is not None:
            x_NL = self._distort(x_NL, self._augmentation.draw(len(x_NL), x_NL.shape[1], random))
        shape = (self._steps_per_epoch, self._batch_size)
        return Batches(x_NL.reshape(*shape, -1), self._train.y_B[order_N].reshape(shape))
