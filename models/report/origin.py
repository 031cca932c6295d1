"""Where the model comes from: recipe, seed, hashes, versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from models.errors import InvalidRecipe
from models.report.markup import join
from models.report.section import Section, folded, paragraph, table
from models.training.recipes import TrainingRecipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from models.report.subject import Pair, Subject


def section(pair: Pair) -> Section:
    """The section with everything that decides the file's content, for both networks."""
    parts = [
        paragraph(
            "The same recipe, seed and data give the same weights on the same machine, bit for bit. The test examples "
            "are part of no choice."
        )
    ]
    for subject in pair.subjects:
        name = f"{subject.manifest.name} version {subject.manifest.version}"
        tables = [
            table("Recipe", ("field", "value"), recipe_rows(subject.recipe)),
            table("Provenance", ("field", "value"), list(origin_rows(subject))),
        ]
        parts.append(folded(name, *tables))
    return Section("provenance", "Where it comes from", join(*parts))


def recipe_rows(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The recipe's fields as rows of a table; unformatted if this version no longer knows them."""
    try:
        return list(TrainingRecipe.from_dict(recipe).describe())
    except (InvalidRecipe, TypeError):
        return [(str(field), str(value)) for field, value in recipe.items()]


def origin_rows(subject: Subject) -> Iterator[tuple[str, str]]:
    """Yield everything else that the manifest records about the model's origin, as rows of a table."""
    manifest = subject.manifest
    yield "published", manifest.created
    yield "model.onnx", f"{manifest.model_bytes:,} bytes, sha256 {manifest.model_sha256}"
    for key, value in subject.origin.items():
        if key != "recipe":
            yield from _flat(key, value)


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _flat(f"{key}.{inner}", item)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)
