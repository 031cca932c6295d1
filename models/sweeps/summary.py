"""What the results of a sweep say: for each recipe and network the mean over seeds, and how sure that is. No torch.

Recipes are compared on examples that were held out of the training set. The test set is reported, and chooses nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from models.sweeps.spread import Spread

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from models.sweeps.outcome import TrialResult


@dataclass(frozen=True)
class Cell:
    """The results of one network with one recipe: a figure for each seed."""

    network: str
    label: str
    """The recipe, as `Trial.label` has it."""
    results: tuple[TrialResult, ...]
    """By seed; at least one."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """Ascending."""
        return tuple(result.trial.recipe.seed for result in self.results)

    @property
    def steps(self) -> int:
        """The most steps that a seed's weights are of."""
        return max(result.steps for result in self.results)

    def accuracies(self, split: str) -> tuple[float, ...]:
        """Accuracy on a split for each seed; empty where nothing was held out."""
        return tuple(result.scores[split].accuracy for result in self.results if split in result.scores)

    def spread(self, split: str) -> Spread | None:
        """Spread of the accuracy on a split; None where nothing was held out."""
        accuracies = self.accuracies(split)
        return Spread.of(accuracies) if accuracies else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        spreads = {split: self.spread(split) for split in ("test", "validation", "train")}
        return {
            "network": self.network,
            "recipe": self.label,
            "seeds": list(self.seeds),
            "accuracy": {split: spread.to_dict() for split, spread in spreads.items() if spread is not None},
            "steps": self.steps,
            "trials": [result.trial.file_name for result in self.results],
        }


def cells(results: Iterable[TrialResult]) -> list[Cell]:
    """Results by network and recipe, in the order in which those first occur."""
    groups: dict[str, list[TrialResult]] = {}
    for result in results:
        groups.setdefault(result.trial.cell.digest, []).append(result)
    return [
        Cell(
            group[0].trial.recipe.network,
            group[0].trial.label,
            tuple(sorted(group, key=lambda result: result.trial.recipe.seed)),
        )
        for group in groups.values()
    ]


def choice(of: Sequence[Cell]) -> Cell | None:
    """The cell with the highest mean accuracy on held-out examples.

    None where there is nothing to choose from, or a cell whose recipe held nothing out.
    """
    means = [(spread.mean, cell) for cell in of if (spread := cell.spread("validation")) is not None]
    if len(of) < 2 or len(means) < len(of):
        return None
    return max(means, key=lambda pair: pair[0])[1]
