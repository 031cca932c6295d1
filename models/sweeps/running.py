"""Running one trial, wherever that is: in a process of this machine or on a node of a cluster."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from models import provenance
from models.dataset import canonical
from models.errors import ModelsError, TrainingInterrupted
from models.events import ignore
from models.history import Curve, History, curve_steps
from models.sweeps.outcome import Outcome, Score, TrialFailure, TrialResult
from models.training import train

if TYPE_CHECKING:
    from collections.abc import Callable

    from models.events import EventSink
    from models.sweeps.trial import Trial
    from models.training import TrainedNetwork

_LOSS_DIGITS = 6


def run_trial(trial: Trial, *, on_event: EventSink = ignore, stop: Callable[[], bool] | None = None) -> Outcome:
    """Train, and tell what came of it; one thread. Only TrainingInterrupted is raised, when ``stop`` said so."""
    try:
        trained = train(
            trial.recipe, canonical(), on_event=on_event, curve_steps=curve_steps(trial.recipe.steps), stop=stop
        )
        return _result(trial, trained)
    except TrainingInterrupted:
        raise
    except ModelsError as error:
        return TrialFailure(trial, type(error).__name__, str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, the other trials can go on
        return TrialFailure(trial, type(error).__name__, str(error), traceback.format_exc())


def _result(trial: Trial, trained: TrainedNetwork) -> TrialResult:
    history = History.of(trained.history)
    # The evaluation of the step that the weights are of; there is always one.
    scores: dict[str, Score] = {
        event.split: Score(event.accuracy, event.loss) for event in trained.history if event.step == trained.steps
    }
    return TrialResult(
        trial,
        trained.steps,
        scores,
        History({split: _rounded(curve) for split, curve in history.curves.items()}),
        trained.weights_sha256,
        round(trained.duration_s, 3),
        {"code": provenance.code(), "libraries": provenance.libraries(), "machine": provenance.machine()},
    )


def _rounded(curve: Curve) -> Curve:
    """Digits that a picture could show: the files stay small."""
    return Curve(curve.steps_N, tuple(round(loss, _LOSS_DIGITS) for loss in curve.loss_N), curve.accuracy_N)
