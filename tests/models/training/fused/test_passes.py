from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.training.recipes import recipe

torch = pytest.importorskip("torch")
pytest.importorskip("numba")

from models.data.batches import Batches  # noqa: E402  (after importorskip)
from models.networks.modules import ConvNet, FullyConnected, build  # noqa: E402  (after importorskip)
from models.training.fused.fused_engine import FusedEngine  # noqa: E402  (after importorskip)
from models.training.threads import one_thread  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch


@one_thread()
def assert_same_as_autograd(network: torch.nn.Module, batch: int) -> None:
    """One step of plain SGD with learning rate 1 takes the gradient off the weights."""
    engine = FusedEngine(recipe("lecture", batch_size=batch), network)
    train = canonical().train
    x_BL, y_B = train.x_BL[:batch].copy(), train.y_B[:batch].copy()
    before = engine.average()
    engine.advance(Batches(x_BL[None], y_B[None]), 0, np.ones(1))
    gradient = before - engine.average()

    logits_BK = network(torch.tensor(x_BL))
    loss = torch.nn.functional.cross_entropy(logits_BK, torch.tensor(y_B))
    loss.backward()
    theirs = np.concatenate([parameter.grad.numpy().ravel() for parameter in network.parameters()])
    assert np.abs(theirs).max() > 1e-3
    assert np.abs(gradient - theirs).max() < 5e-6
    right = float((logits_BK.argmax(1) == torch.tensor(y_B)).float().mean())
    assert engine.scores() == pytest.approx((loss.item(), right), abs=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 6, 7, 100])
@pytest.mark.parametrize("name", ["conv", "fc", "conv25", "fc-slide"])
def test_the_gradient_is_that_of_autograd(name, batch):
    assert_same_as_autograd(build(name, seed=4, init="pytorch"), batch)


@pytest.mark.parametrize("batch", [1, 12, 50])
@pytest.mark.parametrize(
    "network",
    [
        *(lambda channels=channels: ConvNet(channels) for channels in (1, 2, 7, 16, 17, 40)),
        *(
            lambda widths=widths: FullyConnected(widths)
            for widths in ((40, 10), (40, 1, 10), (40, 3, 10), (40, 16, 10), (40, 33, 8, 65, 5, 10))
        ),
    ],
)
def test_any_width_and_depth_will_do(network, batch):
    torch.manual_seed(0)
    assert_same_as_autograd(network(), batch)


def test_large_logits_neither_overflow_nor_vanish():
    network = build("conv", seed=0)
    with torch.no_grad():
        network.linear.weight.mul_(300)
    engine = FusedEngine(recipe("lecture", batch_size=50), network)
    train = canonical().train
    engine.advance(Batches(train.x_BL[None, :50].copy(), train.y_B[None, :50].copy()), 0, np.full(1, 1e-6))
    loss = torch.nn.functional.cross_entropy(network(torch.tensor(train.x_BL[:50])), torch.tensor(train.y_B[:50]))

    assert loss.item() > 50
    assert engine.scores()[0] == pytest.approx(loss.item(), rel=1e-5)
    assert engine.is_finite()
