"""Validate a request for a run and make a recipe of it; an error names all invalid fields, not only the first."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from models.artifact.artifact import read_manifest
from models.artifact.publication import MODEL_NAME, MODEL_NAME_RULE, versions
from models.data.dataset import CANONICAL_TRAIN
from models.errors import ArtifactError, InvalidRecipe
from models.gate import why_not_comparable
from models.training.backend import ENGINES
from models.training.recipes import RECIPES, TrainingRecipe
from service.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from service.pb import training_pb2 as pb

DEFAULT_RECIPE = "best"
SERVING = "serving"
"""Gate that compares the new version with the one that serves."""
_AUGMENTATION = RECIPES[DEFAULT_RECIPE].augmentation
"""Default augmentation for recipes that have none."""
_LONGEST_REQUEST_ID = 128


@dataclass(frozen=True)
class RunSpec:
    """The validated settings of a run."""

    recipe: Mapping[str, Any]
    """The result of ``TrainingRecipe.to_dict()``."""
    recipe_name: str
    publish_name: str
    engine: str = "auto"
    gate: str = ""
    """The version to compare with: `SERVING`, ``NAME/VERSION`` or ``NAME``; empty for no gate."""

    @property
    def network(self) -> str:
        """The network that the recipe names."""
        return str(self.recipe["network"])

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, for JSON."""
        return asdict(self)


def checked(request: pb.CreateTrainingRunRequest, repository: Path) -> RunSpec:
    """Validate a request and return the settings of its run.

    Raises:
        InvalidRequest: has a violation for each invalid field; the recipe must fit the canonical data.
    """
    wrong: list[tuple[str, str]] = []
    name = request.recipe or DEFAULT_RECIPE
    if name not in RECIPES:
        wrong.append(("recipe", f"got {name!r}, must be one of {', '.join(RECIPES)}"))
    recipe = _recipe(RECIPES.get(name, RECIPES[DEFAULT_RECIPE]), request, wrong)
    publish_name = request.publish_name or f"mnist1d-{recipe.network}"
    if not MODEL_NAME.fullmatch(publish_name):
        wrong.append(("publish_name", f"got {publish_name!r}, expected {MODEL_NAME_RULE}"))
    engine = request.engine or ENGINES[0]
    if engine not in ENGINES:
        wrong.append(("engine", f"got {engine!r}, must be one of {', '.join(ENGINES)}"))
    if len(request.request_id) > _LONGEST_REQUEST_ID or not request.request_id.isprintable():
        wrong.append(("request_id", f"expected at most {_LONGEST_REQUEST_ID} printable characters"))
    gate = _gate(request, recipe, repository, wrong)
    if wrong:
        message = "; ".join(f"{path}: {what}" for path, what in wrong)
        raise InvalidRequest(message, violations=wrong, reason="INVALID_RECIPE")
    return RunSpec(recipe.to_dict(), name, publish_name, engine, gate)


def _recipe(base: TrainingRecipe, request: pb.CreateTrainingRunRequest, wrong: list[tuple[str, str]]) -> TrainingRecipe:
    """The named recipe with the overrides of the request; invalid ones are left out and added to ``wrong``."""
    paths = {"seed": "seed", "network": "network"}
    changes: dict[str, Any] = {"seed": request.seed}
    if request.network:
        changes["network"] = request.network
    for field, value in request.overrides.ListFields():
        if field.name != "augmentation":
            changes[field.name] = value
            paths[field.name] = f"overrides.{field.name}"
    for field, value in request.overrides.augmentation.ListFields():
        paths[f"augmentation.{field.name}"] = f"overrides.augmentation.{field.name}"
        if field.name == "enabled":
            changes["augmentation"] = (base.augmentation or _AUGMENTATION) if value else None
        else:
            changes[f"augmentation.{field.name}"] = value
    if changes.get("augmentation", base.augmentation) is None:
        # Reported here, since the field that turns it on has this name only in requests.
        for field_name in [name for name in changes if name.startswith("augmentation.")]:
            bound = "cannot be set while augmentation is none; turn it on as well, with overrides.augmentation.enabled"
            wrong.append((paths[field_name], f"got {changes.pop(field_name)!r}, {bound}"))
    while True:
        try:
            recipe = base.replace(**changes)
            recipe.check_fits(CANONICAL_TRAIN)
        except InvalidRecipe as error:
            got = "" if error.value is None else f"got {error.value!r}, "
            path = paths.get(error.field, f"overrides.{error.field}")
            # An error of a field that is reported already is that of the recipe's value in its place: skip it.
            if path not in dict(wrong):
                wrong.append((path, f"{got}{error.bound}"))
            if error.field not in changes:
                return base  # it conflicts with an invalid field that is reported already
            del changes[error.field]
        else:
            return recipe


def _gate(
    request: pb.CreateTrainingRunRequest, recipe: TrainingRecipe, repository: Path, wrong: list[tuple[str, str]]
) -> str:
    if not request.HasField("gate"):
        return ""
    kind = request.gate.WhichOneof("baseline")
    if kind is None or (kind == "serving" and not request.gate.serving):
        wrong.append(("gate", "names no baseline; set serving to true, or model"))
        return ""
    if not recipe.validation and "overrides.validation" not in dict(wrong):
        bound = "must be above 0 with a gate: it compares on held-out examples, never on the test set"
        wrong.append(("overrides.validation", f"got 0, {bound}"))
    if kind == "serving":
        return SERVING
    model = request.gate.model
    name, slash, version = model.partition("/")
    is_number = version.isascii() and version.isdecimal() and not version.startswith("0")
    if not MODEL_NAME.fullmatch(name) or (slash and not is_number):
        wrong.append(("gate.model", f"got {model!r}, expected NAME or NAME/VERSION"))
        return ""
    published = versions(repository / name)
    if not published or (version and int(version) not in published):
        there = f"{name} has the versions {', '.join(map(str, published))}" if published else f"there is no {name}"
        wrong.append(("gate.model", f"got {model!r}, which is not in the repository: {there}"))
    elif why_not := _why_not_comparable(repository / name / (version or str(published[-1])), recipe):
        wrong.append(("gate.model", f"{model} cannot be compared with: {why_not}"))
    # A model may be named "serving" too; with a version it differs from the keyword.
    return f"{name}/{version or max(published, default=1)}" if name == SERVING else model


def _why_not_comparable(directory: Path, recipe: TrainingRecipe) -> str | None:
    try:
        return why_not_comparable(read_manifest(directory), {"recipe": recipe.to_dict()})
    except ArtifactError as error:
        return str(error)
