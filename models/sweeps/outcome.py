"""The outcome of a trial: a result with its curves, or a failure. Plain values that are sent between machines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from models.sweeps.trial import Trial
from models.training.history import History

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.training.backend import EngineName

FORMAT: Final = 1


@dataclass(frozen=True)
class Score:
    """Accuracy and loss of a network on a split."""

    accuracy: float
    """Share of right answers, 0 to 1."""
    loss: float
    """Cross-entropy in nats."""


@dataclass(frozen=True)
class TrialResult:
    """The result of a trial that was done."""

    trial: Trial
    steps: int
    """The step that was scored: the last, or that of the lowest validation loss if the recipe stops early."""
    scores: Mapping[str, Score]
    """Scores by split: train, test, and validation if examples were held out."""
    history: History
    weights_sha256: str
    engine: EngineName
    """Training backend that took the steps."""
    duration_s: float
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Code, libraries and kind of machine."""

    def to_dict(self) -> dict[str, Any]:
        """The result as plain values for JSON; ``from_dict`` reads them back."""
        return {
            "format": FORMAT,
            "trial": self.trial.to_dict(),
            "steps": self.steps,
            "scores": {split: asdict(score) for split, score in self.scores.items()},
            "weights_sha256": self.weights_sha256,
            "engine": self.engine,
            "duration_s": self.duration_s,
            "provenance": dict(self.provenance),
            "history": json.loads(self.history.to_json()),
        }

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> TrialResult:
        """The result that ``to_dict`` described.

        KeyError, TypeError, ValueError, InvalidRecipe or ArtifactError for anything else.
        """
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']}, this version reads {FORMAT}")
        scores = {split: Score(**score) for split, score in values["scores"].items()}
        return TrialResult(
            trial=Trial.from_dict(values["trial"]),
            steps=values["steps"],
            scores=scores,
            history=History.from_json(json.dumps(values["history"])),
            weights_sha256=values["weights_sha256"],
            engine=values["engine"],
            duration_s=values["duration_s"],
            provenance=values["provenance"],
        )


@dataclass(frozen=True)
class TrialFailure:
    """A trial that failed."""

    trial: Trial
    error: str
    """Class name of the exception, or ``ProcessDied``."""
    message: str
    traceback: str | None = None
    """Traceback of an unexpected error; None for an expected one."""

    def to_dict(self) -> dict[str, Any]:
        """The failure as plain values for JSON."""
        return {"format": FORMAT, **asdict(self), "trial": self.trial.to_dict()}


Outcome: TypeAlias = TrialResult | TrialFailure
