"""Early stopping: the weights of the lowest validation loss, whatever happens on the way."""

from __future__ import annotations

import pytest

from models.data.dataset import Dataset, fresh
from models.errors import TrainingInterrupted
from tests.models.short_runs import early, stop_at

pytest.importorskip("torch")

from models.training.loop import train

pytestmark = pytest.mark.needs_torch


def test_early_stopping_returns_to_the_lowest_validation_loss(small, engine):
    trained = train(early(early_stopping_patience=3), small, engine=engine)
    losses = {event.step: event.loss for event in trained.history if event.split == "validation"}

    assert max(losses) < 3_000
    assert trained.steps == min(losses, key=losses.get) == max(losses) - 3 * 20
    assert trained.weights_sha256 == train(early(steps=trained.steps), small, engine=engine).weights_sha256


def test_the_test_set_decides_nothing(small):
    other = Dataset.of(small.train, fresh(70, seed=9))
    first, second = (train(early(early_stopping_patience=3), data) for data in (small, other))

    assert first.weights_sha256 == second.weights_sha256
    assert first.steps == second.steps
    assert first.history[-1] != second.history[-1]


def test_early_stopping_survives_an_interruption(small, tmp_path, engine):
    chosen = early(early_stopping_patience=3)
    uninterrupted = train(chosen, small, engine=engine)
    with pytest.raises(TrainingInterrupted):
        train(chosen, small, checkpoint_dir=tmp_path, stop=stop_at(uninterrupted.steps + 30), engine=engine)
    resumed = train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine)

    assert (resumed.weights_sha256, resumed.steps) == (uninterrupted.weights_sha256, uninterrupted.steps)
    again = train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine)
    assert again.weights_sha256 == uninterrupted.weights_sha256
