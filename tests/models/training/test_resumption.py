"""A run that was interrupted, or killed, ends in the same bits; what is no checkpoint of it is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.errors import CheckpointError, TrainingInterrupted
from models.training import checkpoint as checkpoints
from models.training.events import CheckpointSaved, Finished, StageFinished, StageStarted, Started
from models.training.recipes import recipe
from tests.models.short_runs import SHORT, stop_at

pytest.importorskip("torch")

from models.training.loop import train

pytestmark = pytest.mark.needs_torch


@pytest.mark.parametrize("name", ["lecture", "best"])
@pytest.mark.parametrize("stops", [(0,), (1,), (50,), (40, 77), (119,)])
def test_resumed_is_uninterrupted_bit_for_bit(data, tmp_path, name, stops, engine):
    chosen = recipe(name, **SHORT, validation=0 if name == "lecture" else 100)
    uninterrupted = train(chosen, data, engine=engine)

    done = 0
    for step in stops:
        with pytest.raises(TrainingInterrupted) as caught:
            train(chosen, data, checkpoint_dir=tmp_path, resume=done > 0, stop=stop_at(step - done), engine=engine)
        assert caught.value.step == step
        assert caught.value.checkpoint == checkpoints.path_in(tmp_path)
        done = step
    resumed = train(chosen, data, checkpoint_dir=tmp_path, resume=True, engine=engine)

    assert resumed.weights_sha256 == uninterrupted.weights_sha256
    assert resumed.history == uninterrupted.history
    assert resumed.steps == uninterrupted.steps


def test_momentum_is_resumed_too(small, tmp_path, engine):
    chosen = recipe("lecture", steps=30, batch_size=50, momentum=0.9)
    uninterrupted = train(chosen, small, engine=engine)
    with pytest.raises(TrainingInterrupted):
        train(chosen, small, checkpoint_dir=tmp_path, stop=stop_at(13), engine=engine)

    assert (
        train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine).weights_sha256
        == uninterrupted.weights_sha256
    )


def test_a_finished_run_is_resumed_at_its_end(small, tmp_path, engine):
    chosen = recipe("best", steps=20, batch_size=50, evaluate_every=10)
    first = train(chosen, small, checkpoint_dir=tmp_path, engine=engine)
    events = []
    again = train(chosen, small, checkpoint_dir=tmp_path, resume=True, on_event=events.append, engine=engine)

    assert (again.weights_sha256, again.history) == (first.weights_sha256, first.history)
    assert [type(event) for event in events] == [StageStarted, StageFinished, Started, Finished]
    assert events[2].start_step == 20


def test_a_run_killed_between_checkpoints_goes_on_from_the_last(small, tmp_path, engine):
    chosen = recipe("best", steps=40, batch_size=50, evaluate_every=0)

    def power_cut(event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == 30:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(chosen, small, checkpoint_dir=tmp_path, checkpoint_every=15, on_event=power_cut, engine=engine)
    events = []
    resumed = train(chosen, small, checkpoint_dir=tmp_path, resume=True, on_event=events.append, engine=engine)

    assert next(event for event in events if isinstance(event, Started)).start_step == 30
    assert resumed.weights_sha256 == train(chosen, small, engine=engine).weights_sha256


def test_an_interruption_without_a_directory_says_that_nothing_is_kept(small, engine):
    with pytest.raises(TrainingInterrupted, match="nothing kept") as caught:
        train(recipe("lecture", steps=5), small, stop=stop_at(2), engine=engine)

    assert (caught.value.step, caught.value.checkpoint) == (2, None)


@pytest.mark.parametrize(
    ("override", "message"), [({"seed": 1}, "seed = 0, this run has 1"), ({"network": "fc"}, "network")]
)
def test_a_checkpoint_of_another_recipe_is_refused(small, tmp_path, override, message):
    chosen = recipe("lecture", steps=5)
    train(chosen, small, checkpoint_dir=tmp_path)

    with pytest.raises(CheckpointError, match=message):
        train(chosen.replace(**override), small, checkpoint_dir=tmp_path, resume=True)


@pytest.mark.parametrize(("made_by", "other"), [("torch", "fused"), ("fused", "torch")])
def test_a_checkpoint_of_the_other_engine_is_refused(small, tmp_path, made_by, other):
    pytest.importorskip("numba")
    chosen = recipe("lecture", steps=5)
    first = train(chosen, small, checkpoint_dir=tmp_path, engine=made_by)

    with pytest.raises(CheckpointError, match=f"made by the engine {made_by}, this run uses {other}"):
        train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=other)
    resumed = train(chosen, small, checkpoint_dir=tmp_path, resume=True)
    assert (resumed.engine, resumed.weights_sha256) == (made_by, first.weights_sha256)


def test_a_checkpoint_of_an_unknown_engine_is_refused(small, tmp_path):
    chosen = recipe("lecture", steps=5)
    train(chosen, small, checkpoint_dir=tmp_path)
    checkpoints.save(dataclasses.replace(checkpoints.load(tmp_path), engine="abacus"), tmp_path)

    with pytest.raises(CheckpointError, match="made by the engine abacus"):
        train(chosen, small, checkpoint_dir=tmp_path, resume=True)


def test_steps_are_taken_many_at_once_and_what_happens_between_them_changes_nothing(data, tmp_path):
    pytest.importorskip("numba")
    chosen = recipe("best", steps=200, evaluate_every=30, validation=100)
    plain = train(chosen.replace(evaluate_every=0), data, engine="fused")
    asked = []

    def stop() -> bool:
        asked.append(None)
        return len(asked) == 9

    options = {"engine": "fused", "checkpoint_dir": tmp_path, "checkpoint_every": 45}
    with pytest.raises(TrainingInterrupted) as caught:
        train(chosen, data, stop=stop, **options)
    # Steps end with an epoch (39), an evaluation (30) or a checkpoint (45).
    assert caught.value.step == 120
    resumed = train(chosen, data, resume=True, **options)

    assert resumed.weights_sha256 == plain.weights_sha256
    assert resumed.history[-3:] == plain.history


def test_a_checkpoint_of_other_data_is_refused(small, data, tmp_path):
    chosen = recipe("lecture", steps=5)
    train(chosen, small, checkpoint_dir=tmp_path)

    with pytest.raises(CheckpointError, match="other data"):
        train(chosen, data, checkpoint_dir=tmp_path, resume=True)


def test_a_checkpoint_whose_arrays_do_not_fit_is_refused(small, tmp_path, engine):
    chosen = recipe("lecture", steps=5)
    train(chosen, small, checkpoint_dir=tmp_path, engine=engine)
    saved = checkpoints.load(tmp_path)
    checkpoints.save(dataclasses.replace(saved, arrays={"weights": np.zeros(3, np.float32)}), tmp_path)

    with pytest.raises(CheckpointError, match="do not fit"):
        train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine)


def test_there_must_be_something_to_resume(small, tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        train(recipe("lecture", steps=5), small, checkpoint_dir=tmp_path, resume=True)
    with pytest.raises(ValueError, match="resume needs a checkpoint_dir"):
        train(recipe("lecture", steps=5), small, resume=True)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 0, got -1"):
        train(recipe("lecture", steps=5), small, checkpoint_every=-1)


def test_a_directory_that_takes_no_checkpoint_is_noticed_before_the_first_step(small):
    with pytest.raises(CheckpointError, match="no checkpoint could be kept in /proc/x"):
        train(
            recipe("lecture", steps=5), small, checkpoint_dir=Path("/proc/x"), on_event=lambda _: pytest.fail("began")
        )
