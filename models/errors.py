"""The exceptions of this package, from data to a published model.

    ModelsError                 base class: an expected failure, with a message for the user
    ├── InvalidRecipe           a recipe field is out of bounds or unknown (field, value, bound)
    ├── DatasetError            generated data do not have the published hash
    ├── EngineUnavailable       the engine that was asked for cannot train this here
    ├── CheckpointError         a checkpoint is missing, damaged, of another run, or cannot be written
    ├── TrainingDiverged        the loss is no longer a finite number; names the step
    ├── TrainingInterrupted     Ctrl-C, SIGTERM or SIGHUP; names the checkpoint that was left
    ├── ArtifactError           a published model is incomplete, damaged or not servable
    │   └── GoldenMismatch      the goldens of a model do not replay within their tolerance
    ├── ProofFailed             a parity check failed; carries the report; nothing was published
    ├── GateNotMet              another version is better on the held-out examples; nothing was published
    ├── PublicationError        the repository cannot take the new version
    ├── InvalidSweep            an argument of a sweep is out of bounds or contradicts another (field, value, bound)
    ├── SweepUnavailable        a sweep's trials cannot run: torch, Ray or the cluster is missing
    └── TrialFileError          a results folder, or a trial's file in it, cannot be read or written

Any other exception is a bug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path


class ModelsError(Exception):
    """An expected failure whose message is meant for the user."""


class InvalidRecipe(ModelsError):
    """A recipe override that is unknown or out of bounds."""

    def __init__(self, field: str, value: object, bound: str) -> None:
        self.field = field
        self.value = value
        self.bound = bound
        super().__init__(f"recipe field {field!r}: got {value!r}, {bound}")


class DatasetError(ModelsError):
    """The generated arrays differ from the published ones."""


class EngineUnavailable(ModelsError):
    """An engine that cannot train this recipe, or not with what is installed."""


class CheckpointError(ModelsError):
    """A checkpoint that cannot be resumed from, or cannot be written."""


class TrainingDiverged(ModelsError):
    """The loss became infinite or not a number; the weights are lost, and a smaller learning rate is the usual cure."""

    def __init__(self, step: int, learning_rate: float) -> None:
        self.step = step
        self.learning_rate = learning_rate
        super().__init__(
            f"training diverged: the loss is not finite after step {step} (learning_rate {learning_rate:g}); "
            "try a smaller learning_rate"
        )


class TrainingInterrupted(ModelsError):
    """Training was asked to stop; ``checkpoint`` holds everything needed to go on."""

    def __init__(self, step: int, checkpoint: Path | None) -> None:
        self.step = step
        self.checkpoint = checkpoint
        where = f"checkpoint left at {checkpoint}" if checkpoint else "no checkpoint directory was given, nothing kept"
        super().__init__(f"training stopped after step {step}: {where}")


class ArtifactError(ModelsError):
    """A published model that is incomplete, damaged or cannot be served."""


class GoldenMismatch(ArtifactError):
    """The goldens of a model do not replay within the recorded tolerance."""


class ProofFailed(ModelsError):
    """The proof found that the exported model differs from the trained one; ``report`` has the details."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        self.report = report
        super().__init__(message)


class GateNotMet(ModelsError):
    """The trained model is not good enough to be published; ``decision`` has the numbers."""

    def __init__(self, message: str, decision: dict[str, Any]) -> None:
        self.decision = decision
        super().__init__(message)


class PublicationError(ModelsError):
    """A version that could not be written to the repository; nothing of it is visible."""


class InvalidSweep(ModelsError):
    """An argument of a sweep that is out of bounds or contradicts another."""


class SweepUnavailable(ModelsError):
    """A sweep whose trials cannot run: torch or Ray is not installed, or the cluster cannot be reached."""


class TrialFileError(ModelsError):
    """A results folder whose files cannot be read or written."""
