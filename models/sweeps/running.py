"""Run one trial, in a process of this machine or on a node of a cluster."""

from __future__ import annotations

import dataclasses
import traceback
from typing import TYPE_CHECKING, Final

from models import provenance
from models.data.dataset import canonical
from models.errors import ModelsError, TrainingInterrupted
from models.sweeps.outcome import Outcome, Score, TrialFailure, TrialResult
from models.training.events import ignore
from models.training.history import History, curve_steps
from models.training.loop import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.sweeps.trial import Trial
    from models.training.events import EventSink
    from models.training.loop import TrainedNetwork

_PARTS: Final = 20
_LOSS_DIGITS: Final = 6
"""Decimals of the losses in a result: more than a picture can show, but the files stay small."""


def run_trial(trial: Trial, *, on_event: EventSink = ignore, stop: Callable[[], bool] | None = None) -> Outcome:
    """Train in one thread, and return the outcome. Only raises TrainingInterrupted, when ``stop`` returned True."""
    try:
        trained = train(
            trial.recipe,
            canonical(),
            engine=trial.engine,
            on_event=on_event,
            curve_steps=_curve_steps(trial.recipe.steps),
            stop=stop,
        )
        return _result(trial, trained)
    except TrainingInterrupted:
        raise
    except ModelsError as error:
        return TrialFailure(trial, type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - the other trials can go on
        return TrialFailure(trial, type(error).__name__, str(error), traceback.format_exc())


def _curve_steps(steps: int) -> set[int]:
    """The steps of a curve's points: close together at the start, and at every twentieth of the run, for tables."""
    return {*curve_steps(steps), *(max(1, steps * part // _PARTS) for part in range(1, _PARTS + 1))}


def _result(trial: Trial, trained: TrainedNetwork) -> TrialResult:
    # There is always an evaluation at the step of the final weights.
    scores: dict[str, Score] = {
        event.split: Score(event.accuracy, event.loss) for event in trained.history if event.step == trained.steps
    }
    kept = _curve_steps(trial.recipe.steps) | {trained.steps}
    history = History.of(
        dataclasses.replace(event, loss=round(event.loss, _LOSS_DIGITS))
        for event in trained.history
        if event.step in kept
    )
    return TrialResult(
        trial,
        trained.steps,
        scores,
        history,
        trained.weights_sha256,
        trained.engine,
        round(trained.duration_s, 3),
        {"code": provenance.code(), "libraries": provenance.libraries(), "machine": provenance.machine()},
    )
