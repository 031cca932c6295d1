"""Training: a recipe and a dataset become a network.

Same recipe, same data, same machine: same weights, bit for bit, whether or not the run was interrupted and resumed on
the way. All examples are in memory; each epoch is shuffled, augmented and gathered once, and a step takes its slice. An
epoch's remainder that does not fill a batch is left out. One thread: these nets are too small to share.

Shapes: B batch, S steps of an epoch, N = S B examples of it, L = 40 samples, K = 10 classes, P weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from models import checkpoint as checkpoints
from models.checkpoint import Checkpoint
from models.dataset import CLASSES, Dataset, Examples, split
from models.errors import CheckpointError, InvalidRecipe, TrainingDiverged, TrainingInterrupted
from models.evaluation import evaluate
from models.events import CheckpointSaved, Evaluated, EventSink, Finished, Progress, Started, ignore
from models.gradients import gradients_of
from models.networks import build, weights_sha256
from models.optimisers import WeightAverage, optimiser_for
from models.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from collections.abc import Set as AbstractSet
    from pathlib import Path

    from torch import Tensor, nn

    from models.recipes import TrainingRecipe

VALIDATION_SEED: Final = 0
"""Which examples are held out: the same ones whatever the recipe's seed, so that runs can be compared."""
REPORT_EVERY_S: Final = 0.1


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of a run."""

    network: nn.Module
    """In eval mode, with the averaged weights if the recipe averages, the best ones if it stops early."""
    recipe: TrainingRecipe
    steps: int
    """The step that the weights are of: ``recipe.steps``, or that of the lowest validation loss."""
    weights_sha256: str
    history: tuple[Evaluated, ...]
    """Every evaluation, in order, those before a resumption included."""
    duration_s: float
    """Of this process's part of the run."""


def train(
    recipe: TrainingRecipe,
    data: Dataset,
    *,
    on_event: EventSink = ignore,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    checkpoint_every: int = 5_000,
    curve_steps: Iterable[int] = (),
    stop: Callable[[], bool] | None = None,
) -> TrainedNetwork:
    """Trains the recipe's network on ``data.train``; ``data.test`` is evaluated and reported, and decides nothing.

    After ``curve_steps`` (see ``history``) every split is evaluated too, to be looked at; this decides nothing either.

    With a ``checkpoint_dir`` the state is kept there every ``checkpoint_every`` steps (0: only when stopped) and at the
    end; ``resume`` goes on from it. ``stop`` is asked before each step, see ``interruption.interruptible``.

    Raises InvalidRecipe if the recipe does not fit the data, CheckpointError if there is nothing to resume, it belongs
    to another run or none can be written (noticed before the first step), TrainingInterrupted when ``stop`` said so,
    TrainingDiverged when the loss is no longer finite, and ValueError for ``resume`` without a directory or a negative
    ``checkpoint_every``.
    """
    if checkpoint_every < 0:
        raise ValueError(f"checkpoint_every must be at least 0, got {checkpoint_every}")
    if resume and checkpoint_dir is None:
        raise ValueError("resume needs a checkpoint_dir")
    started_s = time.perf_counter()
    with one_thread():
        run = _Run(recipe, data, frozenset(curve_steps))
        if resume and checkpoint_dir is not None:
            run.restore(checkpoints.load(checkpoint_dir))
        if checkpoint_dir is not None:
            checkpoints.check_writable(checkpoint_dir)  # now, and not when there is something to lose
        on_event(Started(recipe.steps, run.step, recipe.to_dict()))
        meter = _Meter(recipe.steps, run.step, on_event)

        def save_checkpoint() -> Path | None:
            if checkpoint_dir is None:
                return None
            path = checkpoints.save(run.snapshot(), checkpoint_dir)
            on_event(CheckpointSaved(run.step, path))
            return path

        saved_step = run.step if resume else -1
        while not run.is_done:
            if stop is not None and stop():
                raise TrainingInterrupted(run.step, save_checkpoint())
            log_p_BK, onehot_BK = run.advance()
            meter.count(run.step, log_p_BK, onehot_BK)
            if run.is_evaluation_due:
                for evaluated in run.evaluate():
                    on_event(evaluated)
            if checkpoint_every and run.step % checkpoint_every == 0:
                save_checkpoint()
                saved_step = run.step
        if saved_step != run.step:
            save_checkpoint()

        network, steps = run.result()
        sha256, duration_s = weights_sha256(network), time.perf_counter() - started_s
        on_event(Finished(run.step, duration_s, sha256))
        return TrainedNetwork(network, recipe, steps, sha256, tuple(run.history), duration_s)


