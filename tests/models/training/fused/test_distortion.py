from __future__ import annotations

import numpy as np
import pytest

from models.data.augmentation import Augmentation, distort
from models.data.dataset import canonical

pytest.importorskip("numba")

from models.training.fused import distortion


@pytest.mark.parametrize(
    "augmentation",
    [
        Augmentation(),
        Augmentation(shift_samples=40.0, stretch=1.0, scale=1.0, ramp=100.0, noise=10.0),
        Augmentation(shift_samples=0.0, stretch=0.0),
        Augmentation(shift_samples=3.0, stretch=0.0, noise=0.0),
    ],
)
@pytest.mark.parametrize("seed", range(3))
def test_the_batch_is_that_of_numpy_to_the_bit(augmentation, seed):
    x_BL = canonical().train.x_BL
    distortions = augmentation.draw(len(x_BL), x_BL.shape[1], np.random.default_rng(seed))
    before = x_BL.copy()
    distorted = distortion.distort(x_BL, distortions)

    assert np.array_equal(distorted, distort(x_BL, distortions))
    assert distorted.dtype == np.float32
    assert np.array_equal(x_BL, before)
