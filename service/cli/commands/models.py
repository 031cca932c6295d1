"""``mnist1d models``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click
from rich.markup import escape

from models.artifact.artifact import MANIFEST_FILE, MODEL_FILE, Manifest, check_model_file, read_manifest
from models.artifact.publication import check_model_name, versions
from models.errors import ArtifactError, PublicationError
from service.cli.display.console import Exit, fail, json_option, print_json, print_table, stdout
from service.cli.options import repository_argument
from service.repository.model_settings import ModelFileError, read_model_file
from service.repository.row_independence import row_independence

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


@click.command()
@repository_argument("models")
@json_option
def command(repository: Path, *, as_json: bool) -> None:
    """List the models in REPOSITORY (default: ./repository): versions, accuracy, proof, provenance, batching.

    Shows what the files say. Whether a proof still holds on this machine is what `mnist1d prove` finds out, and a
    server each time it loads a model. "May be batched" is what the files allow: a server also looks at the model's
    axes and tries some rows, and says in its log and in ModelConfig what came of it.
    """
    if not repository.is_dir():
        fail(f"{repository} is no directory; `mnist1d train` publishes a model and makes one", Exit.USAGE)
    try:
        found = list(_describe(repository))
    except OSError as error:
        fail(f"{repository} cannot be read: {error.strerror}")
    if as_json:
        print_json(found)
        return
    if not found:
        stdout().print(f"No models in {repository} yet: `mnist1d train` publishes one.")
        return
    print_table(
        f"Models in {repository}",
        ("model", "version", "accuracy", "parameters", "proof", "may be batched", "recipe", "published"),
        [_row(entry) for entry in found],
        dispensable=("may be batched", "recipe"),  # printed again below, with the reason
        wraps=(),
    )
    for (is_known, reason), versions_of in _by_reason(found).items():
        permission = "may be batched" if is_known else "not batched"
        stdout().print(f"{permission}: {', '.join(versions_of)}: {reason}", markup=False)
    for entry in found:
        if entry["problem"]:
            version = "" if entry["version"] is None else f" version {entry['version']}"
            stdout().print(f"{_shown(entry['model'])}{version}: {entry['problem']}", markup=False, style="red")


def _describe(repository: Path) -> Iterator[dict[str, Any]]:
    for directory in sorted(path for path in repository.iterdir() if path.is_dir() and not path.name.startswith(".")):
        entry: dict[str, Any] = {"model": directory.name, "version": None, "path": str(directory), "proof": "-"}
        try:
            check_model_name(directory.name)
            found = versions(directory)
        except PublicationError as error:
            yield {**entry, "proof": "ignored", "problem": f"ignored: {error}"}
            continue
        except OSError as error:
            yield {**entry, "problem": f"cannot be read: {error.strerror}"}
            continue
        if not found:
            yield {**entry, "problem": f"no version; a server looks for {directory.name}/1/{MODEL_FILE}"}
        for version in found:
            yield {**entry, "version": version, **_describe_version(directory / str(version))}


def _describe_version(directory: Path) -> dict[str, Any]:
    about: dict[str, Any] = {"path": str(directory), "proof": "none", "problem": None}
    manifest = None
    try:
        if os.path.lexists(directory / MANIFEST_FILE):
            manifest = read_manifest(directory)
            about |= _from_manifest(manifest)
        check_model_file(directory, manifest)
    except ArtifactError as error:
        return about | {"proof": "damaged", "problem": str(error)}
    try:
        rows = row_independence(manifest, read_model_file(directory.parent), (directory / MODEL_FILE).read_bytes)
    except ModelFileError as error:
        return about | {"problem": str(error)}
    return about | {"batching": rows._asdict()}


def _by_reason(entries: Iterable[dict[str, Any]]) -> dict[tuple[bool, str], list[str]]:
    """Group versions by whether their requests may be batched, and why."""
    found: dict[tuple[bool, str], list[str]] = {}
    for entry in entries:
        batching = entry.get("batching")
        if batching is not None:
            key = batching["is_known"], batching["reason"]
            found.setdefault(key, []).append(f"{_shown(entry['model'])} version {entry['version']}")
    return found


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
        escape(_shown(entry["model"])),
        "-" if entry["version"] is None else str(entry["version"]),
        f"{100 * accuracy:.1f} %" if isinstance(accuracy, float) else "-",
        f"{parameters:,}" if isinstance(parameters, int) else "-",
        entry["proof"],
        {None: "-", True: "yes", False: "no"}[entry.get("batching", {}).get("is_known")],
        escape(f"{recipe['name']}, seed {recipe['seed']}") if {"name", "seed"} <= set(recipe) else "-",
        escape(entry.get("created", "-").partition("T")[0]),
    )


def _shown(name: str) -> str:
    """A folder name on one line; unprintable ones are quoted."""
    return name if name.isprintable() else repr(name)


def _mapping(value: object) -> dict[str, Any]:
    # The provenance in a manifest may have been written by another program.
    return value if isinstance(value, dict) else {}
