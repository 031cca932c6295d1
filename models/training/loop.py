"""Training: a recipe and a dataset become a network.

Same recipe, same data, same engine, same machine: same weights, bit for bit, whether or not the run was interrupted and
resumed on the way. All examples are in memory; each epoch is gathered once (`batches`), and the engine takes the steps,
several in one call if it can (`backend`). Training uses one thread: these networks are too small for more.

Shapes: S steps, P weights.
"""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models.data.batches import Epochs
from models.data.dataset import split
from models.errors import CheckpointError, TrainingDiverged, TrainingInterrupted
from models.networks.modules import build, weights_sha256
from models.training import checkpoint as checkpoints
from models.training.backend import ENGINES, chosen, engine_for
from models.training.checkpoint import Checkpoint
from models.training.evaluation import evaluate
from models.training.events import CheckpointSaved, Evaluated, EventSink, Finished, Progress, Started, ignore, stage
from models.training.threads import one_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import nn

    from models.data.dataset import Dataset
    from models.training.backend import Engine, EngineChoice, EngineName
    from models.training.recipes import TrainingRecipe

VALIDATION_SEED: Final = 0
"""Seed of the choice of held-out examples, the same for all seeds of a recipe, so that runs can be compared."""
REPORT_EVERY_S: Final = 0.1
CHECKPOINT_EVERY: Final = 5_000
"""Steps between two checkpoints, unless the caller chooses."""


@dataclass(frozen=True)
class TrainedNetwork:
    """The result of a run."""

    network: nn.Module
    """The network in eval mode, with the averaged weights if the recipe averages, the best ones if it stops early."""
    recipe: TrainingRecipe
    steps: int
    """The step that the weights are of: ``recipe.steps``, or that of the lowest validation loss."""
    weights_sha256: str
    history: tuple[Evaluated, ...]
    """Every evaluation in order, including those before a resumption."""
    duration_s: float
    """Seconds that this process's part of the run took."""
    engine: EngineName
    """The engine that took the steps."""


def train(
    recipe: TrainingRecipe,
    data: Dataset,
    *,
    engine: EngineChoice = "auto",
    on_event: EventSink = ignore,
    checkpoint_dir: Path | None = None,
    resume: bool = False,
    checkpoint_every: int = CHECKPOINT_EVERY,
    curve_steps: Iterable[int] = (),
    stop: Callable[[], bool] | None = None,
) -> TrainedNetwork:
    """Train the recipe's network on ``data.train``; ``data.test`` is evaluated and reported, and decides nothing.

    Every split is also evaluated after each of ``curve_steps`` (see ``history``); this decides nothing either.

    ``engine`` is the training backend; ``auto`` resumes with the one that made the checkpoint.

    With a ``checkpoint_dir`` the state is saved there every ``checkpoint_every`` steps (0: only when stopped) and at
    the end; ``resume`` continues from it. ``stop`` is called before each step or, by a fast engine, every few
    milliseconds; ``interruption.interruptible`` makes such a function.

    Raises InvalidRecipe if the recipe does not fit the data, EngineUnavailable if ``engine`` cannot train it here,
    CheckpointError if there is nothing to resume, it belongs to another run or engine, or none can be written (noticed
    before the first step), TrainingInterrupted if ``stop`` returned True, TrainingDiverged if the loss is no
    longer finite, and ValueError for ``resume`` without a directory or a negative ``checkpoint_every``.
    """
    if checkpoint_every < 0:
        raise ValueError(f"checkpoint_every must be at least 0, got {checkpoint_every}")
    if resume and checkpoint_dir is None:
        raise ValueError("resume needs a checkpoint_dir")
    started_s = time.perf_counter()
    with one_thread():
        checkpoint = checkpoints.load(checkpoint_dir) if resume and checkpoint_dir is not None else None
        name = chosen(engine, recipe) if checkpoint is None else _engine_of(checkpoint, engine, recipe)
        run = _Run(recipe, data, name, curve_steps)
        if checkpoint is not None:
            run.restore(checkpoint)
        if checkpoint_dir is not None:
            checkpoints.check_writable(checkpoint_dir)  # now, not after work that would be lost
        with stage("prepare", on_event) as detail:
            run.engine.prepare()
            detail.update(engine=run.engine.name)
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
            run.advance(checkpoint_every)
            meter.look(run.step, run.engine)
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
        return TrainedNetwork(network, recipe, steps, sha256, tuple(run.history), duration_s, run.engine.name)


def _engine_of(checkpoint: Checkpoint, choice: EngineChoice, recipe: TrainingRecipe) -> EngineName:
    """The engine that resumes from ``checkpoint``: the one that made it. CheckpointError if another was asked for."""
    if choice == "auto" and checkpoint.engine in ENGINES:
        choice = checkpoint.engine
    engine = chosen(choice, recipe)
    if engine != checkpoint.engine:
        raise CheckpointError(f"the checkpoint was made by the engine {checkpoint.engine}, this run uses {engine}")
    return engine


