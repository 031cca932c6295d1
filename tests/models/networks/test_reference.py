"""The NumPy reference against hand-made numbers and against torch in float64."""

from __future__ import annotations

import numpy as np
import pytest

from models.networks import reference
from models.networks.architectures import ARCHITECTURES, Architecture

TINY = Architecture(name="tiny", title="", parameters=15, kind="fully_connected", widths=(2, 3, 2))


def weights_for(spec: Architecture, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    if spec.channels is not None:
        c = spec.channels
        shapes = {"conv1": (c, 1, 3), "conv2": (c, c, 3), "conv3": (c, c, 3), "linear": (10, 4 * c)}
    else:
        names = [*(f"hidden{i}" for i in range(1, len(spec.widths) - 1)), "output"]
        shapes = {name: (o, i) for name, i, o in zip(names, spec.widths, spec.widths[1:], strict=False)}
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = (random.standard_normal(shape) / 4).astype(np.float32)
        weights[f"{name}.bias"] = random.standard_normal(shape[0]).astype(np.float32)
    return weights


def test_fully_connected_by_hand():
    weights = {
        "hidden1.weight": np.array([[1, 2], [-1, 0], [0.5, -0.5]], np.float32),
        "hidden1.bias": np.array([0, 1, 0.25], np.float32),
        "output.weight": np.array([[1, 1, 1], [2, 0, -4]], np.float32),
        "output.bias": np.array([10, 20], np.float32),
    }
    # Hidden units of (3, 1): relu(5, -2, 1.25) = (5, 0, 1.25).
    logits_BK = reference.logits(TINY, weights, np.array([[3, 1]], np.float32))
    np.testing.assert_array_equal(logits_BK, [[16.25, 25.0]])


def test_convolution_by_hand():
    """One channel that passes every second sample, so that the answer can be read off."""
    spec = Architecture(name="one", title="", parameters=0, kind="conv", channels=1)
    weights = {f"conv{i}.weight": np.array([[[1, 0, 0]]], np.float32) for i in (1, 2, 3)}
    weights |= {f"conv{i}.bias": np.zeros(1, np.float32) for i in (1, 2, 3)}
    weights |= {"linear.weight": np.eye(10, 4, dtype=np.float32), "linear.bias": np.full(10, 0.5, np.float32)}
    x_BL = np.arange(40, dtype=np.float32)[np.newaxis]
    logits_BK = reference.logits(spec, weights, x_BL)
    # Three strides of 2: samples 0, 8, 16, 24 arrive at the linear layer.
    np.testing.assert_array_equal(logits_BK[0], [0.5, 8.5, 16.5, 24.5, *[0.5] * 6])


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_answers_are_float64_and_probabilities_sum_to_one(name):
    x_BL = np.random.default_rng(1).standard_normal((5, 40)).astype(np.float32)
    weights = weights_for(ARCHITECTURES[name])
    logits_BK = reference.logits(ARCHITECTURES[name], weights, x_BL)
    probabilities_BK = reference.probabilities(ARCHITECTURES[name], weights, x_BL)
    assert logits_BK.shape == probabilities_BK.shape == (5, 10)
    assert logits_BK.dtype == probabilities_BK.dtype == np.float64
    np.testing.assert_allclose(probabilities_BK.sum(axis=1), 1, rtol=1e-14)
    np.testing.assert_array_equal(probabilities_BK.argmax(axis=1), logits_BK.argmax(axis=1))


@pytest.mark.parametrize("batch", [1, 3])
def test_rows_do_not_depend_on_the_batch(batch):
    x_BL = np.random.default_rng(2).standard_normal((3, 40)).astype(np.float32)
    weights = weights_for(ARCHITECTURES["conv"])
    together = reference.logits(ARCHITECTURES["conv"], weights, x_BL)
    apart = np.concatenate(
        [reference.logits(ARCHITECTURES["conv"], weights, x_BL[i : i + batch]) for i in range(0, 3, batch)]
    )
    np.testing.assert_allclose(apart, together, rtol=0, atol=1e-12)


@pytest.mark.needs_torch
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_torch_in_float64_agrees(name):
    torch = pytest.importorskip("torch")
    from models.networks.modules import build, state_arrays

    network = build(name, seed=3, init="pytorch").double()
    x_BL = np.random.default_rng(3).standard_normal((20, 40)).astype(np.float32)
    with torch.inference_mode():
        expected = network(torch.from_numpy(x_BL).double()).numpy()
    # Another order of the sums, nothing else: a few hundred roundings of 1.1e-16.
    answer = reference.logits(ARCHITECTURES[name], state_arrays(network), x_BL)
    np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("conv2.bias"), "conv2.bias"),
        (lambda w: w.update(extra=np.zeros(1)), "extra"),
    ],
)
def test_weights_that_do_not_fit_are_refused(change, message):
    weights = weights_for(ARCHITECTURES["conv"])
    change(weights)
    with pytest.raises(ValueError, match=message):
        reference.logits(ARCHITECTURES["conv"], weights, np.zeros((1, 40), np.float32))


def test_weights_of_another_shape_are_refused():
    weights = weights_for(ARCHITECTURES["conv"])
    weights["conv2.weight"] = weights["conv2.weight"][:, :7]
    with pytest.raises(ValueError, match="channels"):
        reference.logits(ARCHITECTURES["conv"], weights, np.zeros((1, 40), np.float32))
