"""Training backends (engines): PyTorch, or code compiled for these networks. Imports neither torch nor numba itself.

Both engines take the same steps: the same first weights, the same batches in the same order, the same optimiser. They
round differently, so their weights diverge slowly, as those of two versions of PyTorch do. ``torch`` is the reference;
``fused`` (`models.training.fused`) is many times as fast, and needs numba.

Shapes: S steps, B batch, L = 40 samples, N examples, P weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, Protocol, TypeAlias, get_args

from models.errors import EngineUnavailable
from models.networks.architectures import architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from models.data.augmentation import Distortions
    from models.data.batches import Batches
    from models.training.recipes import TrainingRecipe

EngineName: TypeAlias = Literal["fused", "torch"]
EngineChoice: TypeAlias = Literal["auto", "fused", "torch"]
ENGINES: Final[tuple[EngineChoice, ...]] = get_args(EngineChoice)
"""Values of ``--engine``; ``auto`` is ``fused`` where that is possible, else ``torch``."""


class Engine(Protocol):
    """A network in training: its weights, the state of its optimiser and the average of its weights."""

    @property
    def name(self) -> EngineName:
        """Name of the engine."""
        ...

    @property
    def steps_at_once(self) -> int:
        """How many steps one call of ``advance`` should take, so that the cost of the call is negligible."""
        ...

    def prepare(self) -> None:
        """Do work before the first step that may take seconds, such as compilation."""
        ...

    def distort(self, x_NL: NDArray[np.float32], distortions: Distortions) -> NDArray[np.float32]:
        """Distort examples with the same bits as `augmentation.distort`, as fast as the engine can."""
        ...

    def advance(self, batches: Batches, step: int, learning_rate_S: NDArray[np.float64]) -> None:
        """Take one step with each batch; ``step`` is the number of the first of them, 0 in a new run."""
        ...

    def scores(self) -> tuple[float, float]:
        """Mean cross-entropy and share of right answers on the training batches since the last call."""
        ...

    def is_finite(self) -> bool:
        """Whether all weights are finite numbers."""
        ...

    def average(self) -> NDArray[np.float32]:
        """A copy of the averaged weights, (P,), in the engine's order; the weights if the recipe does not average."""
        ...

    def store(self, weights_P: NDArray[np.float32], network: nn.Module) -> None:
        """Write weights in the engine's order into the parameters of ``network``."""
        ...

    def state(self) -> dict[str, NDArray[np.float32]]:
        """Copies of all arrays that are needed to resume."""
        ...

    def restore(self, state: Mapping[str, NDArray[np.float32]]) -> None:
        """Restore a ``state``, which has the names and shapes of this engine's arrays."""
        ...


def chosen(choice: EngineChoice, recipe: TrainingRecipe) -> EngineName:
    """The engine for a new run of ``recipe``. EngineUnavailable if ``fused`` is asked for but cannot train it.

    ValueError for a choice that is not in `ENGINES`.
    """
    if choice not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {choice!r}")
    if choice == "torch":
        return "torch"
    why_not = why_not_fused(recipe)
    if why_not is None:
        return "fused"
    if choice == "fused":
        raise EngineUnavailable(f"the engine fused cannot train this: {why_not}; the engine torch can")
    return "torch"


def why_not_fused(recipe: TrainingRecipe) -> str | None:
    """Why the fused engine cannot train ``recipe`` here; None if it can."""
    spec = architecture(recipe.network)
    if spec.kind not in ("conv", "fully_connected"):
        return f"it does not know networks of the kind {spec.kind}"
    try:
        import models.training.fused.fused_engine  # noqa: F401  (numba takes a while to import, and may be missing)
    except ImportError as error:  # numba raises it for versions of NumPy that it does not know, too
        return f"numba cannot be imported ({error})"
    return None


def engine_for(name: EngineName, recipe: TrainingRecipe, network: nn.Module) -> Engine:
    """The engine called ``name``, starting at a copy of the weights of ``network``."""
    if name == "fused":
        from models.training.fused.fused_engine import FusedEngine

        return FusedEngine(recipe, network)
    from models.training.torch.torch_engine import TorchEngine

    return TorchEngine(recipe, network)
