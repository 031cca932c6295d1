from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.data.augmentation import Augmentation
from models.errors import InvalidRecipe
from models.training import recipes
from models.training.recipes import RECIPES, TrainingRecipe, fields, parse_override, recipe


def test_lecture_is_the_recipe_of_the_lecture():
    lecture = recipe("lecture")

    assert (lecture.optimiser, lecture.learning_rate, lecture.momentum, lecture.weight_decay) == ("sgd", 0.01, 0, 0)
    assert (lecture.steps, lecture.batch_size, lecture.schedule, lecture.init) == (100_000, 100, "constant", "he")
    assert (lecture.ema, lecture.augmentation, lecture.validation) == (0, None, 0)


def test_best_is_the_recipe_that_was_measured():
    best = recipe("best")

    assert (best.optimiser, best.learning_rate, best.weight_decay) == ("adamw", 0.01, 0.01)
    assert (best.schedule, best.warmup_steps, best.ema, best.batch_size, best.init) == ("cosine", 500, 0.999, 100, "he")
    assert best.augmentation == Augmentation(shift_samples=4, stretch=0.15, scale=0.15, ramp=2, noise=0.08)


def test_the_shorter_recipes_differ_from_best_in_what_they_say():
    assert recipe("quick") == recipe("best").replace(name="quick", steps=10_000)
    assert recipe("plain") == recipe("best").replace(name="plain", steps=4_000, augmentation=None)


def test_every_recipe_goes_by_its_key_and_trains_without_choosing():
    for name, chosen in RECIPES.items():
        assert chosen.name == name
        assert chosen.early_stopping_patience == 0


def test_the_table_of_types_is_complete():
    assert list(recipes._TYPES) == [field.name for field in dataclasses.fields(TrainingRecipe)]


@pytest.mark.parametrize(
    ("field", "value", "bound"),
    [
        ("network", "cnn", "conv, fc, conv25, fc-slide"),
        ("optimiser", "adam", "sgd or adamw"),
        ("schedule", "step", "constant or cosine"),
        ("init", "zeros", "he or pytorch"),
        ("learning_rate", 0, "above 0"),
        ("learning_rate", -1.0, "above 0"),
        ("learning_rate", math.nan, "above 0"),
        ("learning_rate", math.inf, "at most 1,000,000"),
        ("momentum", 1.0, "below 1"),
        ("momentum", -0.1, "at least 0"),
        ("momentum", math.nan, "below 1"),
        ("weight_decay", -1, "between 0 and 100"),
        ("weight_decay", math.nan, "between 0 and 100"),
        ("steps", 0, "between 1 and"),
        ("steps", 10**9, "between 1 and"),
        ("steps", 1.5, "whole number"),
        ("steps", True, "whole number"),
        ("steps", "many", "whole number"),
        ("batch_size", 0, "between 1 and"),
        ("warmup_steps", -1, "at least 0 and below 100,000, the steps"),
        ("warmup_steps", 100_000, "at least 0 and below 100,000, the steps"),
        ("ema", 1, "below 1"),
        ("seed", -1, "between 0 and"),
        ("seed", 2**63, "between 0 and"),
        ("augmentation", "default", "augmentation"),
        ("validation", -1, "between 0 and"),
        ("evaluate_every", -1, "between 0 and"),
        ("early_stopping_patience", -1, "between 0 and"),
        ("learning_rate", "fast", "a number"),
        ("learning_rate", None, "a number"),
        ("name", 3, "a string"),
    ],
)
def test_out_of_bounds_names_field_value_and_bound(field, value, bound):
    with pytest.raises(InvalidRecipe) as caught:
        recipe("lecture", **{field: value})

    assert caught.value.field == field
    assert caught.value.value is value
    assert bound in caught.value.bound


