from __future__ import annotations

import itertools

import pytest

from models.errors import InvalidRecipe, InvalidSweep
from models.sweeps.plan import MAX_TRIALS, Shard, parse_grid, parse_seeds, parse_shard, trials


def plan(**changes):
    return trials(**{"networks": ["conv"], "recipes": ["quick"], "seeds": [0], **changes})


def test_every_combination_once_with_the_seeds_innermost():
    found = plan(
        networks=["conv", "fc"],
        seeds=[0, 1],
        overrides={"steps": 50},
        grid={"learning_rate": (0.1, 0.2), "ema": (0, 0.9)},
    )
    described = [(each.recipe.network, each.recipe.learning_rate, each.recipe.ema, each.recipe.seed) for each in found]
    assert described == [*itertools.product(("conv", "fc"), (0.1, 0.2), (0, 0.9), (0, 1))]
    assert {each.recipe.steps for each in found} == {50}


def test_the_same_trial_twice_is_one():
    assert len(plan(recipes=["quick", "best"], overrides={"steps": 10_000}, seeds=[0, 0, 1])) == 2


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"grid": {"steps": (1, 2)}, "overrides": {"steps": 3}}, InvalidSweep, "steps is set to 3 for all trials"),
        ({"overrides": {"seed": 3}}, InvalidSweep, "seed cannot be overridden or in a grid: .* list of seeds"),
        ({"grid": {"network": ("fc",)}}, InvalidSweep, "network cannot be .* list of networks"),
        ({"grid": {"steps": (1, 0)}}, InvalidRecipe, "'steps': got 0, must be between 1"),
        ({"recipes": ["perfect"]}, InvalidRecipe, "'name': got 'perfect', must be one of"),
        ({"networks": ["resnet"]}, InvalidRecipe, "'network': got 'resnet'"),
        ({"seeds": range(MAX_TRIALS + 1)}, InvalidSweep, "trials: 100,001, must be at most 100,000"),
    ],
)
def test_what_is_no_sweep(changes, error, message):
    with pytest.raises(error, match=message):
        plan(**changes)


@pytest.mark.parametrize(
    ("text", "seeds"), [("0", (0,)), ("0-4", (0, 1, 2, 3, 4)), ("7, 0-2,1", (7, 0, 1, 2)), ("3-3", (3,))]
)
def test_seeds(text, seeds):
    assert parse_seeds(text) == seeds


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got '', must be numbers and ranges"),
        ("1,,2", "must be numbers and ranges"),
        ("-1", "must be numbers and ranges"),
        ("4-1", "got '4-1', a range must not end before it begins"),
        ("9223372036854775808", "must be at most 9223372036854775807"),
        ("0-9223372036854775807", "must be at most 100,000 of them"),
    ],
)
def test_what_are_no_seeds(text, message):
    with pytest.raises(InvalidSweep, match=message):
        parse_seeds(text)


def test_a_grid():
    grid = parse_grid(["learning_rate=0.01, 2e-2,0.01", "augmentation=none,default", "steps=1e3"])
    assert grid["learning_rate"] == (0.01, 0.02)
    assert grid["augmentation"][0] is None
    assert grid["steps"] == (1000,)


@pytest.mark.parametrize(
    ("texts", "error", "message"),
    [
        (["steps"], InvalidRecipe, "'steps': got 'steps', must be written field=value"),
        (["stepz=1"], InvalidRecipe, "'stepz'.*no such field"),
        (["steps=1,many"], InvalidRecipe, "'steps': got 'many', must be a whole number"),
        (["steps=1", "steps=2"], InvalidSweep, "grid: steps is given twice"),
    ],
)
def test_what_is_no_grid(texts, error, message):
    with pytest.raises(error, match=message):
        parse_grid(texts)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_shards_together_are_the_whole_each_trial_once(count):
    whole = plan(networks=["conv", "fc"], seeds=range(5))
    parts = [Shard(index, count).of(whole) for index in range(count)]
    assert sorted(trial.digest for part in parts for trial in part) == sorted(trial.digest for trial in whole)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_shard_is_given_or_that_of_the_job():
    assert parse_shard("1/4", None) == Shard(1, 4)
    assert parse_shard("job/4", "3") == Shard(3, 4)


@pytest.mark.parametrize(
    ("text", "job", "message"),
    [
        ("4/4", None, "got 4/4, must be between 0 and 3"),
        ("0/0", None, "got 0/0, there must be at least 1 shard"),
        ("1", None, "must be written INDEX/COUNT"),
        ("job/4", None, "JOB_COMPLETION_INDEX is not set"),
        ("job/4", "²", "JOB_COMPLETION_INDEX is '²'"),
        ("job/4", "x", "JOB_COMPLETION_INDEX is 'x'"),
        ("job/4", "4", "got 4/4"),
    ],
)
def test_what_is_no_shard(text, job, message):
    with pytest.raises(InvalidSweep, match=message):
        parse_shard(text, job)
