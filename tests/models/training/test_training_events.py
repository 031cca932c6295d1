"""What a run tells while it goes on."""

from __future__ import annotations

import numpy as np
import pytest

from models.training import checkpoint as checkpoints
from models.training.events import CheckpointSaved, Evaluated, Finished, Progress, StageFinished, StageStarted, Started
from models.training.recipes import recipe

pytest.importorskip("torch")

from models.networks.modules import build
from models.training.evaluation import evaluate
from models.training.loop import train

pytestmark = pytest.mark.needs_torch


def test_the_events_of_a_run_in_order(small, tmp_path, engine):
    events = []
    chosen = recipe("best", steps=20, batch_size=50, evaluate_every=8, validation=30)
    trained = train(chosen, small, on_event=events.append, checkpoint_dir=tmp_path, checkpoint_every=10, engine=engine)

    assert events[0] == StageStarted("prepare")
    assert events[1] == StageFinished("prepare", events[1].duration_s, {"engine": engine})
    assert events[2] == Started(20, 0, chosen.to_dict())
    assert events[-1] == Finished(20, trained.duration_s, trained.weights_sha256)
    evaluated = [event for event in events if isinstance(event, Evaluated)]
    assert [(event.step, event.split) for event in evaluated] == [
        (step, split) for step in (8, 16, 20) for split in ("train", "validation", "test")
    ]
    assert trained.history == tuple(evaluated)
    saved = [event for event in events if isinstance(event, CheckpointSaved)]
    assert [event.step for event in saved] == [10, 20]
    assert all(event.path == checkpoints.path_in(tmp_path) for event in saved)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].step == progress[-1].total_steps == 20
    assert progress[-1].remaining_s == 0
    assert all(0 <= event.accuracy <= 1 and event.loss > 0 and event.steps_per_s > 0 for event in progress)


def test_progress_tells_of_the_training_batches(small, monkeypatch, engine):
    monkeypatch.setattr("models.training.loop.REPORT_EVERY_S", float("inf"))
    events = []
    chosen = recipe("lecture", steps=4, batch_size=50, learning_rate=1e-30, evaluate_every=0)
    train(chosen, small, on_event=events.append, engine=engine)
    # weights that hardly move make the report comparable: four batches, in the order of the first epoch
    order = np.random.default_rng([chosen.seed, 0]).permutation(230)[:200]
    expected = evaluate(build("conv", seed=0), small.train.take(order))
    (report,) = [event for event in events if isinstance(event, Progress)]

    assert report.step == 4
    assert report.loss == pytest.approx(expected.loss, rel=1e-4)
    assert report.accuracy == pytest.approx(expected.accuracy)


def test_progress_comes_as_often_as_it_may(small, monkeypatch, engine):
    monkeypatch.setattr("models.training.loop.REPORT_EVERY_S", 0.0)
    events = []
    train(recipe("lecture", steps=6, batch_size=50, evaluate_every=0), small, on_event=events.append, engine=engine)

    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5, 6]


def test_without_evaluations_on_the_way_there_is_one_at_the_end(small):
    trained = train(recipe("lecture", steps=7, evaluate_every=0), small)

    assert [(event.step, event.split) for event in trained.history] == [(7, "train"), (7, "test")]
