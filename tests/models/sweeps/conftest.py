"""Results that nobody had to train for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from models.sweeps.outcome import Score, TrialResult
from models.sweeps.trial import Trial
from models.training.history import Curve, History
from models.training.recipes import recipe

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(scope="session")
def result_of() -> Callable[..., TrialResult]:
    """A result with a given accuracy, and a curve that falls to it."""

    def make(name: str = "lecture", *, test: float, validation: float | None = None, **fields) -> TrialResult:
        held_out = {} if validation is None else {"validation": 500}
        trial = Trial(recipe(name, **held_out, **fields))
        accuracies = {"train": 1.0, "validation": validation, "test": test}
        known = {split: value for split, value in accuracies.items() if value is not None}
        steps = trial.recipe.steps
        curves = {split: Curve((steps // 2, steps), (1.0, 0.5), (value / 2, value)) for split, value in known.items()}
        scores = {split: Score(value, 0.5) for split, value in known.items()}
        return TrialResult(trial, steps, scores, History(curves), "ab" * 32, "torch", 1.5, {"machine": "Linux x86_64"})

    return make
