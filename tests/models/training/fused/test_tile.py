from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("numba")

from models.training.fused.compiled import inlined
from models.training.fused.passes import product
from models.training.fused.tile import (
    COLUMNS,
    ROWS,
    add,
    positive,
    repeated,
    where_positive,
    write,
    write_total,
    zeros,
)

DEPTH = 2, 5


@inlined
def _products(a, b, bias, h, out):
    tile = product(repeated(bias, 3), a, 1, 10, 5, 1, b, 0, 5 * COLUMNS, COLUMNS, 2, 5)
    write(tile, out, 0, COLUMNS)
    write(positive(tile), out, ROWS * COLUMNS, COLUMNS)
    write(where_positive(tile, h, 2, COLUMNS + 1), out, 2 * ROWS * COLUMNS, COLUMNS)
    write(add(tile, h, 2, COLUMNS + 1), out, 3 * ROWS * COLUMNS, COLUMNS)
    write_total(tile, out, 4 * ROWS * COLUMNS)
    write(zeros(), out, (4 * ROWS + 1) * COLUMNS, COLUMNS)


def test_every_operation_is_what_it_says():
    random = np.random.default_rng(0)
    a = random.standard_normal(1 + ROWS * 10).astype(np.float32)
    b = random.standard_normal(10 * COLUMNS).astype(np.float32)
    bias = random.standard_normal(3 + COLUMNS).astype(np.float32)
    h = random.standard_normal(2 + ROWS * (COLUMNS + 1)).astype(np.float32)
    out = np.full((5 * ROWS + 1) * COLUMNS + 1, 7, np.float32)
    _products(a, b, bias, h, out)

    tile = a[1:].reshape(ROWS, 10) @ b.reshape(10, COLUMNS) + bias[3:]
    h_tile = h[2:].reshape(ROWS, COLUMNS + 1)[:, :COLUMNS]
    expected = [tile, np.maximum(tile, 0), np.where(h_tile > 0, tile, 0), tile + h_tile, tile.sum(0), 0 * tile]
    assert np.allclose(out[:-1], np.concatenate([part.ravel() for part in expected]), atol=1e-5)
    assert out[-1] == 7
