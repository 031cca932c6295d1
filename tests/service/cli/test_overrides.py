from __future__ import annotations

import pytest

from models.data.augmentation import Augmentation
from models.errors import InvalidRecipe
from models.training.recipes import RECIPES
from service.cli.overrides import SETTABLE, overrides_from


def test_settings_and_shorthands_become_fields_in_their_types() -> None:
    found = overrides_from(
        ["learning_rate=1e-2", "augmentation=default", "network=fc"], {"seed": 3, "steps": None, "network": "fc"}
    )
    assert found == {"learning_rate": 0.01, "augmentation": Augmentation(), "network": "fc", "seed": 3}
    assert RECIPES["quick"].replace(**found).seed == 3


def test_the_same_value_may_be_given_twice() -> None:
    assert overrides_from(["steps=1e3", "steps=1_000"], {"steps": 1000}) == {"steps": 1000}
    assert list(overrides_from(["learning_rate=nan", "learning_rate=nan"], {})) == ["learning_rate"]


@pytest.mark.parametrize(
    ("settings", "shorthands", "says"),
    [
        (["steps=1", "steps=2"], {}, "'--set steps=1' and '--set steps=2' contradict each other"),
        (["steps=1"], {"steps": 2}, "'--set steps=1' and '--steps 2' contradict each other"),
        (["name=x"], {}, "--name says what the model is published as"),
        (["colour=red"], {}, "no such field"),
        (["steps"], {}, "must be written field=value"),
    ],
)
def test_what_cannot_be_names_the_field_and_the_option(settings, shorthands, says) -> None:
    with pytest.raises(InvalidRecipe, match=says):
        overrides_from(settings, shorthands)


def test_every_field_but_the_name_can_be_set() -> None:
    assert "name" not in SETTABLE
    assert {"steps", "seed", "network", "augmentation.noise"} <= set(SETTABLE)