@pytest.mark.parametrize(
    "overrides",
    [
        {"early_stopping_patience": 3},
        {"early_stopping_patience": 3, "validation": 0},
        {"early_stopping_patience": 3, "validation": 500, "evaluate_every": 0},
    ],
)
def test_early_stopping_needs_something_to_judge_by_other_than_the_test_set(overrides):
    with pytest.raises(InvalidRecipe) as caught:
        recipe("best", **overrides)

    assert caught.value.field == "early_stopping_patience"


def test_early_stopping_on_a_validation_split_is_welcome():
    assert recipe("best", early_stopping_patience=3, validation=500).early_stopping_patience == 3


def test_adamw_takes_no_momentum():
    with pytest.raises(InvalidRecipe, match="momentum"):
        recipe("best", momentum=0.9)


def test_overrides_change_what_they_name_and_nothing_else():
    changed = recipe("best", steps=5_000, seed=3, network="fc")

    assert changed == dataclasses.replace(RECIPES["best"], steps=5_000, seed=3, network="fc")
    assert changed.name == "best"
    assert RECIPES["best"].steps == 100_000


def test_overrides_reach_into_the_augmentation():
    changed = recipe("best", **{"augmentation.noise": 0.2, "augmentation.ramp": 0})

    assert changed.augmentation == Augmentation(noise=0.2, ramp=0)
    assert recipe("lecture", augmentation=Augmentation(), **{"augmentation.noise": 0.5}).augmentation.noise == 0.5
    with pytest.raises(InvalidRecipe, match="while augmentation is none"):
        recipe("lecture", **{"augmentation.noise": 0.2})
    with pytest.raises(InvalidRecipe, match=r"augmentation\.noise.*between 0 and 10"):
        recipe("best", **{"augmentation.noise": -1})


def test_unknown_names_list_the_known_ones():
    with pytest.raises(InvalidRecipe, match="lecture, best, quick, plain"):
        recipe("worst")
    with pytest.raises(InvalidRecipe, match="the fields are name, network, optimiser") as caught:
        recipe("best", learningrate=0.1)
    assert caught.value.field == "learningrate"
    with pytest.raises(InvalidRecipe, match=r"augmentation\.shift_samples"):
        recipe("best", **{"augmentation.blur": 1})


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("steps=500", "steps", 500),
        ("steps=100_000", "steps", 100_000),
        ("steps=1e4", "steps", 10_000),
        (" seed = 7 ", "seed", 7),
        ("seed=9223372036854775807", "seed", 2**63 - 1),
        ("learning_rate=1e-2", "learning_rate", 0.01),
        ("learning_rate=1", "learning_rate", 1.0),
        ("network=fc-slide", "network", "fc-slide"),
        ("augmentation=none", "augmentation", None),
        ("augmentation=default", "augmentation", Augmentation()),
        ("augmentation.noise=0.5", "augmentation.noise", 0.5),
    ],
)
def test_overrides_are_read_in_the_type_of_their_field(text, field, value):
    parsed_field, parsed_value = parse_override(text)

    assert (parsed_field, parsed_value) == (field, value)
    assert type(parsed_value) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("steps", "got 'steps', must be written field=value"),
        ("", "must be written field=value"),
        ("stepps=5", "got '5', no such field; the fields are name, network"),
        ("steps=many", "a whole number"),
        ("steps=", "a whole number"),
        ("steps=1.5", "a whole number"),
        ("steps=1.5e0", "a whole number"),
        ("steps=1e999", "a whole number"),
        ("learning_rate=fast", "a number"),
        ("augmentation=much", "none or default"),
        ("augmentation.noise=much", "a number"),
    ],
)
def test_overrides_that_cannot_be_read_say_why(text, message):
    with pytest.raises(InvalidRecipe, match=message):
        parse_override(text)


