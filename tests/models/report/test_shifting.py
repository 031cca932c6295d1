"""What the demonstration claims, on random nets: it is the architecture that is equivariant, whatever was learnt."""

from __future__ import annotations

import numpy as np
import pytest

from models.data.dataset import canonical
from models.report.shifting import MEASURED, SHIFTS, difference_to_moved, first_layer, measure, moved, without_ramp
from tests.models.report.subjects import answered, subject

X_BL = canonical().test.x_BL[:8]


@pytest.mark.parametrize("shift", [shift for shift in SHIFTS if shift % 2 == 0])
def test_the_map_of_a_convolution_moves_with_its_input_to_the_bit(shift):
    conv = subject("conv")
    before, after = (first_layer(conv, moved(X_BL, by)) for by in (0, shift))
    for before_CL, after_CL in zip(before, after, strict=True):
        assert difference_to_moved(before_CL, after_CL, shift) == 0
    if shift:
        assert np.abs(before - after).max() > 0.1


@pytest.mark.parametrize("shift", [-4, 2, 10])
def test_the_units_of_a_fully_connected_net_do_not(shift):
    fc = subject("fc")
    before, after = (first_layer(fc, moved(X_BL, by))[0] for by in (0, shift))
    assert before.shape == (15, 19)
    assert difference_to_moved(before, after, shift) > 0.3 * before.max()


@pytest.mark.parametrize("shift", [-3, 1, 9])
def test_an_odd_shift_falls_between_two_steps(shift):
    conv = subject("conv")
    assert difference_to_moved(*(first_layer(conv, moved(X_BL[:1], by))[0] for by in (0, shift)), shift) is None


def test_a_convolution_in_float64_is_that_of_the_matrices():
    conv = subject("conv")
    np.testing.assert_allclose(first_layer(conv, X_BL), conv.hidden(X_BL)[0], atol=1e-5)


def test_ends_meet_without_the_ramp():
    level_BL = without_ramp(X_BL)
    np.testing.assert_allclose(level_BL[:, :3].mean(axis=1), level_BL[:, -3:].mean(axis=1), atol=0.2)


def test_figures_count_what_is_right_and_what_stays():
    conv = subject("conv")
    figures = measure(conv, answered(conv))
    at = MEASURED.index(0)
    assert figures.agreement_S[at] == 1
    assert figures.accuracy_S[at] == pytest.approx(0.8)
    others = [value for index, value in enumerate(figures.agreement_S) if index != at]
    assert all(0 < value < 1 for value in others)
    assert set(MEASURED) <= set(SHIFTS)
