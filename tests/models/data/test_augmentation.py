from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.data.augmentation import Augmentation, estimate_ramp, move, ramp_line
from models.data.dataset import canonical
from models.errors import InvalidRecipe

OFF = {"shift_samples": 0.0, "stretch": 0.0, "scale": 0.0, "ramp": 0.0, "noise": 0.0}


@pytest.fixture(scope="module")
def batch() -> np.ndarray:
    return canonical().train.x_BL[:200]


def column(value: float, batch: int) -> np.ndarray:
    return np.full((batch, 1), value, np.float32)


def test_without_strength_nothing_changes(batch):
    assert np.array_equal(Augmentation(**OFF).apply(batch, np.random.default_rng(0)), batch)


def test_shape_dtype_and_input_are_kept(batch):
    before = batch.copy()
    augmented = Augmentation().apply(batch, np.random.default_rng(0))

    assert augmented.shape == batch.shape
    assert augmented.dtype == np.float32
    assert np.isfinite(augmented).all()
    assert np.array_equal(batch, before)
    assert not np.array_equal(augmented, batch)


def test_the_generator_decides_everything(batch):
    def once(seed: int) -> np.ndarray:
        return Augmentation().apply(batch, np.random.default_rng(seed))

    assert np.array_equal(once(1), once(1))
    assert not np.array_equal(once(1), once(2))


def test_the_number_of_draws_does_not_depend_on_the_strengths(batch):
    strong, off = np.random.default_rng(1), np.random.default_rng(1)
    Augmentation().apply(batch, strong)
    Augmentation(**OFF).apply(batch, off)

    assert strong.random() == off.random()


@pytest.mark.parametrize("shift", [-41, -4, -1, 0, 1, 3, 40])
def test_a_whole_shift_goes_round(batch, shift):
    moved = move(batch, column(shift, len(batch)), column(1, len(batch)))

    assert np.allclose(moved, np.roll(batch, shift, axis=1), atol=1e-5)


def test_half_a_shift_is_the_mean_of_neighbours(batch):
    moved = move(batch, column(0.5, len(batch)), column(1, len(batch)))

    assert np.allclose(moved, (batch + np.roll(batch, 1, axis=1)) / 2, atol=1e-5)


def test_stretch_is_about_the_middle():
    line_BL = np.arange(40, dtype=np.float32)[None] - 19.5
    stretched = move(line_BL, column(0, 1), column(2, 1))

    assert np.allclose(stretched, line_BL / 2, atol=1e-5)


def test_the_ramp_is_estimated_from_the_ends():
    ramps = np.array([[-3.0], [0.0], [2.0]], np.float32) * ramp_line(40)
    estimated = estimate_ramp(ramps)

    # the means of three samples at either end lie 37/39 of the length apart
    assert np.allclose(estimated, ramps * 37 / 39, atol=1e-5)


def test_a_shift_moves_the_signal_and_leaves_the_ramp():
    ramp_BL = 2 * ramp_line(40)[None]
    bump_BL = np.zeros((1, 40), np.float32)
    bump_BL[0, 18:22] = 1
    random = np.random.default_rng(4)
    augmented = Augmentation(**{**OFF, "shift_samples": 4.0}).apply(np.repeat(ramp_BL + bump_BL, 100, 0), random)

    # The bump is found elsewhere, but the ends, where a shifted ramp would show its step, stay where they were.
    assert np.abs(augmented[:, [0, -1]] - ramp_BL[:, [0, -1]]).max() < 0.15
    assert np.ptp((augmented - ramp_BL).argmax(axis=1)) >= 4


@pytest.mark.parametrize("field", list(OFF))
def test_each_effect_stays_within_its_bound(batch, field):
    strength = {"shift_samples": 4.0, "stretch": 0.15, "scale": 0.15, "ramp": 2.0, "noise": 0.08}[field]
    augmented = Augmentation(**{**OFF, field: strength}).apply(batch, np.random.default_rng(0))
    difference = augmented - batch

    assert np.abs(difference).max() > 0
    if field == "scale":
        ratio = augmented[np.abs(batch) > 0.1] / batch[np.abs(batch) > 0.1]
        assert 0.85 - 1e-4 <= ratio.min() < 0.9
        assert 1.1 < ratio.max() <= 1.15 + 1e-4
    elif field == "ramp":
        slopes = (difference[:, -1] - difference[:, 0]).astype(float)
        assert np.abs(slopes).max() <= 2 + 1e-5
        assert slopes.min() < -1 < 1 < slopes.max()
        assert np.allclose(difference, slopes[:, None] * ramp_line(40), atol=1e-5)
    elif field == "noise":
        assert difference.std() == pytest.approx(0.08, rel=0.05)
        assert abs(difference.mean()) < 0.005
    else:
        # moving values about cannot leave the range of the ramp-free signal
        level = batch - estimate_ramp(batch)
        moved = augmented - estimate_ramp(batch)
        assert (moved.max(axis=1) <= level.max(axis=1) + 1e-4).all()
        assert (moved.min(axis=1) >= level.min(axis=1) - 1e-4).all()


@settings(max_examples=50, deadline=None)
@given(shift=st.floats(-100, 100, width=32), stretch=st.floats(0.25, 4, width=32))
def test_moving_never_leaves_the_range_of_the_signal(shift, stretch):
    signal = canonical().train.x_BL[:5]
    moved = move(signal, column(shift, 5), column(stretch, 5))

    assert np.isfinite(moved).all()
    assert moved.max() <= signal.max() + 1e-4
    assert moved.min() >= signal.min() - 1e-4


@pytest.mark.parametrize("field", list(OFF))
@pytest.mark.parametrize("value", [-0.1, 1e9, float("nan"), "much", True])
def test_strengths_out_of_bounds_are_named(field, value):
    with pytest.raises(InvalidRecipe, match=f"augmentation.{field}") as caught:
        Augmentation(**{field: value})

    assert repr(value) in str(caught.value)