@given(st.sampled_from(list(RECIPES)), st.integers(1, 10**6), st.floats(1e-6, 10), st.integers(0, 2**63 - 1))
def test_a_recipe_survives_json(name, steps, learning_rate, seed):
    chosen = recipe(name, steps=steps, learning_rate=learning_rate, seed=seed)

    assert TrainingRecipe.from_dict(json.loads(json.dumps(chosen.to_dict()))) == chosen


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": "x", "stepps": 3}, "stepps"),
        ({"steps": 3}, "name"),
        ({"name": "x", "steps": "3"}, "steps"),
        ({"name": "x", "augmentation": {"blur": 1}}, "augmentation.blur"),
        ({"name": "x", "augmentation": {"noise": -1}}, "augmentation.noise"),
        ({"name": "x", "augmentation": [1]}, "augmentation"),
        ({"name": "x", "augmentation.noise": 1}, "augmentation.noise"),
    ],
)
def test_from_dict_refuses_what_it_does_not_know(values, field):
    with pytest.raises(InvalidRecipe) as caught:
        TrainingRecipe.from_dict(values)

    assert caught.value.field == field


def test_every_field_is_described():
    rows = dict(recipe("best").describe())

    assert rows["steps"] == "100,000"
    assert rows["learning_rate"] == "0.01"
    assert rows["augmentation.shift_samples"] == "4"
    assert dict(recipe("lecture").describe())["augmentation"] == "none"
    assert set(rows) == set(fields()) - {"augmentation"}


# ---- the learning rate -------------------------------------------------------------------------------------------


def test_a_constant_schedule_is_constant():
    lecture = recipe("lecture")

    assert {lecture.learning_rate_at(step) for step in (0, 1, 50_000, 99_999)} == {0.01}


def test_warm_up_then_half_a_cosine_down_to_nothing():
    best = recipe("best", steps=10_500)

    assert best.learning_rate_at(0) == pytest.approx(0.01 / 500)
    assert best.learning_rate_at(249) == pytest.approx(0.005)
    assert best.learning_rate_at(499) == best.learning_rate_at(500) == pytest.approx(0.01)
    assert best.learning_rate_at(5_500) == pytest.approx(0.005)
    assert 0 < best.learning_rate_at(10_499) < 1e-8


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 16, 400])
@pytest.mark.parametrize("name", list(RECIPES))
def test_short_runs_still_reach_their_peak(name, steps):
    chosen = recipe(name, steps=steps)
    rates = [chosen.learning_rate_at(step) for step in range(steps)]

    assert max(rates) == pytest.approx(chosen.learning_rate)
    assert min(rates) > 0


@pytest.mark.parametrize(
    ("overrides", "warmup_steps"),
    [
        ({"steps": 200}, 25),
        ({"steps": 4_000}, 500),
        ({"steps": 1_000_000}, 500),
        ({"steps": 200, "warmup_steps": 199}, 199),
        ({"steps": 200, "warmup_steps": 0}, 0),
        ({"warmup_steps": 9_999}, 9_999),
    ],
)
def test_a_recipes_own_warm_up_fits_the_steps_and_one_that_is_given_is_taken(overrides, warmup_steps):
    chosen = recipe("quick", **overrides)

    assert chosen.warmup_steps == warmup_steps
    rates = [chosen.learning_rate_at(step) for step in range(chosen.steps)]
    assert rates.index(max(rates)) == max(warmup_steps - 1, 0)


@pytest.mark.parametrize("overrides", [{"steps": 200, "warmup_steps": 200}, {"warmup_steps": 10_000}])
def test_a_warm_up_without_an_end_is_refused(overrides):
    with pytest.raises(
        InvalidRecipe, match=r"'warmup_steps': got [\d,]+, must be at least 0 and below [\d,]+, the steps"
    ):
        recipe("quick", **overrides)
    with pytest.raises(InvalidRecipe, match="warmup_steps"):
        dataclasses.replace(RECIPES["quick"], steps=500)


def test_recipes_need_no_torch():
    modules = "models.training.recipes, models.training.events, models.training.checkpoint, models.data.dataset"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
