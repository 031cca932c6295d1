"""``mnist1d models``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from models.artifact import MANIFEST_FILE, Manifest, read_manifest
from models.errors import ArtifactError
from models.publication import model_names, versions
from service.cli.console import Exit, fail, json_option, print_json, print_table, stdout
from service.cli.serve import DEFAULT_REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@click.argument("repository", type=click.Path(path_type=Path), default=DEFAULT_REPOSITORY)
@json_option
def command(repository: Path, *, as_json: bool) -> None:
    """List the models in REPOSITORY (default: ./repository): versions, accuracy, proof, provenance.

    Shows what the files say. Whether a proof still holds on this machine is what `mnist1d prove` finds out, and a
    server each time it loads a model.
    """
    if not repository.is_dir():
        fail(f"{repository} is no directory; `mnist1d train` publishes a model and makes one", Exit.USAGE)
    found = list(_describe(repository))
    if as_json:
        print_json(found)
        return
    if not found:
        stdout().print(f"No models in {repository} yet: `mnist1d train` publishes one.")
        return
    print_table(
        f"Models in {repository}",
        ("model", "version", "accuracy", "parameters", "proof", "recipe", "published"),
        [_row(entry) for entry in found],
    )


def _describe(repository: Path) -> Iterator[dict[str, Any]]:
    for name in model_names(repository):
        for version in versions(repository / name):
            directory = repository / name / str(version)
            entry: dict[str, Any] = {"model": name, "version": version, "path": str(directory)}
            if not (directory / MANIFEST_FILE).exists():
                yield {**entry, "proof": "none", "problem": None}
                continue
            try:
                yield {**entry, **_from_manifest(read_manifest(directory))}
            except ArtifactError as error:
                yield {**entry, "proof": "damaged", "problem": str(error)}


def _from_manifest(manifest: Manifest) -> dict[str, Any]:
    return {
        "proof": f"{len(manifest.goldens)} goldens" if manifest.goldens else "none",
        "problem": None,
        "created": manifest.created,
        "test_accuracy": manifest.test_accuracy,
        "sha256": manifest.model_sha256,
        "inputs": [str(spec) for spec in manifest.inputs],
        "outputs": [str(spec) for spec in manifest.outputs],
        "metrics": dict(manifest.metrics),
        "provenance": dict(manifest.provenance),
    }


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    provenance = entry.get("provenance", {})
    recipe, network = (_mapping(provenance.get(key)) for key in ("recipe", "network"))
    accuracy = entry.get("test_accuracy")
    parameters = network.get("parameters")
    return (
        entry["model"],
        str(entry["version"]),
        f"{100 * accuracy:.1f} %" if isinstance(accuracy, float) else "-",
        f"{parameters:,}" if isinstance(parameters, int) else "-",
        entry["problem"] or entry["proof"],
        f"{recipe['name']}, seed {recipe['seed']}" if {"name", "seed"} <= set(recipe) else "-",
        entry.get("created", "-").partition("T")[0],
    )


def _mapping(value: object) -> dict[str, Any]:
    # The manifest keeps provenance as it was written, by this program or by another.
    return value if isinstance(value, dict) else {}
