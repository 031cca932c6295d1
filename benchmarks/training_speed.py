"""Steps per second of our training loop against the DataLoader-and-eager loop that most people write.

    python benchmarks/training_speed.py [--network conv] [--recipe lecture] [--steps 2000] [--rounds 5]

Both loops do the same maths: same first weights, same batches in the same order, same optimiser, one thread. How far
their weights lie apart after the first 50 steps is printed to show it. The rounds of the two alternate, so that a busy
machine slows both; the ratio of the medians is what counts, and the only figure worth quoting. Exits with status 1 if
the ratio is below --at-least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from models.architectures import ARCHITECTURES
from models.dataset import canonical
from models.networks import build
from models.recipes import RECIPES, TrainingRecipe, recipe
from models.training import train

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SAME_MATHS_STEPS = 50


class EpochOrder(Sampler[int]):
    """The order of our own epochs, one after the other."""

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed, self._epoch = count, seed, 0

    def __iter__(self) -> Iterator[int]:
        order = np.random.default_rng([self._seed, self._epoch]).permutation(self._count)
        self._epoch += 1
        return iter(order.tolist())

    def __len__(self) -> int:
        return self._count


def naive(chosen: TrainingRecipe) -> nn.Module:
    """What one writes first: Dataset, DataLoader, module, loss, backward, optimiser."""
    train_set = canonical().train
    dataset = TensorDataset(torch.tensor(train_set.x_BL), torch.tensor(train_set.y_B))
    order = EpochOrder(len(dataset), chosen.seed)
    loader = DataLoader(dataset, batch_size=chosen.batch_size, sampler=order, drop_last=True)
    network = build(chosen.network, seed=chosen.seed, init=chosen.init)
    if chosen.optimiser == "adamw":
        optimiser: torch.optim.Optimizer = torch.optim.AdamW(
            network.parameters(), lr=chosen.learning_rate, weight_decay=chosen.weight_decay
        )
    else:
        optimiser = torch.optim.SGD(
            network.parameters(), chosen.learning_rate, chosen.momentum, weight_decay=chosen.weight_decay
        )
    loss_of = nn.CrossEntropyLoss()
    step = 0
    while True:
        for x_BL, y_B in loader:
            for group in optimiser.param_groups:
                group["lr"] = chosen.learning_rate_at(step)
            optimiser.zero_grad()
            loss = loss_of(network(x_BL), y_B)
            loss.backward()
            optimiser.step()
            step += 1
            if step == chosen.steps:
                return network


def ours(chosen: TrainingRecipe) -> nn.Module:
    return train(chosen, canonical()).network


def steps_per_s(loop: Callable[[TrainingRecipe], nn.Module], chosen: TrainingRecipe) -> float:
    started_s = time.perf_counter()
    loop(chosen)
    return chosen.steps / (time.perf_counter() - started_s)


def largest_difference(chosen: TrainingRecipe) -> float:
    short = chosen.replace(steps=SAME_MATHS_STEPS)
    pairs = zip(naive(short).parameters(), ours(short).parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=ARCHITECTURES, default="conv")
    parser.add_argument("--recipe", choices=RECIPES, default="lecture", help="without augmentation and averaging here")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of one round (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each loop (default 5)")
    parser.add_argument("--at-least", type=float, default=1.5, help="the ratio to reach (default 1.5)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    canonical()
    # The naive loop has neither augmentation nor averaging; evaluation is no part of either.
    chosen = recipe(arguments.recipe, network=arguments.network, steps=arguments.steps, evaluate_every=0, ema=0.0)
    chosen = chosen.replace(augmentation=None)

    print(f"{chosen.network}, {chosen.name}, batch {chosen.batch_size}, 1 thread, torch {torch.__version__}")
    print(f"largest difference of any weight after {SAME_MATHS_STEPS} steps: {largest_difference(chosen):.1e}")
    speeds: dict[str, list[float]] = {"DataLoader and eager": [], "ours": []}
    for _ in range(arguments.rounds):
        speeds["DataLoader and eager"].append(steps_per_s(naive, chosen))
        speeds["ours"].append(steps_per_s(ours, chosen))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        print(f"{name:22} {medians[name]:8.0f} steps/s  (rounds {min(values):.0f} to {max(values):.0f})")
    ratio = medians["ours"] / medians["DataLoader and eager"]
    print(f"ratio {ratio:.2f}, to reach {arguments.at_least:g}")
    return 0 if ratio >= arguments.at_least else 1


if __name__ == "__main__":
    sys.exit(main())
