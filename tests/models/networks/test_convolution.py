from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.networks.convolution import (
    ConvLayer,
    convolve_1d,
    convolve_2d,
    identity,
    linear,
    output_length,
    receptive_field,
    relu,
    softmax,
    toeplitz,
    weight_count,
)


@pytest.mark.parametrize(
    ("length", "kernel", "options", "expected"),
    [
        (40, 3, {}, 38),  # T - M + 1
        (40, 40, {}, 1),
        (40, 3, {"padding": 1}, 40),  # T - M + 2P + 1
        (40, 5, {"padding": 2}, 40),
        (40, 3, {"padding": 2}, 42),
        (40, 3, {"stride": 2}, 19),
        (19, 3, {"stride": 2}, 9),
        (9, 3, {"stride": 2}, 4),
        (40, 3, {"dilation": 2}, 36),
        (7, 3, {"dilation": 3}, 1),
        (10, 3, {"stride": 3, "padding": 1, "dilation": 2}, 3),
        (1, 1, {}, 1),
        (1, 3, {"padding": 1}, 1),
    ],
)
def test_output_length(length, kernel, options, expected):
    assert output_length(length, kernel, **options) == expected


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 5), st.integers(1, 4))
def test_output_length_counts_the_positions_that_fit(length, kernel, stride, padding, dilation):
    starts = range(-padding, length + padding, stride)
    fitting = sum(start + dilation * (kernel - 1) <= length + padding - 1 for start in starts)

    if fitting:
        assert output_length(length, kernel, stride=stride, padding=padding, dilation=dilation) == fitting
    else:
        with pytest.raises(ValueError, match="length must be at least"):
            output_length(length, kernel, stride=stride, padding=padding, dilation=dilation)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0, "kernel": 3}, "length must be at least 1, got 0"),
        ({"length": 5, "kernel": 0}, "kernel must be at least 1, got 0"),
        ({"length": 5, "kernel": 3, "stride": 0}, "stride must be at least 1, got 0"),
        ({"length": 5, "kernel": 3, "padding": -1}, "padding must be at least 0, got -1"),
        ({"length": 5, "kernel": 3, "dilation": 0}, "dilation must be at least 1, got 0"),
        ({"length": 2, "kernel": 3}, "length must be at least 3 for kernel 3, .* got 2"),
        ({"length": 2, "kernel": 3, "padding": 1, "dilation": 3}, "length must be at least 5"),
    ],
)
def test_output_length_names_field_value_and_bound(arguments, message):
    with pytest.raises(ValueError, match=message):
        output_length(**arguments)


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], 1),
        ([ConvLayer(3)], 3),
        ([ConvLayer(3), ConvLayer(3)], 5),
        ([ConvLayer(3), ConvLayer(3), ConvLayer(3)], 7),
        ([ConvLayer(3, stride=2)] * 3, 15),
        ([ConvLayer(3, dilation=2)], 5),
        ([ConvLayer(3, padding=1)] * 2, 5),
        ([ConvLayer(1)] * 4, 1),
        ([ConvLayer(2, stride=2), ConvLayer(3, dilation=2)], 10),
    ],
)
def test_receptive_field(layers, expected):
    assert receptive_field(layers) == expected


@pytest.mark.parametrize(
    "layers",
    [[ConvLayer(3, stride=2)] * 3, [ConvLayer(3), ConvLayer(2, stride=3), ConvLayer(3, dilation=2)], [ConvLayer(5)]],
)
def test_receptive_field_is_what_an_output_can_see(layers):
    length = 80
    x = np.zeros((length, 1, length))
    x[:, 0] = np.eye(length)  # one impulse in each example
    for layer in layers:
        x = convolve_1d(x, np.ones((1, 1, layer.kernel)), stride=layer.stride, dilation=layer.dilation)
    seen = np.flatnonzero(x[:, 0, 0])

    assert seen.max() - seen.min() + 1 == receptive_field(layers)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((1, 15, 3), 60),
        ((15, 15, 3), 690),
        ((3, 4, (3, 3)), 112),
        ((3, 4, (2, 5)), 124),
        ((1, 1, 1), 2),
    ],
)
def test_weight_count(arguments, expected):
    assert weight_count(*arguments) == expected
    assert weight_count(*arguments, bias=False) == expected - arguments[1]


