from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

pytest.importorskip("numba")

from models.training.fused.layout import Geometry, aligned_zeros, lay_out
from models.training.fused.tile import COLUMNS, ROWS

CONV = [Geometry(3, 2, 40, 1, 15), Geometry(3, 2, 19, 15, 15), Geometry(3, 2, 9, 15, 15), Geometry(4, 1, 4, 15, 10)]
NETS = {
    "conv": (CONV, 2_050),
    "fc": ([Geometry(1, 1, 1, 40, 285), Geometry(1, 1, 1, 285, 10)], 40 * 285 + 285 + 2850 + 10),
    "tiny": ([Geometry(1, 1, 1, 2, 1), Geometry(1, 1, 1, 1, 10)], 2 + 1 + 10 + 10),
}


def test_the_geometry_is_that_of_a_convolution():
    assert [geometry.length_out for geometry in CONV] == [19, 9, 4, 1]


@pytest.mark.parametrize("batch", [1, ROWS, 100])
@pytest.mark.parametrize("name", list(NETS))
def test_every_weight_has_a_place_of_its_own(name, batch):
    geometries, parameters = NETS[name]
    layout = lay_out(geometries, batch)

    assert len(layout.place_P) == parameters == len(np.unique(layout.place_P))
    assert 0 <= layout.place_P.min() <= layout.place_P.max() < layout.weights


@pytest.mark.parametrize("batch", [1, ROWS, 100])
@pytest.mark.parametrize("name", list(NETS))
def test_whole_tiles_fit_everywhere(name, batch):
    layout = lay_out(NETS[name][0], batch)
    layers = layout.layers

    assert layout.examples % ROWS == 0
    assert layout.examples >= batch
    for layer in layers:
        assert layer["pitch_out"] % COLUMNS == 0
        assert layer["pitch_out"] >= layer["channels_out"]
        assert layer["taps"] * layer["pitch_in"] >= ROWS
        assert layer["bias_at"] == layer["weight_at"] + layer["taps"] * layer["pitch_in"] * layer["pitch_out"]
        assert layer["out_at"] + layout.examples * layer["length_out"] * layer["pitch_out"] <= layout.signals
    for layer, following in pairwise(layers):
        assert following["in_at"] == layer["out_at"]
        assert following["pitch_in"] == layer["pitch_out"]
        assert following["weight_at"] == layer["bias_at"] + layer["pitch_out"]


def test_a_weight_lies_where_the_products_read_it():
    """Channel out k, channel in c, tap t of the second layer."""
    layout = lay_out(CONV, 100)
    layer = layout.layers[1]
    first = 3 * 15 + 15
    for k, c, t in ((0, 0, 0), (14, 3, 2), (7, 14, 1)):
        place = layer["weight_at"] + (t * layer["pitch_in"] + c) * layer["pitch_out"] + k
        assert layout.place_P[first + (k * 15 + c) * 3 + t] == place


@pytest.mark.parametrize("count", [1, 16, 1000])
def test_arrays_begin_with_a_cache_line(count):
    for _ in range(5):
        array = aligned_zeros(count)

        assert array.shape == (count,)
        assert array.ctypes.data % 64 == 0
        assert not array.any()
