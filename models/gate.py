"""The gate: a new version is published only if it is at least as good as another one on the held-out examples.

The test set decides nothing, and no version is measured on examples that it was trained on. So both must have held out
the same examples, and the accuracies that training recorded for them in both manifests are compared. Torch-free.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from models.artifact.artifact import check_model_file, read_manifest
from models.errors import ArtifactError, InvalidRecipe

if TYPE_CHECKING:
    from models.artifact.artifact import Manifest
    from models.training.recipes import TrainingRecipe

Gate: TypeAlias = Callable[[], Path | None]
"""Returns the directory of the version to compare with; None if there is none, and then the gate is met."""


@dataclass(frozen=True)
class GateDecision:
    """The result of a gate: what was compared, and whether the new version may be published."""

    is_met: bool
    baseline: str
    """``NAME/VERSION``; empty if there was nothing to compare with."""
    candidate_accuracy: float
    """Share of the held-out examples that is classified correctly, 0 to 1."""
    baseline_accuracy: float | None
    """The baseline's share; None if it has no comparable figure."""
    summary: str

    def to_dict(self) -> dict[str, Any]:
        """The decision as plain values for JSON."""
        return asdict(self)


def check_can_be_compared(recipe: TrainingRecipe) -> None:
    """Raise InvalidRecipe unless the recipe holds examples out."""
    if not recipe.validation:
        raise InvalidRecipe("validation", 0, "must be above 0 with a gate, which compares on held-out examples")


def decide(baseline: Path | None, metrics: Mapping[str, Any], origin: Mapping[str, Any]) -> GateDecision:
    """Compare a trained model with the version in a directory.

    ``metrics`` and ``origin`` are those of the new model, in the form of a manifest's ``metrics`` and ``provenance``.
    If the baseline cannot be read or compared, the gate is not met.
    """
    accuracy = float(metrics["validation"]["accuracy"])
    if baseline is None:
        return GateDecision(True, "", accuracy, None, f"no version to compare with; validation accuracy {accuracy:.2%}")
    name = f"{baseline.parent.name}/{baseline.name}"
    try:
        manifest = read_manifest(baseline)
        check_model_file(baseline, manifest)
    except ArtifactError as error:
        return GateDecision(False, name, accuracy, None, f"{name} cannot be compared with: {error}")
    why_not = why_not_comparable(manifest, origin)
    if why_not is not None:
        return GateDecision(False, name, accuracy, None, f"{name} cannot be compared with: {why_not}")
    other = float(manifest.metrics["validation"]["accuracy"])
    is_met = accuracy >= other
    relation = "at least" if is_met else "less than"
    summary = f"validation accuracy {accuracy:.2%}, {relation} the {other:.2%} of {name}"
    return GateDecision(is_met, name, accuracy, other, summary)


def why_not_comparable(baseline: Manifest, origin: Mapping[str, Any]) -> str | None:
    """Why a published version was not measured on the same held-out examples; None if it was.

    ``origin`` has the new model's ``recipe`` and, if known yet, its ``data_sha256``.
    """
    held_out = origin["recipe"]["validation"]
    recipe = baseline.provenance.get("recipe")
    theirs = recipe.get("validation") if isinstance(recipe, Mapping) else None
    if not isinstance(theirs, int) or not theirs:
        return "it was trained without holding examples out, so it has no result on them"
    if theirs != held_out:
        return f"it held out {theirs} examples, the new one {held_out}"
    if "data_sha256" in origin and baseline.provenance.get("data_sha256") != dict(origin["data_sha256"]):
        return "it was trained on other data"
    measured = baseline.metrics.get("validation")
    accuracy = measured.get("accuracy") if isinstance(measured, Mapping) else None
    if not isinstance(accuracy, int | float) or not 0 <= accuracy <= 1:
        return "its manifest records no accuracy on the held-out examples"
    return None
