from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sweeps.spread import Spread, student_t_quantile

# Tables of Student's distribution, to their last digit: degrees of freedom -> quantiles of 0.90, 0.975, 0.995.
TABLE = {
    1: (3.078, 12.706, 63.657),
    2: (1.886, 4.303, 9.925),
    3: (1.638, 3.182, 5.841),
    4: (1.533, 2.776, 4.604),
    9: (1.383, 2.262, 3.250),
    10: (1.372, 2.228, 3.169),
    29: (1.311, 2.045, 2.756),
    120: (1.289, 1.980, 2.617),
}


@pytest.mark.parametrize("degrees_of_freedom", TABLE)
def test_quantiles_are_those_of_the_tables(degrees_of_freedom):
    for probability, expected in zip((0.90, 0.975, 0.995), TABLE[degrees_of_freedom], strict=True):
        assert student_t_quantile(probability, degrees_of_freedom) == pytest.approx(expected, abs=5.1e-4)


def test_quantiles_in_closed_form():
    assert student_t_quantile(0.975, 1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert student_t_quantile(0.975, 2) == pytest.approx(2 * 0.475 * math.sqrt(2 / (4 * 0.975 * 0.025)), rel=1e-12)
    assert student_t_quantile(0.975, 2_001) == pytest.approx(1.9612, abs=1e-4)  # nearly normal
    assert student_t_quantile(0.5, 7) == pytest.approx(0, abs=1e-12)
    assert student_t_quantile(0.025, 5) == -student_t_quantile(0.975, 5)


def test_quantiles_are_those_of_scipy():
    stats = pytest.importorskip("scipy.stats")
    for degrees_of_freedom in (1, 2, 3, 4, 5, 8, 13, 30, 59):
        for probability in (0.01, 0.3, 0.6, 0.95, 0.975, 0.9995):
            expected = stats.t.ppf(probability, degrees_of_freedom)
            assert student_t_quantile(probability, degrees_of_freedom) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("probability", "degrees_of_freedom"), [(0, 3), (1, 3), (math.nan, 3), (0.5, 0)])
def test_what_has_no_quantile(probability, degrees_of_freedom):
    with pytest.raises(ValueError, match="must be"):
        student_t_quantile(probability, degrees_of_freedom)


def test_a_spread_worked_out_by_hand():
    spread = Spread.of([0.96, 0.95, 0.97])
    assert spread.mean == pytest.approx(0.96)
    assert spread.deviation == pytest.approx(0.01)
    half = 4.302652729749464 * 0.01 / math.sqrt(3)
    assert spread.interval == pytest.approx((0.96 - half, 0.96 + half))
    assert (spread.lowest, spread.highest, spread.count) == (0.95, 0.97, 3)
    assert spread.to_dict()["interval"] == list(spread.interval)


def test_one_figure_has_no_spread_and_none_is_an_error():
    assert Spread.of([0.5]) == Spread(1, 0.5, 0.5, 0.5, None, None)
    assert Spread.of([0.5]).to_dict()["interval"] is None
    with pytest.raises(ValueError, match="at least 1"):
        Spread.of([])


@given(st.lists(st.floats(0, 1), min_size=2, max_size=20))
def test_a_spread_is_what_numpy_says(values):
    spread = Spread.of(values)
    assert spread.mean == pytest.approx(np.mean(values), abs=1e-12)
    assert spread.deviation == pytest.approx(np.std(values, ddof=1), abs=1e-12)
    assert spread.interval[0] <= spread.mean <= spread.interval[1]


def test_the_interval_holds_the_truth_as_often_as_it_says():
    samples = np.random.default_rng(0).normal(0.9, 0.02, (2000, 4))
    inside = np.mean([low <= 0.9 <= high for low, high in (Spread.of(list(row)).interval for row in samples)])
    assert inside == pytest.approx(0.95, abs=0.01)