def test_weight_count_of_the_lecture_net():
    assert weight_count(1, 15, 3) + 2 * weight_count(15, 15, 3) + weight_count(60, 10, 1) == 2050


@pytest.mark.parametrize(
    ("arguments", "field"), [((0, 1, 3), "in_channels"), ((1, 0, 3), "out_channels"), ((1, 1, (3, 0)), "kernel")]
)
def test_weight_count_names_what_is_out_of_bounds(arguments, field):
    with pytest.raises(ValueError, match=f"{field} must be at least 1, got 0"):
        weight_count(*arguments)


# ---- the equations -----------------------------------------------------------------------------------------------


def test_a_convolution_by_hand():
    x = np.array([[[1.0, 2, 3, 4]]])
    weight, bias = np.array([[[1.0, 0, -1]]]), np.array([0.5])

    assert convolve_1d(x, weight, bias).tolist() == [[[-1.5, -1.5]]]
    assert convolve_1d(x, weight, bias, padding=1).tolist() == [[[-1.5, -1.5, -1.5, 3.5]]]
    assert convolve_1d(x, weight, bias, padding=1, stride=2).tolist() == [[[-1.5, -1.5]]]
    assert convolve_1d(x, weight, bias, padding=1, activation=relu).tolist() == [[[0, 0, 0, 3.5]]]
    assert convolve_1d(x, weight[:, :, :2], dilation=3).tolist() == [[[1.0]]]


def test_channels_are_summed_by_hand():
    x = np.array([[[1.0, 2, 3], [10, 20, 30]]])
    weight = np.array([[[1.0, 1], [0, 2]], [[0, 0], [1, 0]]])

    assert convolve_1d(x, weight, np.array([0.0, 1.0])).tolist() == [[[43, 65], [11, 21]]]


def test_the_equation_of_the_lecture_in_one_dimension():
    random = np.random.default_rng(0)
    x, w, beta = random.standard_normal(11), random.standard_normal(3), 0.3
    h = convolve_1d(x[None, None], w[None, None], np.array([beta]), padding=1, activation=relu)[0, 0]

    def x_at(i: int) -> float:  # counts from 1, as the lecture does; zero outside
        return x[i - 1] if 1 <= i <= len(x) else 0.0

    for i in range(1, len(x) + 1):
        total = beta + sum(w[j - 1] * x_at(i + j - 2) for j in (1, 2, 3))
        assert h[i - 1] == pytest.approx(max(0.0, total), abs=1e-14)


def test_the_equation_of_the_lecture_in_two_dimensions():
    random = np.random.default_rng(1)
    x, w, beta = random.standard_normal((6, 5)), random.standard_normal((3, 3)), -0.2
    h = convolve_2d(x[None, None], w[None, None], np.array([beta]), padding=1, activation=relu)[0, 0]

    def x_at(i: int, j: int) -> float:
        return x[i - 1, j - 1] if 1 <= i <= x.shape[0] and 1 <= j <= x.shape[1] else 0.0

    for i, j in itertools.product(range(1, 7), range(1, 6)):
        total = beta + sum(w[m - 1, n - 1] * x_at(i + m - 2, j + n - 2) for m in (1, 2, 3) for n in (1, 2, 3))
        assert h[i - 1, j - 1] == pytest.approx(max(0.0, total), abs=1e-14)


