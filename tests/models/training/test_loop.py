"""The loop: what it computes, that it does so again to the same bits, and what it cannot train."""

from __future__ import annotations

import numpy as np
import pytest

from models.errors import InvalidRecipe, TrainingDiverged, TrainingInterrupted
from models.training.events import Finished
from models.training.history import curve_steps
from models.training.recipes import recipe
from tests.models.short_runs import SHORT, early, stop_at

torch = pytest.importorskip("torch")

from models.networks.modules import build, weights_sha256  # noqa: E402  (after importorskip)
from models.training.evaluation import evaluate  # noqa: E402  (after importorskip)
from models.training.loop import train  # noqa: E402  (after importorskip)
from models.training.threads import one_thread  # noqa: E402  (after importorskip)

pytestmark = pytest.mark.needs_torch


# ---- the maths -------------------------------------------------------------------------------------------------------


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


# ---- determinism -----------------------------------------------------------------------------------------------------


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


# ---- what cannot work ------------------------------------------------------------------------------------------------


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
