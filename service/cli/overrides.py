"""Overrides of a recipe from ``--set`` and its shorthand options."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from models.errors import InvalidRecipe
from models.training.recipes import fields, parse_override

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SETTABLE = tuple(field for field in fields() if field != "name")
"""Fields of a recipe that ``--set`` takes."""


def overrides_from(settings: Iterable[str], shorthands: Mapping[str, object]) -> dict[str, Any]:
    """Collect the fields and values of every ``--set`` and of its shorthand options; raises InvalidRecipe.

    A field that is given twice must have the same value each time.
    """
    given = [(f"--set {text}", *parse_override(text)) for text in settings]
    given += [(f"--{field} {value}", field, value) for field, value in shorthands.items() if value is not None]
    overrides: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for source, field, value in given:
        if field == "name":
            pointer = "cannot be set: --recipe chooses a recipe, --name says what the model is published as"
            raise InvalidRecipe(field, value, pointer)
        if repr(overrides.setdefault(field, value)) != repr(value):  # nan is not equal to itself
            raise InvalidRecipe(field, value, f"but {sources[field]!r} and {source!r} contradict each other")
        sources.setdefault(field, source)
    return overrides
