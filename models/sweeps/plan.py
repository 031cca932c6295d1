"""The plan of a sweep: trials of networks x recipes x a grid of fields x seeds. No torch."""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from models.errors import InvalidSweep
from models.sweeps.trial import Trial
from models.training.recipes import MAX_SEED, parse_override, recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from models.training.backend import EngineChoice

MAX_TRIALS: Final = 100_000
_GIVEN_OTHERWISE: Final = {"network": "networks", "seed": "seeds", "name": "recipes"}
_SEEDS: Final = re.compile(r"(\d+)(?:-(\d+))?")


@dataclass(frozen=True)
class Shard:
    """One of ``count`` machines that share the trials of a plan: it takes every ``count``-th."""

    index: int
    """0 to ``count`` - 1."""
    count: int

    def __post_init__(self) -> None:
        if self.count < 1:
            raise InvalidSweep(f"shard: got {self.index}/{self.count}, there must be at least 1 shard")
        if not 0 <= self.index < self.count:
            raise InvalidSweep(f"shard: got {self.index}/{self.count}, must be between 0 and {self.count - 1}")

    def of(self, trials: Sequence[Trial]) -> tuple[Trial, ...]:
        """The trials of this shard; all shards together contain every trial once."""
        return tuple(trials[self.index :: self.count])


def trials(
    *,
    networks: Sequence[str],
    recipes: Sequence[str],
    seeds: Sequence[int],
    overrides: Mapping[str, Any] | None = None,
    grid: Mapping[str, Sequence[Any]] | None = None,
    engine: EngineChoice = "auto",
) -> tuple[Trial, ...]:
    """The trials of every combination, each once, with seeds innermost.

    ``overrides`` change every recipe, ``grid`` has several values for a field; neither has network, seed or name.

    Raises InvalidSweep if a field is in both or has its own argument, or if there are too many trials; InvalidRecipe if
    a recipe is unknown or a value out of bounds.
    """
    overrides, grid = dict(overrides or {}), dict(grid or {})
    for field in (*overrides, *grid):
        if field in _GIVEN_OTHERWISE:
            raise InvalidSweep(
                f"{field} cannot be overridden or in a grid: the sweep has a list of {_GIVEN_OTHERWISE[field]}"
            )
    for field in grid:
        if field in overrides:
            raise InvalidSweep(f"grid: {field} is set to {overrides[field]!r} for all trials already")
    count = len(networks) * len(recipes) * len(seeds)
    for values in grid.values():
        count *= len(values)
    if count > MAX_TRIALS:
        raise InvalidSweep(f"trials: {count:,}, must be at most {MAX_TRIALS:,}")
    found: dict[str, Trial] = {}
    for network, name, point in itertools.product(networks, recipes, itertools.product(*grid.values())):
        changed = recipe(name).replace(network=network, **overrides, **dict(zip(grid, point, strict=True)))
        for seed in seeds:
            trial = Trial(changed.replace(seed=seed), engine)
            found.setdefault(trial.digest, trial)
    return tuple(found.values())


def parse_seeds(text: str) -> tuple[int, ...]:
    """Parse ``"0-4,7"`` -> (0, 1, 2, 3, 4, 7): each once, in the order given. InvalidSweep for anything else."""
    seeds: dict[int, None] = {}
    for part in text.split(","):
        found = _SEEDS.fullmatch(part.strip())
        if found is None:
            raise InvalidSweep(f"seeds: got {text!r}, must be numbers and ranges such as 0-4,7")
        first = int(found[1])
        last = first if found[2] is None else int(found[2])
        if last < first:
            raise InvalidSweep(f"seeds: got {part.strip()!r}, a range must not end before it begins")
        if last > MAX_SEED:
            raise InvalidSweep(f"seeds: got {last}, must be at most {MAX_SEED}")
        if last - first >= MAX_TRIALS:
            raise InvalidSweep(f"seeds: got {part.strip()!r}, must be at most {MAX_TRIALS:,} of them")
        seeds |= dict.fromkeys(range(first, last + 1))
    return tuple(seeds)


def parse_grid(texts: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """Parse ``["learning_rate=0.01,0.02"]`` -> {"learning_rate": (0.01, 0.02)}.

    InvalidSweep for a field that is given twice; InvalidRecipe for unknown fields and bad values.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        name = name.strip()
        # Parsed one by one, so that every value has the type of its field; without "=" the first one raises.
        parsed = [parse_override(f"{name}{equals}{value}") for value in values.split(",")]
        if name in grid:
            raise InvalidSweep(f"grid: {name} is given twice")
        grid[name] = tuple(dict.fromkeys(value for _, value in parsed))
    return grid


def parse_shard(text: str, job_index: str | None) -> Shard:
    """Parse ``"0/4"``, the first of four, or ``"job/4"``, with the index ``job_index`` of a Kubernetes Indexed Job.

    InvalidSweep if it is written otherwise, there is no such shard, or ``job_index`` is missing.
    """
    found = re.fullmatch(r"(\d+|job)/(\d+)", text.strip())
    if found is None:
        raise InvalidSweep(f"shard: got {text!r}, must be written INDEX/COUNT, such as 0/4, or job/COUNT")
    index = found[1]
    if index == "job":
        if job_index is None:
            raise InvalidSweep(f"shard: got {text!r}, but JOB_COMPLETION_INDEX is not set: this is no Indexed Job")
        if not (job_index.isascii() and job_index.isdecimal()):
            raise InvalidSweep(f"shard: got {text!r}, but JOB_COMPLETION_INDEX is {job_index!r} and no whole number")
        index = job_index
    return Shard(int(index), int(found[2]))
