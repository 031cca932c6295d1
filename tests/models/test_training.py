from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models import checkpoint as checkpoints
from models.dataset import Dataset, canonical, fresh
from models.errors import CheckpointError, InvalidRecipe, TrainingDiverged, TrainingInterrupted
from models.events import CheckpointSaved, Evaluated, Finished, Progress, Started
from models.history import curve_steps
from models.recipes import recipe

torch = pytest.importorskip("torch")

from models.evaluation import evaluate  # noqa: E402  (after importorskip)
from models.networks import build, weights_sha256  # noqa: E402  (after importorskip)
from models.threads import one_thread  # noqa: E402  (after importorskip)
from models.training import train  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch

SHORT = {"steps": 120, "evaluate_every": 50}
"""Three epochs of 4,000 examples, evaluations and the end not on the same steps."""


@pytest.fixture(scope="module")
def data() -> Dataset:
    return canonical()


@pytest.fixture(scope="module")
def small() -> Dataset:
    return Dataset.of(fresh(230, seed=1), fresh(50, seed=2))


@pytest.fixture(params=["torch", "fused"])
def engine(request, monkeypatch) -> str:
    """Either engine, one step at a time, so that a test can stop between any two."""
    if request.param == "fused":
        pytest.importorskip("numba")
        monkeypatch.setattr("models.fused.engine.FusedEngine.steps_at_once", 1)
    return request.param


def stop_at(step: int):
    """A ``stop`` that says yes when it is asked before that step (0 is the first)."""
    asked = iter(range(step + 1))
    return lambda: next(asked) == step


# ---- the maths ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", ["conv", "fc"])
@pytest.mark.parametrize("name", ["lecture", "plain"])
@one_thread()
def test_training_is_what_torch_does_on_the_same_batches(data, network, name, engine):
    chosen = recipe(name, network=network, steps=50, evaluate_every=0, ema=0.0)
    reference = build(network, seed=chosen.seed, init=chosen.init)
    if name == "lecture":
        optimiser = torch.optim.SGD(reference.parameters(), chosen.learning_rate)
    else:
        optimiser = torch.optim.AdamW(reference.parameters(), weight_decay=chosen.weight_decay)
    orders = [np.random.default_rng([chosen.seed, epoch]).permutation(4000) for epoch in (0, 1)]
    rows = np.concatenate(orders).reshape(-1, 100)
    for step in range(50):
        optimiser.param_groups[0]["lr"] = chosen.learning_rate_at(step)
        batch = data.train.take(rows[step])
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(reference(torch.tensor(batch.x_BL)), torch.tensor(batch.y_B)).backward()
        optimiser.step()
    trained = train(chosen, data, engine=engine).network

    for ours, theirs in zip(trained.parameters(), reference.parameters(), strict=True):
        # Adam divides by the root of a mean of squares, so rounding of tiny gradients shows
        assert float((ours - theirs).detach().abs().max()) < (1e-6 if name == "lecture" else 2e-3)


def test_training_learns(data, engine):
    untrained = evaluate(build("conv", seed=0), data.test)
    trained = train(recipe("plain", steps=600, evaluate_every=0), data, engine=engine)

    assert untrained.accuracy < 0.25
    assert trained.history[-1].accuracy > 0.65
    assert evaluate(trained.network, data.test).accuracy == trained.history[-1].accuracy


def test_the_result_is_in_eval_mode_with_its_own_hash(small):
    trained = train(recipe("quick", steps=5, batch_size=50), small)

    assert not trained.network.training
    assert trained.weights_sha256 == weights_sha256(trained.network)
    assert trained.steps == 5
    assert trained.duration_s > 0
    assert all(parameter.requires_grad for parameter in trained.network.parameters())


# ---- determinism -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["lecture", "best"])
def test_same_recipe_same_weights(data, name, engine):
    chosen = recipe(name, **SHORT)
    first = train(chosen, data, engine=engine)
    torch.rand(10)
    np.random.rand(10)
    again = train(chosen, data, engine=engine)

    assert first.weights_sha256 == again.weights_sha256
    assert first.history == again.history


@pytest.mark.parametrize(
    "override",
    [
        {"seed": 1},
        {"steps": 61},
        {"learning_rate": 0.02},
        {"init": "pytorch"},
        {"ema": 0.5},
        {"ema": 0.0},
        {"schedule": "constant"},
        {"weight_decay": 0.02},
        {"augmentation": None},
        {"augmentation.noise": 0.1},
        {"validation": 10},
        {"warmup_steps": 1},
        {"batch_size": 40},
        {"network": "fc"},
        {"optimiser": "sgd"},
    ],
)
def test_every_part_of_a_recipe_counts(small, override, engine):
    chosen = recipe("best", steps=60, batch_size=50, evaluate_every=0)

    assert (
        train(chosen, small, engine=engine).weights_sha256
        != train(chosen.replace(**override), small, engine=engine).weights_sha256
    )


def test_watching_changes_nothing(small, tmp_path, engine):
    silent = train(recipe("best", steps=60, batch_size=50, evaluate_every=0), small, engine=engine)
    watched = train(
        recipe("best", steps=60, batch_size=50, evaluate_every=7),
        small,
        on_event=lambda event: None,
        checkpoint_dir=tmp_path,
        checkpoint_every=9,
        curve_steps=curve_steps(60, points=20),
        stop=lambda: False,
        engine=engine,
    )

    assert silent.weights_sha256 == watched.weights_sha256


