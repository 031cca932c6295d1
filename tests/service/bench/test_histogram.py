from __future__ import annotations

import pickle

import numpy as np
import pytest

from service.bench.histogram import Histogram


def histogram(values) -> Histogram:
    made = Histogram()
    made.add(values)
    return made


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1.0])
def test_quantiles_are_right_to_two_in_a_thousand(scale) -> None:
    values = np.random.default_rng(1).lognormal(0, 1.5, 20_000) * scale
    made = Histogram()
    for part in np.split(values, 20):
        made.add(part)
    for q in (0.0, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0):
        exact = np.quantile(values, q, method="inverted_cdf")
        assert made.quantile_s(q) == pytest.approx(exact, rel=0.002), q
    assert (made.count, made.min_s, made.max_s) == (20_000, values.min(), values.max())
    assert made.mean_s == pytest.approx(values.mean())


def test_of_nothing_there_is_nothing() -> None:
    made = histogram([])
    assert (made.count, made.quantile_s(0.5), made.mean_s, made.max_s) == (0, 0, 0, 0)


def test_one_value_is_every_quantile() -> None:
    made = histogram([0.0123])
    assert [made.quantile_s(q) for q in (0, 0.5, 1)] == [0.0123] * 3


def test_the_99th_of_a_hundred_is_not_the_largest() -> None:
    made = histogram([0.001] * 99 + [1.0])
    assert made.quantile_s(0.99) == pytest.approx(0.001, rel=0.002)
    assert made.quantile_s(0.995) == 1.0


def test_merged_is_counted_together_also_after_a_journey() -> None:
    random = np.random.default_rng(2)
    parts = [random.exponential(0.01, 1000) for _ in range(3)]
    together = Histogram()
    for part in parts:
        together.merge(pickle.loads(pickle.dumps(histogram(part))))  # noqa: S301 - our own
    at_once = histogram(np.concatenate(parts))
    assert [together.quantile_s(q) for q in (0.1, 0.9, 1)] == [at_once.quantile_s(q) for q in (0.1, 0.9, 1)]
    assert together.count == 3000


def test_what_cannot_be_is_counted_at_the_edge() -> None:
    made = histogram([-1.0, 0.0, 1e9])
    assert (made.count, made.min_s, made.max_s) == (3, 0.0, 1e9)
    assert made.quantile_s(0.5) < 1e-9


@pytest.mark.parametrize("q", [-0.1, 1.1])
def test_a_share_beyond_all_is_refused(q) -> None:
    with pytest.raises(ValueError, match="expected 0 to 1"):
        Histogram().quantile_s(q)
