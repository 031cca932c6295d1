from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.errors import InvalidRecipe
from models.networks.architectures import ARCHITECTURES
from models.networks.convolution import convolve_1d, linear, relu

torch = pytest.importorskip("torch")

from models.networks.modules import (  # noqa: E402  (after importorskip)
    ConvNet,
    FullyConnected,
    build,
    conv_lengths,
    dense_twin,
    parameter_count,
    state_arrays,
    weights_sha256,
)

pytestmark = pytest.mark.needs_torch

CONVS = [name for name, spec in ARCHITECTURES.items() if spec.kind == "conv"]


@pytest.mark.parametrize("name", list(ARCHITECTURES))
def test_parameter_counts_are_those_of_the_table(name):
    assert parameter_count(build(name, seed=0)) == ARCHITECTURES[name].parameters


def test_parameter_names_are_a_contract():
    conv_names = [f"{layer}.{kind}" for layer in ("conv1", "conv2", "conv3", "linear") for kind in ("weight", "bias")]
    fc_names = [
        f"{layer}.{kind}" for layer in ("hidden1", "hidden2", "hidden3", "output") for kind in ("weight", "bias")
    ]

    assert list(state_arrays(build("conv", seed=0))) == conv_names
    assert list(state_arrays(build("fc", seed=0))) == fc_names


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("batch", [1, 7])
def test_signals_become_logits(name, batch):
    assert build(name, seed=0)(torch.zeros(batch, 40)).shape == (batch, 10)


def test_lengths_between_the_layers():
    assert conv_lengths() == (40, 19, 9, 4)


def test_the_convolutional_net_is_the_equations_of_the_lecture():
    network = build("conv", seed=3, init="pytorch").double()
    w = state_arrays(network)
    x_BL = canonical().test.x_BL[:5].astype(np.float64)

    h = x_BL[:, None]
    for layer in ("conv1", "conv2", "conv3"):
        h = convolve_1d(h, w[f"{layer}.weight"], w[f"{layer}.bias"], stride=2, activation=relu)
    expected = linear(h.reshape(5, -1), w["linear.weight"], w["linear.bias"])

    assert np.abs(network(torch.tensor(x_BL)).detach().numpy() - expected).max() < 1e-12


@pytest.mark.parametrize("name", list(ARCHITECTURES))
@pytest.mark.parametrize("init", ["he", "pytorch"])
def test_weights_depend_on_seed_and_init_only(name, init):
    first = weights_sha256(build(name, seed=1, init=init))
    torch.rand(3)

    assert weights_sha256(build(name, seed=1, init=init)) == first
    assert weights_sha256(build(name, seed=2, init=init)) != first


def test_the_callers_random_state_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    dense_twin(build("conv", seed=0))

    assert torch.equal(torch.rand(3), expected)


def test_he_has_its_variance_and_zero_biases():
    network = build("fc-slide", seed=0, init="he")

    assert float(network.hidden2.weight.detach().std()) == pytest.approx((2 / 475) ** 0.5, rel=0.02)
    assert float(network.hidden2.bias.detach().abs().max()) == 0


def test_pytorch_init_has_the_distribution_of_the_default():
    network = build("conv25", seed=0, init="pytorch")
    bound = (25 * 3) ** -0.5

    for values in (network.conv2.weight.detach(), network.conv2.bias.detach()):
        assert float(values.abs().max()) <= bound
        assert float(values.abs().max()) > 0.8 * bound
    assert float(network.conv2.weight.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)
    default = torch.nn.Conv1d(25, 25, 3).weight.detach()
    assert float(default.std()) == pytest.approx(bound / 3**0.5, rel=0.05)


@pytest.mark.parametrize(("name", "init", "field"), [("cnn", "he", "network"), ("conv", "zeros", "init")])
def test_unknown_names_are_refused(name, init, field):
    with pytest.raises(InvalidRecipe) as caught:
        build(name, seed=0, init=init)

    assert caught.value.field == field


@pytest.mark.parametrize(
    ("construct", "message"),
    [
        (lambda: ConvNet(0), "channels must be at least 1, got 0"),
        (lambda: FullyConnected((40,)), "widths"),
        (lambda: FullyConnected((40, 0, 10)), "widths"),
    ],
)
def test_impossible_sizes_are_refused(construct, message):
    with pytest.raises(ValueError, match=message):
        construct()


# ---- the dense twin ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONVS)
@pytest.mark.parametrize("init", ["he", "pytorch"])
def test_the_dense_twin_is_the_same_function(name, init):
    network, x_BL = build(name, seed=1, init=init), torch.tensor(canonical().test.x_BL)
    single = (dense_twin(network)(x_BL) - network(x_BL)).detach().abs().max()
    same_answers = dense_twin(network)(x_BL).argmax(1) == network(x_BL).argmax(1)
    network.double()
    double = (dense_twin(network)(x_BL.double()) - network(x_BL.double())).detach().abs().max()

    assert float(single) < 1e-4
    assert float(double) < 1e-12
    assert bool(same_answers.all())


@pytest.mark.parametrize("name", CONVS)
def test_the_dense_twin_has_the_shape_of_the_baseline(name):
    baseline = build(ARCHITECTURES[name].baseline, seed=0)
    twin = dense_twin(build(name, seed=0))

    assert {key: value.shape for key, value in state_arrays(twin).items()} == {
        key: value.shape for key, value in state_arrays(baseline).items()
    }


def test_most_of_the_dense_twin_is_zero():
    # pytorch init, because he leaves the biases at 0
    twin = dense_twin(build("conv", seed=0, init="pytorch"))

    assert sum(np.count_nonzero(array) for array in state_arrays(twin).values()) == 10_720
    assert parameter_count(twin) == 59_065


def test_the_dense_twin_keeps_dtype_and_mode_and_shares_no_memory():
    network = build("conv", seed=0).double().eval()
    twin = dense_twin(network)
    with torch.no_grad():
        network.linear.weight.zero_()

    assert twin.output.weight.dtype == torch.float64
    assert not twin.training
    assert float(twin.output.weight.detach().abs().max()) > 0


# ---- hashes ------------------------------------------------------------------------------------------------------


def test_the_hash_sees_names_shapes_and_every_bit():
    state = state_arrays(build("conv", seed=0))
    reference = weights_sha256(state)

    renamed = {("conv9.bias" if key == "conv1.bias" else key): value for key, value in state.items()}
    reshaped = {**state, "linear.weight": state["linear.weight"].reshape(60, 10)}
    flipped = {key: value.copy() for key, value in state.items()}
    flipped["conv1.weight"][0, 0, 0] = np.nextafter(flipped["conv1.weight"][0, 0, 0], np.float32(9))

    assert len({reference, *(weights_sha256(other) for other in (renamed, reshaped, flipped))}) == 4


def test_the_hash_is_the_same_for_module_tensors_and_arrays_in_any_order():
    network = build("fc", seed=0)
    backwards = dict(reversed(state_arrays(network).items()))

    assert weights_sha256(network) == weights_sha256(network.state_dict()) == weights_sha256(backwards)


def test_state_arrays_are_copies():
    network = build("conv", seed=0)
    arrays = state_arrays(network)
    arrays["conv1.bias"][:] = 7

    assert float(network.conv1.bias.detach().abs().max()) == 0
