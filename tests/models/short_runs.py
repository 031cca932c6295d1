"""Runs that take no time, and a way to stop them in the middle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.training.recipes import recipe

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.training.recipes import TrainingRecipe

SHORT = {"steps": 120, "evaluate_every": 50}
"""Three epochs of 4,000 examples, evaluations and the end not on the same steps."""


def early(**overrides: object) -> TrainingRecipe:
    """A run on few examples that overfits soon."""
    fields = {"steps": 3_000, "batch_size": 50, "learning_rate": 0.1, "validation": 80, "evaluate_every": 20}
    return recipe("lecture", **{**fields, **overrides})


def stop_at(step: int) -> Callable[[], bool]:
    """A ``stop`` that says yes when it is asked before that step (0 is the first)."""
    asked = iter(range(step + 1))
    return lambda: next(asked) == step
