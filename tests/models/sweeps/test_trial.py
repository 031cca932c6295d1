from __future__ import annotations

import dataclasses
import json

import pytest

from models.data.augmentation import Augmentation
from models.errors import InvalidRecipe
from models.sweeps.trial import Trial
from models.training.backend import ENGINES
from models.training.recipes import RECIPES, recipe


def test_a_digest_stays_what_it_was():
    # Results of earlier versions are found by it: a change of a default or of the rule must be meant.
    assert Trial(recipe("lecture")).file_name == "conv-seed0-38c3450b03d269e1.json"
    assert Trial(recipe("best", network="fc", seed=3)).file_name == "fc-seed3-e31139acdedae0c7.json"


def test_every_field_but_the_name_is_part_of_the_digest():
    base = recipe("best", validation=100)
    others = {
        "network": "fc",
        "optimiser": "sgd",
        "learning_rate": 0.02,
        "weight_decay": 0.1,
        "steps": 5,
        "batch_size": 7,
        "schedule": "constant",
        "warmup_steps": 3,
        "ema": 0.5,
        "init": "pytorch",
        "seed": 1,
        "augmentation": None,
        "validation": 200,
        "evaluate_every": 10,
        "early_stopping_patience": 2,
    }
    assert set(others) | {"name", "momentum"} == {field.name for field in dataclasses.fields(base)}
    changed = [base.replace(**{field: value}) for field, value in others.items()]
    changed.append(base.replace(optimiser="sgd", momentum=0.5))
    changed += [base.replace(**{f"augmentation.{field.name}": 0.01}) for field in dataclasses.fields(Augmentation)]
    digests = {Trial(each).digest for each in (base, *changed)}
    assert len(digests) == 1 + len(changed)


def test_the_same_trial_under_another_name_is_the_same():
    assert Trial(recipe("quick")).digest == Trial(recipe("best", steps=10_000)).digest


def test_whole_numbers_are_the_same_with_and_without_a_point():
    assert Trial(recipe("best", learning_rate=1)).digest == Trial(recipe("best", learning_rate=1.0)).digest
    large = 2**63 - 1  # which no float can hold
    assert Trial(recipe("best", seed=large)).digest != Trial(recipe("best", seed=large - 1)).digest


def test_an_engine_makes_another_trial_where_it_is_asked_for():
    asked = [Trial(recipe("best"), engine) for engine in ENGINES]
    assert len({trial.digest for trial in asked}) == 3
    assert [trial.label for trial in asked] == ["best", "best engine=fused", "best engine=torch"]
    assert asked[2].cell.engine == "torch"


def test_trials_of_a_cell_differ_by_their_seed_only():
    assert Trial(recipe("best", seed=4)).cell == Trial(recipe("best", seed=0)).cell
    assert Trial(recipe("best", steps=9)).cell != Trial(recipe("best")).cell


@pytest.mark.parametrize(
    ("name", "fields", "label"),
    [
        ("best", {}, "best"),
        ("best", {"network": "fc", "seed": 7}, "best"),
        ("best", {"steps": 10_000, "learning_rate": 0.002}, "best learning_rate=0.002 steps=10000"),
        ("best", {"steps": 20}, "best steps=20"),
        ("best", {"steps": 20, "warmup_steps": 3}, "best steps=20 warmup_steps=3"),
        ("best", {"augmentation": None}, "best augmentation=none"),
        ("best", {"augmentation.noise": 0.5}, "best augmentation.noise=0.5"),
        ("plain", {"augmentation": Augmentation(ramp=1)}, "plain augmentation=default augmentation.ramp=1"),
    ],
)
def test_a_label_says_what_differs_from_the_recipe_of_that_name(name, fields, label):
    trial = Trial(recipe(name, **fields))
    assert trial.label == label
    assert str(trial) == f"{trial.recipe.network} {label} seed {trial.recipe.seed}"


def test_a_label_of_an_unknown_recipe_is_its_name():
    assert Trial(dataclasses.replace(RECIPES["best"], name="mine")).label == "mine"


def test_a_trial_survives_json():
    for trial in (Trial(recipe("best", seed=3)), Trial(recipe("lecture", init="pytorch"), "torch")):
        assert Trial.from_dict(json.loads(json.dumps(trial.to_dict()))) == trial
    with pytest.raises(InvalidRecipe):
        Trial.from_dict({"recipe": {"name": "x", "steps": 0}, "engine": "auto"})
