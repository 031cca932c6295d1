from __future__ import annotations

import pytest

from models.training.recipes import recipe

torch = pytest.importorskip("torch")

from models.training.torch.optimisers import WeightAverage, optimiser_for  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch


def gradient_of(weights: torch.Tensor) -> torch.Tensor:
    return torch.sin(3 * weights) + 0.1 * weights


@pytest.mark.parametrize(
    ("overrides", "reference"),
    [
        ({"optimiser": "sgd"}, lambda p: torch.optim.SGD(p, 0.05)),
        ({"optimiser": "sgd", "momentum": 0.9}, lambda p: torch.optim.SGD(p, 0.05, momentum=0.9)),
        (
            {"optimiser": "sgd", "momentum": 0.5, "weight_decay": 0.1},
            lambda p: torch.optim.SGD(p, 0.05, momentum=0.5, weight_decay=0.1),
        ),
        ({"optimiser": "sgd", "weight_decay": 0.1}, lambda p: torch.optim.SGD(p, 0.05, weight_decay=0.1)),
        ({"optimiser": "adamw"}, lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.0)),
        ({"optimiser": "adamw", "weight_decay": 0.1}, lambda p: torch.optim.AdamW(p, 0.05, weight_decay=0.1)),
    ],
)
def test_each_optimiser_is_the_one_of_torch(overrides, reference):
    start = torch.linspace(-2, 2, 31, dtype=torch.float64)
    weights = start.clone()
    ours = optimiser_for(recipe("lecture", **overrides), weights)
    parameter = torch.nn.Parameter(start.clone())
    theirs = reference([parameter])
    for step in range(50):
        ours.update(weights, gradient_of(weights), step, 0.05)
        parameter.grad = gradient_of(parameter.detach())
        theirs.step()

    assert float((weights - parameter.detach()).abs().max()) < 1e-12
    assert float((weights - start).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("overrides", "names"),
    [
        ({"optimiser": "sgd"}, set()),
        ({"optimiser": "sgd", "momentum": 0.9}, {"velocity"}),
        ({"optimiser": "adamw"}, {"mean", "square"}),
    ],
)
def test_the_state_is_all_that_is_needed_to_go_on(overrides, names):
    chosen = recipe("lecture", **overrides)
    weights = torch.linspace(-2, 2, 31)
    first = optimiser_for(chosen, weights)
    for step in range(5):
        first.update(weights, gradient_of(weights), step, 0.05)

    resumed_weights = weights.clone()
    second = optimiser_for(chosen, resumed_weights)
    assert set(first.state()) == set(second.state()) == names
    for name, tensor in second.state().items():
        tensor.copy_(first.state()[name])
    for step in range(5, 10):
        first.update(weights, gradient_of(weights), step, 0.05)
        second.update(resumed_weights, gradient_of(resumed_weights), step, 0.05)
    assert torch.equal(weights, resumed_weights)


def test_no_average_is_the_weights_themselves():
    weights = torch.ones(3)
    average = WeightAverage(weights, 0.0)
    weights.add_(1)
    average.update(weights, 0)

    assert average.weights is weights


def test_the_average_forgets_its_start_and_then_moves_slowly():
    weights = torch.zeros(1)
    average = WeightAverage(weights, 0.9)
    weights.fill_(1)
    by_hand = 0.0
    for step in range(200):
        average.update(weights, step)
        decay = min(0.9, (1 + step) / (10 + step))
        by_hand = decay * by_hand + (1 - decay) * 1
        assert float(average.weights) == pytest.approx(by_hand, abs=1e-5)
    average.update(torch.zeros(1), 200)

    assert float(average.weights) == pytest.approx(0.9, abs=1e-4)
