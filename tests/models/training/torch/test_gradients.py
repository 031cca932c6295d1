from __future__ import annotations

import copy

import pytest

from models.data.dataset import canonical
from models.networks.architectures import ARCHITECTURES

torch = pytest.importorskip("torch")

from models.networks.modules import ConvNet, FullyConnected, build, weights_sha256  # noqa: E402  (after importorskip)
from models.training.torch.gradients import gradients_of  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch

TOLERANCE = {torch.float32: 5e-6, torch.float64: 1e-14}


def batch_of(count: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    train = canonical().train
    return torch.tensor(train.x_BL[:count], dtype=dtype), torch.tensor(train.y_B[:count])


def assert_same_as_autograd(network: torch.nn.Module, count: int, dtype: torch.dtype) -> None:
    x_BL, y_B = batch_of(count, dtype)
    logits_BK = network(x_BL)
    torch.nn.functional.cross_entropy(logits_BK, y_B).backward()
    gradients = gradients_of(network)
    log_p_BK = gradients.step(x_BL, torch.nn.functional.one_hot(y_B, 10).to(dtype))
    by_hand = copy.deepcopy(network)
    gradients.store(gradients.gradient, by_hand)

    assert torch.allclose(log_p_BK, logits_BK.detach().log_softmax(1), atol=10 * TOLERANCE[dtype])
    for (name, parameter), ours in zip(network.named_parameters(), by_hand.parameters(), strict=True):
        difference = float((parameter.grad - ours.detach()).abs().max())
        assert difference < TOLERANCE[dtype], name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2, 100])
@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_the_gradient_is_that_of_autograd(name, count, dtype):
    assert_same_as_autograd(build(name, seed=4, init="pytorch").to(dtype), count, dtype)


@pytest.mark.parametrize("network", [ConvNet(1), ConvNet(2), FullyConnected((40, 10)), FullyConnected((40, 3, 10))])
def test_other_sizes_work_too(network):
    assert_same_as_autograd(network.double(), 9, torch.float64)


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_weights_come_back_as_they_went_in(name):
    network = build(name, seed=1)
    before = weights_sha256(network)
    gradients = gradients_of(network)
    other = build(name, seed=2)
    gradients.store(gradients.weights, other)

    assert weights_sha256(other) == before
    assert gradients.weights.numel() == ARCHITECTURES[name].parameters


@pytest.mark.parametrize("name", ["conv", "fc"])
def test_a_step_changes_neither_weights_nor_batch(name):
    gradients = gradients_of(build(name, seed=1))
    x_BL, y_B = batch_of(10, torch.float32)
    onehot_BK = torch.nn.functional.one_hot(y_B, 10).float()
    before = [tensor.clone() for tensor in (gradients.weights, x_BL, onehot_BK)]
    gradients.step(x_BL, onehot_BK)

    for tensor, former in zip((gradients.weights, x_BL, onehot_BK), before, strict=True):
        assert torch.equal(tensor, former)


def test_the_passes_work_on_a_copy_of_the_weights():
    network = build("conv", seed=0)
    before = weights_sha256(network)
    gradients_of(network).weights.zero_()

    assert weights_sha256(network) == before


def test_a_slice_of_a_larger_array_is_read_from_its_own_start():
    gradients = gradients_of(build("conv", seed=1))
    x_BL, y_B = batch_of(30, torch.float32)
    onehot_BK = torch.nn.functional.one_hot(y_B, 10).float()

    sliced = gradients.step(x_BL[10:20], onehot_BK[10:20])
    alone = gradients.step(x_BL[10:20].clone(), onehot_BK[10:20].clone())
    assert torch.equal(sliced, alone)


def test_modules_without_passes_are_refused():
    with pytest.raises(TypeError, match="Linear"):
        gradients_of(torch.nn.Linear(40, 10))
