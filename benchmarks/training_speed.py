"""Steps per second of our two engines against the DataLoader-and-eager loop that most people write.

    python benchmarks/training_speed.py [--network conv] [--recipe lecture] [--steps 2000] [--rounds 5]
    python benchmarks/training_speed.py --whole

All loops do the same maths: same first weights, same batches in the same order, same optimiser, one thread. How far
their weights lie apart after the first 50 steps is printed to show it. The rounds take turns, so that a busy machine
slows all of them, and are measured by the processor time of this process; the ratio of the medians is what counts, and
the only figure worth quoting. Exits with status 1 if that of the fused engine is below --at-least.

--whole trains conv from nothing to its weights in new processes, as a user waits for it: the lecture's 100,000 steps
with all evaluations and with compilation (nothing compiled is kept), and the 10,000 augmented steps of quick with and
without compilation.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from models.data.dataset import canonical
from models.networks.architectures import ARCHITECTURES
from models.networks.modules import build
from models.training.loop import train
from models.training.recipes import RECIPES, TrainingRecipe, recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from models.training.backend import EngineName

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


def by(engine: EngineName) -> Callable[[TrainingRecipe], nn.Module]:
    def loop(chosen: TrainingRecipe) -> nn.Module:
        return train(chosen, canonical(), engine=engine).network

    return loop


LOOPS: dict[str, Callable[[TrainingRecipe], nn.Module]] = {
    "DataLoader and eager": naive,
    "engine torch": by("torch"),
    "engine fused": by("fused"),
}
USUAL, *_, FUSED = LOOPS


def steps_per_s(loop: Callable[[TrainingRecipe], nn.Module], chosen: TrainingRecipe) -> float:
    started_s = time.process_time()
    loop(chosen)
    return chosen.steps / (time.process_time() - started_s)


def largest_difference(loop: Callable[[TrainingRecipe], nn.Module], chosen: TrainingRecipe) -> float:
    short = chosen.replace(steps=SAME_MATHS_STEPS)
    pairs = zip(naive(short).parameters(), loop(short).parameters(), strict=True)
    return max((a - b).abs().max().item() for a, b in pairs)


WHOLE = """
import sys, time
started = time.perf_counter(), time.process_time()
from models.data.dataset import canonical
from models.training.recipes import recipe
from models.training.loop import train
trained = train(recipe(sys.argv[1], seed=0), canonical(), engine="fused")
took = time.perf_counter() - started[0], time.process_time() - started[1]
accuracy = trained.history[-1].accuracy
print(f"{took[0]:6.1f} s, {took[1]:6.1f} s of processor time, {100 * accuracy:.1f} % of the test set")
"""


def whole_runs() -> None:
    """As a user waits for it: Python, PyTorch and numba started, data made, compiled, trained, evaluated."""
    with tempfile.TemporaryDirectory() as nothing_compiled, tempfile.TemporaryDirectory() as compiled:
        for name, kept in (("lecture", nothing_compiled), ("quick", compiled), ("quick", compiled)):
            state = "compiled before" if any(Path(kept).iterdir()) else "compiled now"
            environment = {**os.environ, "NUMBA_CACHE_DIR": kept}
            done = subprocess.run(
                [sys.executable, "-c", WHOLE, name], env=environment, capture_output=True, text=True, check=True
            )
            print(f"conv, {name}, {RECIPES[name].steps:,} steps, {state:15}: {done.stdout.strip()}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=ARCHITECTURES, default="conv")
    parser.add_argument("--recipe", choices=RECIPES, default="lecture", help="without augmentation and averaging here")
    parser.add_argument("--steps", type=int, default=2_000, help="steps of one round (default 2000)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each loop (default 5)")
    parser.add_argument("--at-least", type=float, help="the ratio to reach (default 12, fully connected 2)")
    parser.add_argument("--whole", action="store_true", help="measure whole runs instead")
    arguments = parser.parse_args()
    if arguments.whole:
        whole_runs()
        return 0
    torch.set_num_threads(1)
    canonical()
    # The usual loop has neither augmentation nor averaging; evaluation is no part of any of them.
    chosen = recipe(arguments.recipe, network=arguments.network, steps=arguments.steps, evaluate_every=0, ema=0.0)
    chosen = chosen.replace(augmentation=None)
    at_least = arguments.at_least
    if at_least is None:
        at_least = 12 if ARCHITECTURES[chosen.network].kind == "conv" else 2

    print(f"{chosen.network}, {chosen.name}, batch {chosen.batch_size}, 1 thread, torch {torch.__version__}")
    for name, loop in LOOPS.items():
        if loop is not naive:
            apart = largest_difference(loop, chosen)
            print(f"{name}: largest difference of any weight after {SAME_MATHS_STEPS} steps: {apart:.1e}")
    speeds: dict[str, list[float]] = {name: [] for name in LOOPS}
    for _ in range(arguments.rounds):
        for name, loop in LOOPS.items():
            speeds[name].append(steps_per_s(loop, chosen))
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    for name, values in speeds.items():
        ratio = medians[name] / medians[USUAL]
        print(f"{name:22} {medians[name]:8.0f} steps/s  (rounds {min(values):.0f} to {max(values):.0f})  x {ratio:.2f}")
    ratio = medians[FUSED] / medians[USUAL]
    print(f"ratio {ratio:.2f}, to reach {at_least:g}")
    return 0 if ratio >= at_least else 1


if __name__ == "__main__":
    sys.exit(main())