class _Run:
    """The state of a training run."""

    def __init__(self, recipe: TrainingRecipe, data: Dataset, engine: EngineName, curve_steps: Iterable[int]) -> None:
        recipe.check_fits(len(data.train))
        train, validation = split(data.train, recipe.validation, VALIDATION_SEED)
        self._recipe, self._curve_steps = recipe, frozenset(curve_steps)
        self._data_sha256 = dict(data.sha256)
        self._splits = {"train": train, "validation": validation, "test": data.test}

        self._network = build(recipe.network, seed=recipe.seed, init=recipe.init).eval()
        self.engine: Engine = engine_for(engine, recipe, self._network)
        self._epochs = Epochs(train, recipe, self.engine.distort)

        self.step = 0
        self.history: list[Evaluated] = []
        self._best = _Best(math.inf, 0, 0)
        self._best_weights = self.engine.average()

    @property
    def is_done(self) -> bool:
        patience = self._recipe.early_stopping_patience
        return self.step >= self._recipe.steps or 0 < patience <= self._best.evaluations_since

    @property
    def is_evaluation_due(self) -> bool:
        return self._is_choice_due or self.step in self._curve_steps

    @property
    def _is_choice_due(self) -> bool:
        """Whether the recipe itself asks for an evaluation now; those for a curve must not affect early stopping."""
        every = self._recipe.evaluate_every
        return self.step == self._recipe.steps or (every > 0 and self.step % every == 0)

    def advance(self, checkpoint_every: int) -> None:
        """Take the steps of one call of the engine, ending before anything that must happen between two steps."""
        count = min(self.engine.steps_at_once, self._recipe.steps - self.step, self._epochs.steps_left(self.step))
        for every in (self._recipe.evaluate_every, checkpoint_every):
            if every:
                count = min(count, every - self.step % every)
        count = min([count, *(step - self.step for step in self._curve_steps if step > self.step)])
        learning_rate_S = np.array([self._recipe.learning_rate_at(self.step + i) for i in range(count)])
        self.engine.advance(self._epochs.batches(self.step, count), self.step, learning_rate_S)
        self.step += count
        # Weights that are not finite never recover, so looking once an epoch is enough.
        if self.step == self._recipe.steps or self._epochs.is_first_of_epoch(self.step):
            self._check_finite()

    def _check_finite(self) -> None:
        if not self.engine.is_finite():
            raise TrainingDiverged(self.step, self._recipe.learning_rate_at(self.step - 1))

    def evaluate(self) -> list[Evaluated]:
        """Evaluate the averaged weights on every split; only the validation loss is used for early stopping."""
        self._check_finite()
        average = self.engine.average()
        self.engine.store(average, self._network)
        evaluations = []
        for name, examples in self._splits.items():
            if len(examples):
                result = evaluate(self._network, examples)
                evaluations.append(Evaluated(self.step, name, result.loss, result.accuracy))  # type: ignore[arg-type]  # the keys of _splits are the three literals
                if name == "validation" and self._is_choice_due:
                    self._choose(result.loss, average)
        self.history += evaluations
        return evaluations

    def _choose(self, validation_loss: float, average: NDArray[np.float32]) -> None:
        if validation_loss < self._best.loss:
            self._best = _Best(validation_loss, self.step, 0)
            self._best_weights = average
        else:
            self._best = _Best(self._best.loss, self._best.step, self._best.evaluations_since + 1)

    def result(self) -> tuple[nn.Module, int]:
        """The trained network, and the step that its weights are from."""
        if self._recipe.early_stopping_patience:
            weights, step = self._best_weights, self._best.step
        else:
            weights, step = self.engine.average(), self.step
        self.engine.store(weights, self._network)
        return self._network, step

    # ---- checkpoints

    def snapshot(self) -> Checkpoint:
        best = {**asdict(self._best), "loss": self._best.loss if math.isfinite(self._best.loss) else None}
        return Checkpoint(
            self.step,
            self._recipe.to_dict(),
            self._data_sha256,
            {**self.engine.state(), "best": self._best_weights},
            {"best": best, "history": [asdict(evaluated) for evaluated in self.history]},
            self.engine.name,
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Restore a snapshot. CheckpointError if it is of another recipe, other data, or does not fit."""
        checkpoints.check_belongs(checkpoint, self._recipe.to_dict(), self._data_sha256)
        if _shapes(checkpoint.arrays) != _shapes(self.snapshot().arrays):
            raise CheckpointError("the checkpoint's arrays do not fit this recipe's network and optimiser")
        self.engine.restore(checkpoint.arrays)
        self._best_weights = checkpoint.arrays["best"]
        self.step = checkpoint.step
        self._best = _Best.of(checkpoint.progress["best"])
        self.history = [Evaluated(**values) for values in checkpoint.progress["history"]]


def _shapes(arrays: Mapping[str, NDArray[Any]]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in arrays.items()}


@dataclass(frozen=True)
class _Best:
    """The lowest validation loss so far, for early stopping."""

    loss: float
    step: int
    evaluations_since: int

    @staticmethod
    def of(values: Mapping[str, Any]) -> _Best:
        loss = math.inf if values["loss"] is None else values["loss"]
        return _Best(loss, values["step"], values["evaluations_since"])


class _Meter:
    """Loss, accuracy and speed of the steps since the last report, reported at most ten times a second."""

    def __init__(self, total_steps: int, start_step: int, on_event: EventSink) -> None:
        self._total_steps, self._start_step, self._on_event = total_steps, start_step, on_event
        self._started_s = self._reported_s = time.perf_counter()

    def look(self, step: int, engine: Engine) -> None:
        now_s = time.perf_counter()
        if now_s - self._reported_s >= REPORT_EVERY_S or step == self._total_steps:
            self._report(step, *engine.scores(), now_s)

    def _report(self, step: int, loss: float, accuracy: float, now_s: float) -> None:
        steps_per_s = (step - self._start_step) / max(now_s - self._started_s, 1e-9)
        remaining_s = (self._total_steps - step) / steps_per_s
        self._on_event(Progress(step, self._total_steps, loss, accuracy, steps_per_s, remaining_s))
        self._reported_s = now_s
