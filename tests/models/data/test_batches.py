from __future__ import annotations

import numpy as np
import pytest

from models.data.augmentation import distort
from models.data.batches import Epochs
from models.data.dataset import fresh
from models.training.recipes import recipe


@pytest.fixture(scope="module")
def examples():
    return fresh(230, seed=1)


def test_a_batch_is_a_function_of_seed_and_step(examples):
    chosen = recipe("best", batch_size=50, seed=3)
    straight = Epochs(examples, chosen, distort)
    all_of_two = [straight.batches(0, 4), straight.batches(4, 4)]
    jumping = Epochs(examples, chosen, distort)

    for step in (5, 0, 7, 3):
        batch, epoch = jumping.batches(step, 1), all_of_two[step // 4]
        assert np.array_equal(batch.x_SBL[0], epoch.x_SBL[step % 4])
        assert np.array_equal(batch.y_SB[0], epoch.y_SB[step % 4])
    assert not np.array_equal(all_of_two[0].x_SBL, all_of_two[1].x_SBL)


def test_an_epoch_has_each_example_once_at_most(examples):
    batches = Epochs(examples, recipe("lecture", batch_size=50), distort).batches(0, 4)
    rows = batches.x_SBL.reshape(200, 40)
    order = np.random.default_rng([0, 0]).permutation(230)[:200]

    assert len(batches) == 4
    assert np.array_equal(rows, examples.x_BL[order])
    assert np.array_equal(batches.y_SB.ravel(), examples.y_B[order])
    assert len(np.unique(rows, axis=0)) == 200


def test_what_is_left_of_an_epoch(examples):
    epochs = Epochs(examples, recipe("lecture", batch_size=50), distort)

    assert [epochs.steps_left(step) for step in range(6)] == [4, 3, 2, 1, 4, 3]
    assert [epochs.is_first_of_epoch(step) for step in range(6)] == [True, False, False, False, True, False]


def test_distortions_are_new_each_epoch_and_applied_by_whoever_is_given(examples):
    seen = []

    def remember(x_NL, distortions):
        seen.append(distortions.noise_BL)
        return x_NL

    epochs = Epochs(examples, recipe("best", batch_size=50), remember)
    for step in range(8):
        epochs.batches(step, 1)

    assert len(seen) == 2
    assert not np.array_equal(seen[0], seen[1])
