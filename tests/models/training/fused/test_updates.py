from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.training.recipes import recipe

pytest.importorskip("torch")
pytest.importorskip("numba")

from models.data.batches import Epochs
from models.networks.modules import build
from models.training.fused.fused_engine import FusedEngine
from models.training.torch.torch_engine import TorchEngine

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize(
    "overrides",
    [
        {"optimiser": "sgd"},
        {"optimiser": "sgd", "momentum": 0.9},
        {"optimiser": "sgd", "weight_decay": 0.1},
        {"optimiser": "sgd", "momentum": 0.5, "weight_decay": 0.1, "ema": 0.5},
        {"optimiser": "adamw"},
        {"optimiser": "adamw", "weight_decay": 0.1, "ema": 0.99},
    ],
)
def test_each_optimiser_and_average_is_the_reference_one(overrides):
    """`tests/models/training/torch/test_optimisers.py` compares the reference with torch.optim."""
    chosen = recipe("lecture", learning_rate=0.02, **overrides)
    engines = [kind(chosen, build("conv", seed=0)) for kind in (FusedEngine, TorchEngine)]
    start = engines[0].average()
    batches, rates = Epochs(canonical().train, chosen, engines[0].distort).batches(0, 30), np.linspace(0.005, 0.02, 30)
    networks = []
    for engine in engines:
        engine.advance(batches, 0, rates)
        state, network = engine.state(), build("conv", seed=9)
        parts = []
        for name in sorted(state):
            engine.store(state[name], network)
            parts += [parameter.detach().numpy().ravel().copy() for parameter in network.parameters()]
        networks.append(np.concatenate(parts))

    assert np.abs(networks[0] - networks[1]).max() < 1e-6
    assert np.abs(engines[0].average() - start).max() > 0.01