def test_the_number_of_threads_is_one_and_comes_back(small):
    seen, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        train(recipe("lecture", steps=1), small, on_event=lambda event: seen.append(torch.get_num_threads()))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
        with pytest.raises(TrainingInterrupted):
            train(recipe("lecture", steps=1), small, stop=lambda: True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ---- interruption and resumption -----------------------------------------------------------------------------------


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
    assert [type(event) for event in events] == [Started, Finished]
    assert events[0].start_step == 20


def test_a_run_killed_between_checkpoints_goes_on_from_the_last(small, tmp_path, engine):
    chosen = recipe("best", steps=40, batch_size=50, evaluate_every=0)

    def power_cut(event) -> None:
        if isinstance(event, CheckpointSaved) and event.step == 30:
            raise MemoryError

    with pytest.raises(MemoryError):
        train(chosen, small, checkpoint_dir=tmp_path, checkpoint_every=15, on_event=power_cut, engine=engine)
    events = []
    resumed = train(chosen, small, checkpoint_dir=tmp_path, resume=True, on_event=events.append, engine=engine)

    assert events[0].start_step == 30
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


# ---- what a run tells --------------------------------------------------------------------------------------------


def test_a_directory_that_takes_no_checkpoint_is_noticed_before_the_first_step(small):
    with pytest.raises(CheckpointError, match="no checkpoint could be kept in /proc/x"):
        train(
            recipe("lecture", steps=5), small, checkpoint_dir=Path("/proc/x"), on_event=lambda _: pytest.fail("began")
        )


def test_the_events_of_a_run_in_order(small, tmp_path, engine):
    events = []
    chosen = recipe("best", steps=20, batch_size=50, evaluate_every=8, validation=30)
    trained = train(chosen, small, on_event=events.append, checkpoint_dir=tmp_path, checkpoint_every=10, engine=engine)

    assert events[0] == Started(20, 0, chosen.to_dict())
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
    monkeypatch.setattr("models.training.REPORT_EVERY_S", float("inf"))
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
    monkeypatch.setattr("models.training.REPORT_EVERY_S", 0.0)
    events = []
    train(recipe("lecture", steps=6, batch_size=50, evaluate_every=0), small, on_event=events.append, engine=engine)

    assert [event.step for event in events if isinstance(event, Progress)] == [1, 2, 3, 4, 5, 6]


def test_without_evaluations_on_the_way_there_is_one_at_the_end(small):
    trained = train(recipe("lecture", steps=7, evaluate_every=0), small)

    assert [(event.step, event.split) for event in trained.history] == [(7, "train"), (7, "test")]


# ---- early stopping ----------------------------------------------------------------------------------------------


def early(**overrides):
    return recipe(
        "lecture",
        **{"steps": 3_000, "batch_size": 50, "learning_rate": 0.1, "validation": 80, "evaluate_every": 20, **overrides},
    )


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


def test_the_steps_of_a_curve_decide_nothing(small, tmp_path, engine):
    chosen = early(early_stopping_patience=3)
    plain, steps = train(chosen, small, engine=engine), curve_steps(chosen.steps)
    with pytest.raises(TrainingInterrupted):
        train(
            chosen,
            small,
            curve_steps=steps,
            checkpoint_dir=tmp_path,
            stop=stop_at(plain.steps + 31),
            engine=engine,
        )
    drawn = train(chosen, small, curve_steps=steps, checkpoint_dir=tmp_path, resume=True, engine=engine)

    assert (drawn.weights_sha256, drawn.steps) == (plain.weights_sha256, plain.steps)
    assert set(plain.history) < set(drawn.history)
    last = max(event.step for event in plain.history)
    every = set(range(20, last + 1, 20)) | {step for step in steps if step <= last}
    for split in ("train", "validation", "test"):
        assert [event.step for event in drawn.history if event.split == split] == sorted(every)


def test_early_stopping_survives_an_interruption(small, tmp_path, engine):
    chosen = early(early_stopping_patience=3)
    uninterrupted = train(chosen, small, engine=engine)
    with pytest.raises(TrainingInterrupted):
        train(chosen, small, checkpoint_dir=tmp_path, stop=stop_at(uninterrupted.steps + 30), engine=engine)
    resumed = train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine)

    assert (resumed.weights_sha256, resumed.steps) == (uninterrupted.weights_sha256, uninterrupted.steps)
    again = train(chosen, small, checkpoint_dir=tmp_path, resume=True, engine=engine)
    assert again.weights_sha256 == uninterrupted.weights_sha256


# ---- what cannot work --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("overrides", "field", "bound"),
    [
        ({"batch_size": 231}, "batch_size", "at most 230"),
        ({"batch_size": 201, "validation": 30}, "batch_size", "at most 200"),
        ({"validation": 230}, "validation", "below 230"),
    ],
)
def test_a_recipe_that_does_not_fit_the_data_is_refused(small, overrides, field, bound):
    with pytest.raises(InvalidRecipe, match=bound) as caught:
        train(recipe("lecture", steps=1, **overrides), small)

    assert caught.value.field == field


def test_a_batch_may_be_all_there_is(small):
    assert train(recipe("lecture", steps=3, batch_size=230), small).steps == 3


@pytest.mark.parametrize("name", ["lecture", "best"])
def test_divergence_is_told_and_leaves_no_result(data, tmp_path, name, engine):
    events = []
    chosen = recipe(name, learning_rate=1e6, steps=400, warmup_steps=0, evaluate_every=0)
    with pytest.raises(TrainingDiverged, match="smaller learning_rate") as caught:
        train(chosen, data, on_event=events.append, checkpoint_dir=tmp_path, engine=engine)

    assert 0 < caught.value.step <= 200
    assert not any(isinstance(event, Finished) for event in events)
