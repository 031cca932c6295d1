"""One trial: a recipe with its seed, and what identifies it. No torch.

Two trials are the same if they lead to the same weights and the same curves, even if their names differ: the digest
covers the recipe's fields except its name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from models.data.dataset import CANONICAL_SHA256
from models.training.recipes import RECIPES, TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from models.data.augmentation import Augmentation
    from models.training.backend import EngineChoice

_DIGEST_CHARACTERS: Final = 16


@dataclass(frozen=True)
class Trial:
    """A training to be done once, on the canonical data."""

    recipe: TrainingRecipe
    engine: EngineChoice = "auto"
    """Training backend. With ``auto`` it is the same trial for any backend."""

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The plain values that decide the outcome.

        Fields that are at their default are left out, so a version with more fields still recognises old trials.
        """
        asked = {} if self.engine == "auto" else {"engine": self.engine}
        return {"data": CANONICAL_SHA256["train_x"], "recipe": _changed_fields(self.recipe), **asked}

    @cached_property
    def digest(self) -> str:
        """Hash of `identity`, 16 hexadecimal characters."""
        text = json.dumps(self.identity, sort_keys=True, allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()[:_DIGEST_CHARACTERS]

    @property
    def file_name(self) -> str:
        """File name of the outcome, such as ``conv-seed0-1f0c6ab2d9e47358.json``: network, seed and digest."""
        return f"{self.recipe.network}-seed{self.recipe.seed}-{self.digest}.json"

    @property
    def cell(self) -> Trial:
        """The trial with seed 0, the same for all trials that differ by their seed only."""
        return Trial(self.recipe.replace(seed=0), self.engine)

    @property
    def label(self) -> str:
        """A label such as ``best steps=10000``: the recipe's name, its changed fields, and the engine unless auto."""
        base = RECIPES.get(self.recipe.name)
        changes = [] if base is None else _differences(base, self.recipe)
        return " ".join([self.recipe.name, *changes, *([] if self.engine == "auto" else [f"engine={self.engine}"])])

    def __str__(self) -> str:
        return f"{self.recipe.network} {self.label} seed {self.recipe.seed}"

    def to_dict(self) -> dict[str, Any]:
        """The trial as plain values for JSON."""
        return {"recipe": self.recipe.to_dict(), "engine": self.engine}

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Trial:
        """The trial that ``to_dict`` described. KeyError, TypeError or InvalidRecipe otherwise."""
        return Trial(TrainingRecipe.from_dict(values["recipe"]), values["engine"])


def _changed_fields(value: TrainingRecipe | Augmentation) -> dict[str, Any]:
    """Fields that are not at the default of their class, except the name; whole numbers as int."""
    changed = {}
    for field in dataclasses.fields(value):
        item = getattr(value, field.name)
        if field.name == "name" or item == field.default:
            continue
        if dataclasses.is_dataclass(item):
            item = _changed_fields(item)  # type: ignore[arg-type]  # the only dataclass in a recipe is its augmentation
        changed[field.name] = int(item) if isinstance(item, float) and item.is_integer() else item
    return changed


def _differences(base: TrainingRecipe, changed: TrainingRecipe) -> list[str]:
    """Changed fields as ``field=value``, as ``parse_override`` reads them, except network and seed.

    A warm-up that only follows from the steps does not count.
    """
    differences = []
    base = dataclasses.replace(base, warmup_steps=base.replace(steps=changed.steps).warmup_steps)
    for field in dataclasses.fields(base):
        before, after = getattr(base, field.name), getattr(changed, field.name)
        if field.name in ("network", "seed") or before == after:
            continue
        if field.name == "augmentation":
            differences += _augmentation_differences(before, after)
        else:
            differences.append(f"{field.name}={_in_words(after)}")
    return differences


def _augmentation_differences(before: Augmentation | None, after: Augmentation | None) -> list[str]:
    if after is None:
        return ["augmentation=none"]
    parts = [
        f"augmentation.{field.name}={_in_words(getattr(after, field.name))}"
        for field in dataclasses.fields(after)
        if getattr(after, field.name) != (field.default if before is None else getattr(before, field.name))
    ]
    return [*(["augmentation=default"] if before is None else []), *parts]


def _in_words(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
