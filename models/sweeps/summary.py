"""The summary of a sweep: for each recipe and network the mean over seeds, with its confidence interval. No torch.

Recipes are compared on examples that were held out of the training set. The test set is reported, and decides nothing.
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
    """The results of one network with one recipe, one for each seed."""

    network: str
    label: str
    """The recipe, as in `Trial.label`."""
    results: tuple[TrialResult, ...]
    """Sorted by seed; at least one."""

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the results, ascending."""
        return tuple(result.trial.recipe.seed for result in self.results)

    @property
    def steps(self) -> int:
        """The largest number of steps behind the final weights of a seed."""
        return max(result.steps for result in self.results)

    def accuracies(self, split: str) -> tuple[float, ...]:
        """Accuracy on a split for each seed; empty if the split has no examples."""
        return tuple(result.scores[split].accuracy for result in self.results if split in result.scores)

    def spread(self, split: str) -> Spread | None:
        """Statistics of the accuracy on a split; None if the split has no examples."""
        accuracies = self.accuracies(split)
        return Spread.of(accuracies) if accuracies else None

    def to_dict(self) -> dict[str, Any]:
        """The cell as plain values for JSON."""
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
    """Group results by network and recipe, in the order in which these first occur."""
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

    None if there are fewer than two cells, or if the recipe of one held nothing out.
    """
    means = [(spread.mean, cell) for cell in of if (spread := cell.spread("validation")) is not None]
    if len(of) < 2 or len(means) < len(of):
        return None
    return max(means, key=lambda pair: pair[0])[1]