def test_convolution_is_equivariant_to_translation():
    random = np.random.default_rng(2)
    x = np.zeros((1, 1, 30))
    x[0, 0, 8:16] = random.standard_normal(8)
    weight = random.standard_normal((4, 1, 3))

    assert np.array_equal(
        convolve_1d(np.roll(x, 5, axis=2), weight, padding=1), np.roll(convolve_1d(x, weight, padding=1), 5, axis=2)
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_stays_in_the_dtype_of_the_input(dtype):
    x, w, b = np.ones((2, 1, 5), dtype), np.ones((3, 1, 3)), np.ones(3)

    assert convolve_1d(x, w, b, activation=relu).dtype == dtype
    assert convolve_2d(x[:, None], w[:, None, :, :1], b).dtype == dtype
    assert linear(x[:, 0], np.ones((4, 5)), np.ones(4)).dtype == dtype
    assert softmax(x).dtype == dtype


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: convolve_1d(np.ones((2, 5)), np.ones((1, 1, 3))), "x must have 3 dimensions"),
        (lambda: convolve_1d(np.ones((2, 1, 5)), np.ones((1, 3))), "weight must have 3 dimensions"),
        (lambda: convolve_1d(np.ones((2, 2, 5)), np.ones((1, 1, 3))), "x must have 1 channels, .* got 2"),
        (lambda: convolve_1d(np.ones((2, 1, 5)), np.ones((2, 1, 3)), np.ones(3)), r"bias must have shape \(2,\)"),
        (lambda: convolve_1d(np.ones((2, 1, 2)), np.ones((1, 1, 3))), "length must be at least 3"),
        (lambda: convolve_2d(np.ones((2, 1, 5)), np.ones((1, 1, 3, 3))), "x must have 4 dimensions"),
        (lambda: convolve_2d(np.ones((1, 2, 5, 5)), np.ones((1, 3, 3, 3))), "x must have 3 channels, .* got 2"),
        (lambda: linear(np.ones((2, 3)), np.ones((4, 5)), np.ones(4)), "x must have 5 features"),
        (lambda: toeplitz(np.ones((2, 3)), None, 10), "weight must have 3 dimensions"),
    ],
)
def test_shapes_that_disagree_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_relu_and_identity():
    x = np.array([-2.0, -0.0, 0.0, 3.0])

    assert relu(x).tolist() == [0, 0, 0, 3]
    assert identity(x) is x


def test_softmax_by_hand_and_at_extremes():
    assert softmax(np.array([[0.0, math.log(3)]])).tolist() == [[pytest.approx(0.25), pytest.approx(0.75)]]
    assert softmax(np.array([[1e4, -1e4]])).tolist() == [[1.0, 0.0]]
    assert softmax(np.array([[-1e300, -1e300]])).tolist() == [[0.5, 0.5]]
    assert np.allclose(softmax(np.random.default_rng(0).standard_normal((7, 10))).sum(axis=1), 1)


def test_toeplitz_by_hand():
    matrix, bias = toeplitz(np.array([[[1.0, 2, 3]]]), np.array([7.0]), 4, padding=1)

    assert matrix.tolist() == [[2, 3, 0, 0], [1, 2, 3, 0], [0, 1, 2, 3], [0, 0, 1, 2]]
    assert bias.tolist() == [7, 7, 7, 7]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(0, 3),
    st.integers(1, 2),
    st.integers(8, 15),
)
def test_a_convolution_is_a_fully_connected_layer(channels, out_channels, kernel, stride, padding, dilation, length):
    random = np.random.default_rng(channels + 10 * length)
    x = random.standard_normal((3, channels, length))
    weight, bias = random.standard_normal((out_channels, channels, kernel)), random.standard_normal(out_channels)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    matrix, dense_bias = toeplitz(weight, bias, length, **options)

    expected = convolve_1d(x, weight, bias, **options)
    assert np.allclose(linear(x.reshape(3, -1), matrix, dense_bias), expected.reshape(3, -1), atol=1e-12)


# ---- against torch -----------------------------------------------------------------------------------------------

GRID = list(itertools.product([1, 2, 3], [1, 2], [0, 1, 2], [1, 2]))


@pytest.mark.needs_torch
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), GRID)
def test_one_dimension_against_torch(kernel, stride, padding, dilation):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(kernel)
    x, weight, bias = random.standard_normal((2, 3, 9)), random.standard_normal((4, 3, kernel)), random.random(4)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    expected = torch.nn.functional.conv1d(*map(torch.from_numpy, (x, weight, bias)), **options).numpy()

    assert np.abs(convolve_1d(x, weight, bias, **options) - expected).max() < 1e-13


@pytest.mark.needs_torch
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), GRID)
def test_two_dimensions_against_torch(kernel, stride, padding, dilation):
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(kernel)
    x, weight = random.standard_normal((2, 3, 7, 6)), random.standard_normal((2, 3, kernel, 2))
    bias = random.random(2)
    options = {"stride": stride, "padding": padding, "dilation": dilation}
    expected = torch.nn.functional.conv2d(*map(torch.from_numpy, (x, weight, bias)), **options).numpy()

    assert np.abs(convolve_2d(x, weight, bias, **options) - expected).max() < 1e-13