class _Run:
    """The state of a run, and what one step does to it."""

    def __init__(self, recipe: TrainingRecipe, data: Dataset, curve_steps: AbstractSet[int]) -> None:
        if recipe.validation >= len(data.train):
            raise InvalidRecipe("validation", recipe.validation, f"must be below {len(data.train):,}, all examples")
        train, validation = split(data.train, recipe.validation, VALIDATION_SEED)
        if recipe.batch_size > len(train):
            bound = f"must be at most {len(train):,}, the examples to train on"
            raise InvalidRecipe("batch_size", recipe.batch_size, bound)
        self._recipe, self._curve_steps = recipe, curve_steps
        self._data_sha256 = dict(data.sha256)
        self._splits = {"train": train, "validation": validation, "test": data.test}
        self._epochs = _Epochs(train, recipe)

        self._network = build(recipe.network, seed=recipe.seed, init=recipe.init).eval()
        self._gradients = gradients_of(self._network)
        self._optimiser = optimiser_for(recipe, self._gradients.weights)
        self._average = WeightAverage(self._gradients.weights, recipe.ema)

        self.step = 0
        self.history: list[Evaluated] = []
        self._best = _Best(math.inf, 0, 0)
        self._best_weights = self._gradients.weights.clone()

    @property
    def is_done(self) -> bool:
        patience = self._recipe.early_stopping_patience
        return self.step >= self._recipe.steps or 0 < patience <= self._best.evaluations_since

    @property
    def is_evaluation_due(self) -> bool:
        return self._is_choice_due or self.step in self._curve_steps

    @property
    def _is_choice_due(self) -> bool:
        """Whether the recipe itself asks for an evaluation now; those for a curve must not change when it stops."""
        every = self._recipe.evaluate_every
        return self.step == self._recipe.steps or (every > 0 and self.step % every == 0)

    def advance(self) -> tuple[Tensor, Tensor]:
        """One update; returns log-probabilities and true classes of its batch, both (B, K)."""
        with torch.inference_mode():
            x_BL, onehot_BK = self._epochs.batch(self.step)
            log_p_BK = self._gradients.step(x_BL, onehot_BK)
            learning_rate = self._recipe.learning_rate_at(self.step)
            self._optimiser.update(self._gradients.weights, self._gradients.gradient, self.step, learning_rate)
            self._average.update(self._gradients.weights, self.step)
            self.step += 1
            # Weights that are not finite never recover, so looking once an epoch is enough.
            at_end = self.step == self._recipe.steps or self._epochs.is_last_of_epoch(self.step - 1)
            if at_end and not bool(self._gradients.weights.isfinite().all()):
                raise TrainingDiverged(self.step, learning_rate)
            return log_p_BK, onehot_BK

    def evaluate(self) -> list[Evaluated]:
        """Evaluates the averaged weights on every split; only the validation loss is remembered for a choice."""
        if not bool(self._gradients.weights.isfinite().all()):
            raise TrainingDiverged(self.step, self._recipe.learning_rate_at(self.step - 1))
        self._gradients.store(self._average.weights, self._network)
        evaluations = []
        for name, examples in self._splits.items():
            if len(examples):
                result = evaluate(self._network, examples)
                evaluations.append(Evaluated(self.step, name, result.loss, result.accuracy))  # type: ignore[arg-type]  # the keys of _splits are the three literals
                if name == "validation" and self._is_choice_due:
                    self._choose(result.loss)
        self.history += evaluations
        return evaluations

    def _choose(self, validation_loss: float) -> None:
        if validation_loss < self._best.loss:
            self._best = _Best(validation_loss, self.step, 0)
            self._best_weights.copy_(self._average.weights)
        else:
            self._best = _Best(self._best.loss, self._best.step, self._best.evaluations_since + 1)

    def result(self) -> tuple[nn.Module, int]:
        """The trained network, and the step that its weights are of."""
        if self._recipe.early_stopping_patience:
            weights, step = self._best_weights, self._best.step
        else:
            weights, step = self._average.weights, self.step
        self._gradients.store(weights, self._network)
        return self._network, step

    # ---- checkpoints

    def _tensors(self) -> dict[str, Tensor]:
        return {
            "weights": self._gradients.weights,
            "average": self._average.weights,
            "best": self._best_weights,
            **{f"optimiser_{name}": tensor for name, tensor in self._optimiser.state().items()},
        }

    def snapshot(self) -> Checkpoint:
        best = {**asdict(self._best), "loss": self._best.loss if math.isfinite(self._best.loss) else None}
        return Checkpoint(
            self.step,
            self._recipe.to_dict(),
            self._data_sha256,
            {name: tensor.numpy().copy() for name, tensor in self._tensors().items()},
            {"best": best, "history": [asdict(evaluated) for evaluated in self.history]},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Puts a snapshot back. CheckpointError if it is of another recipe, other data, or does not fit."""
        checkpoints.check_belongs(checkpoint, self._recipe.to_dict(), self._data_sha256)
        tensors = self._tensors()
        if {name: array.shape for name, array in checkpoint.arrays.items()} != {
            name: tuple(tensor.shape) for name, tensor in tensors.items()
        }:
            raise CheckpointError("the checkpoint's arrays do not fit this recipe's network and optimiser")
        for name, tensor in tensors.items():
            tensor.copy_(torch.from_numpy(checkpoint.arrays[name]))
        self.step = checkpoint.step
        self._best = _Best.of(checkpoint.progress["best"])
        self.history = [Evaluated(**values) for values in checkpoint.progress["history"]]


@dataclass(frozen=True)
class _Best:
    """Early stopping: the lowest validation loss so far."""

    loss: float
    step: int
    evaluations_since: int

    @staticmethod
    def of(values: Mapping[str, Any]) -> _Best:
        loss = math.inf if values["loss"] is None else values["loss"]
        return _Best(loss, values["step"], values["evaluations_since"])


class _Epochs:
    """The batch of any step, as a function of the recipe's seed and the step: nothing to remember but the step."""

    def __init__(self, train: Examples, recipe: TrainingRecipe) -> None:
        self._train = train
        self._onehot_NK = np.eye(CLASSES, dtype=np.float32)[train.y_B]
        self._seed, self._batch_size, self._augmentation = recipe.seed, recipe.batch_size, recipe.augmentation
        self._steps_per_epoch = len(train) // recipe.batch_size
        self._epoch = -1
        self._batches: list[tuple[Tensor, Tensor]] = []

    def is_last_of_epoch(self, step: int) -> bool:
        return (step + 1) % self._steps_per_epoch == 0

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Signals (B, 40) and one-hot classes (B, K) of ``step``; 0 is the first."""
        epoch, position = divmod(step, self._steps_per_epoch)
        if epoch != self._epoch:
            self._gather(epoch)
        return self._batches[position]

    def _gather(self, epoch: int) -> None:
        random = np.random.default_rng([self._seed, epoch])
        order_N = random.permutation(len(self._train))[: self._steps_per_epoch * self._batch_size]
        x_NL = self._train.x_BL[order_N]
        if self._augmentation is not None:
            x_NL = self._augmentation.apply(x_NL, random)
        x_SBL = torch.from_numpy(x_NL).view(self._steps_per_epoch, self._batch_size, -1)
        onehot_SBK = torch.from_numpy(self._onehot_NK[order_N]).view(self._steps_per_epoch, self._batch_size, -1)
        self._epoch = epoch
        self._batches = list(zip(x_SBL.unbind(), onehot_SBK.unbind(), strict=True))


class _Meter:
    """Loss, accuracy and speed of the steps since the last report, reported at most ten times a second."""

    def __init__(self, total_steps: int, start_step: int, on_event: EventSink) -> None:
        self._total_steps, self._start_step, self._on_event = total_steps, start_step, on_event
        self._started_s = self._reported_s = time.perf_counter()
        self._answers: list[tuple[Tensor, Tensor]] = []

    def count(self, step: int, log_p_BK: Tensor, onehot_BK: Tensor) -> None:
        self._answers.append((log_p_BK, onehot_BK))
        now_s = time.perf_counter()
        if now_s - self._reported_s >= REPORT_EVERY_S or step == self._total_steps:
            self._report(step, now_s)

    def _report(self, step: int, now_s: float) -> None:
        log_p_BK, onehot_BK = (torch.cat(parts) for parts in zip(*self._answers, strict=True))
        loss = -float((log_p_BK * onehot_BK).sum(1).mean())
        accuracy = float((log_p_BK.argmax(1) == onehot_BK.argmax(1)).float().mean())
        steps_per_s = (step - self._start_step) / max(now_s - self._started_s, 1e-9)
        remaining_s = (self._total_steps - step) / steps_per_s
        self._on_event(Progress(step, self._total_steps, loss, accuracy, steps_per_s, remaining_s))
        self._answers.clear()
        self._reported_s = now_s
